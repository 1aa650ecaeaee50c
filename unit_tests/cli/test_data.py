"""``cellbundle data``: what it prints and how it ends."""

import re
import subprocess
import sys

import numpy as np
import pytest

from cellbundle.datasets import names

from .conftest import call


@pytest.fixture
def raw(stage1, tmp_path):
    """Six published images with two nuclei each."""
    y, x = np.indices((20, 20))
    nuclei = {f"{n}a": [(y // 5 == row) & (x // 5 == n // 2) for row in (0, 2)] for n in range(6)}
    return stage1(tmp_path / "raw", nuclei)


def run(capsys, *arguments):
    """Exit code, stdout and stderr of ``cellbundle data``."""
    code = call("data", *arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_list_names_every_data_set_with_its_licence(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert all(f"\n{name} " in f"\n{out}" for name in names())
    assert "(CC0 1.0)" in out


def test_info_shows_source_licence_layout_and_options(capsys):
    code, out, _ = run(capsys, "info", "dsb2018")
    assert code == 0
    for text in ("licence: CC0 1.0", "stage1_train.zip  https://", "variant stardist", "(670 training images)"):
        assert text in out
    code, out, _ = run(capsys, "info", "sartorius")
    assert "--option KEY=VALUE" in out


def test_prepare_prints_counts_and_the_next_step_and_verify_agrees(raw, tmp_path, capsys):
    code, out, _ = run(capsys, "prepare", "dsb2018", "--raw_dir", raw, "--output_dir", tmp_path / "out", "--workers", 1)
    assert code == 0
    assert "all             6 images      6 groups       12 instances" in out
    assert "no group and no image stands in two places" in out
    assert f"--datalist {tmp_path / 'out/dsb2018.json'} --basedir {tmp_path / 'out'}" in out
    assert run(capsys, "verify", tmp_path / "out")[0] == 0
    (tmp_path / "out/labels/3a.tif").unlink()
    code, out, _ = run(capsys, "verify", "dsb2018", "--output_dir", tmp_path / "out")
    assert code == 1
    assert re.match(r"labels/3a\.tif: .*missing\n1 damaged", out)


def test_broken_pairs_are_printed_and_end_with_1(raw, tmp_path, capsys):
    (raw / "stage1_train/2a/images/2a.png").unlink()
    code, out, _ = run(capsys, "prepare", "dsb2018", "--raw-dir", raw, "-o", tmp_path / "out", "--workers", 1)
    assert code == 1
    assert re.search("error: 2a: stage1_train/2a.* 0 images.* 2 masks", out)
    assert (tmp_path / "out/dsb2018.json").is_file()


def test_prepare_names_foreign_files(raw, tmp_path, capsys):
    arguments = ("prepare", "dsb2018", "--raw-dir", raw, "-o", tmp_path / "out", "--workers", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.html").write_text("mine")
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert re.search(r" report\.html;.*--replace-foreign", err)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert run(capsys, *arguments, "--replace-foreign")[0] == 0
    assert run(capsys, *arguments)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prepare", "dsb2081"], 1, "'dsb2081'.*dsb2018"),
        (["prepare", "dsb2018", "--raw-dir", "missing"], 1, r"missing.*stage1_train\.zip"),
        (["prepare", "dsb2018", "--raw-dir", "missing", "--option", "x"], 2, "KEY=VALUE"),
        (["verify", "nowhere"], 1, r"nowhere.*no manifest\.csv"),
    ],
)
def test_errors_are_one_line(arguments, code, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, *arguments)
    assert found == code
    assert re.search(message, err)
    assert err.count("\n") == 1


@pytest.mark.slow
def test_the_commands_start_without_torch():
    code = (
        "import sys; from cellbundle.datasets import names, prepare, verify; import cellbundle.cli.data; "
        "print('torch' in sys.modules, 'monai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
