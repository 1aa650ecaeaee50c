"""Trainings, evaluations and inferences replace only files that cellbundle wrote."""

import csv
import errno
import json

import pytest

from cellbundle.engine.claims import claim_files
from cellbundle.errors import ConfigError
from cellbundle.io.ownership import Manifest


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return contents(folder)


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_files_outside_of_the_folder_have_a_record_of_their_own(tmp_path):
    files = [tmp_path / "a/x.csv", tmp_path / "b/y.csv", tmp_path / "a/sub/z.csv"]
    records = claim_files({str(tmp_path / "a"): files})
    assert {record.folder.name: record.names for record in records} == {"a": {"x.csv", "sub/z.csv"}, "b": {"y.csv"}}
    (tmp_path / "b/z.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"^somewhere else.* z\.csv;.*--replace-foreign"):
        claim_files({tmp_path / "b": [tmp_path / "b/z.csv"]}, shown=lambda folder: "somewhere else")


def test_a_conflict_in_one_folder_claims_nothing_in_others(tmp_path):
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(ConfigError):
        claim_files({tmp_path / "new": [tmp_path / "new/a.csv"], tmp_path: [tmp_path / "b.csv"]})
    assert not (tmp_path / "new").exists()


@pytest.fixture
def trained(make, tmp_path):
    make().run()
    return tmp_path / "run" / "model.pt"


@pytest.mark.parametrize("mode", ["eval", "infer"])
def test_foreign_files_of_every_name_stay(make, trained, tmp_path, mode):
    options = {"mode": mode, "pretrained_ckpt_path": str(trained)}
    make("first", **options).run()
    make("first", **options).run()  # its own files are no conflict
    made = contents(tmp_path / "first/eval")
    assert json.loads(made[".cellbundle/files.json"])["files"] == sorted(n for n in made if n[0] != ".")
    before = fill(tmp_path / "other/eval", {*made, "failures.csv"})
    with pytest.raises(ConfigError, match=r" failures\.csv.*--replace-foreign") as refused:
        make("other", **options).run()
    assert all(name in str(refused.value) for name in made if name[0] != ".")
    assert contents(tmp_path / "other/eval") == before
    make("other", replace_foreign=True, **options).run()
    assert {**contents(tmp_path / "other/eval"), "report.html": b""} == {**made, "report.html": b""}


def test_a_later_file_of_the_user_is_a_conflict(make, trained, tmp_path):
    options = {"mode": "infer", "pretrained_ckpt_path": str(trained)}
    make("first", **options).run()
    before = fill(tmp_path / "first/eval", ["failures.csv"])
    with pytest.raises(ConfigError, match=r" failures\.csv;.*--replace-foreign"):
        make("first", **options).run()
    assert contents(tmp_path / "first/eval") == before


def test_a_training_names_foreign_files_before_it_starts(make, tmp_path):
    for name in ("history.csv", "run.json", "eval/report.json"):
        before = fill(tmp_path / "run", [name])
        with pytest.raises(ConfigError, match=f" {name.rpartition('/')[2]};.*--replace-foreign"):
            make(final_test=True).run()
        assert contents(tmp_path / "run") == before
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run/eval/report.json").parent.mkdir(exist_ok=True)
    (tmp_path / "run/eval/report.json").write_text("only the final test writes it")
    make().run()
    with (tmp_path / "run/history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_folder_that_cannot_be_written_is_named(make, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Manifest, "add", refuse)
    with pytest.raises(ConfigError, match=r"run .*Read-only.*another folder"):
        make().run()


def test_a_training_of_a_former_version_is_resumed(make, tmp_path):
    make().run()
    for path in (tmp_path / "run/.cellbundle").iterdir():
        path.unlink()
    make(resume=True, **{"train#trainer#max_epochs": 3}).run()
    files = json.loads((tmp_path / "run/.cellbundle/files.json").read_text())["files"]
    assert files == ["curves.png", "history.csv", "run.yaml"]
