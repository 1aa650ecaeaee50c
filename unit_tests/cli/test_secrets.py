"""Addresses on the command line: no command shows their secrets, or takes them for paths."""

import pytest

from cellbundle.errors import CellBundleError

from .conftest import call

SECRET = "SEKRET123"
ADDRESS = f"s3://KEY:{SECRET}/x@bucket/x?sig={SECRET}"
SERVER = f"http://me:{SECRET}@127.0.0.1:9"
LISTS = ("--datalist", ADDRESS, "--basedir", ADDRESS)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_hidden(capsys, tmp_path):
    printed = "".join(capsys.readouterr())
    assert printed
    assert SECRET not in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", ADDRESS, "-o", "out"),
        ("predict", "x.png", "-o", ADDRESS),
        ("predict", "x.png", "-o", "out", "--weights", ADDRESS),
        ("evaluate", ADDRESS, "--datalist", "a.json", "--basedir", "."),
        ("evaluate", ".", *LISTS),
        ("validate-data", *LISTS),
        ("sync-runs", ADDRESS),
        ("data", "prepare", "custom", "--raw-dir", ADDRESS),
        ("data", "prepare", "custom", "-o", f"file:///x?{SECRET}"),
    ],
)
def test_an_address_is_no_path(arguments, tmp_path, capsys):
    assert call(*arguments) == 2
    assert_hidden(capsys, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", ".", ADDRESS, "--datalist", "x", "--basedir", "."),
        (ADDRESS,),
        (f"--{ADDRESS}",),
        ("install", ADDRESS),
        ("install", f"{SERVER}/tiny.zip?sig={SECRET}"),
        ("data", "info", ADDRESS),
        ("serve", "--bundle", ADDRESS),
    ],
)
def test_other_errors(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cellbundle.datasets.download.PAUSE", 0.0)
    monkeypatch.setenv("CELLBUNDLE_BUNDLES", str(tmp_path.parent / "bundles"))
    assert call(*arguments) in (1, 2)
    assert_hidden(capsys, tmp_path)


@pytest.mark.parametrize("address", [SERVER, SERVER.replace("@", "/x@"), SERVER.replace(SECRET, f"x/{SECRET}")])
def test_causes_that_a_traceback_shows(address):
    pytest.importorskip("mlflow")
    with pytest.raises(CellBundleError, match=r"cell_unet.*http://127\.0\.0\.1:9") as error:
        call("--debug", "log-model", "--bundle", "cell_unet", "--tracking-uri", address)
    causes = [error.value]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    assert len(causes) > 1
    assert SECRET not in "".join(map(str, causes))
