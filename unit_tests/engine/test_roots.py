"""Training, evaluating and inferring with data and outputs elsewhere."""

import json
import re
import threading
from pathlib import Path

import pytest
import torch

from cellbundle.engine import roots
from cellbundle.errors import CheckpointError, ConfigError, DatalistError
from cellbundle.io.remote import RemoteError

fsspec = pytest.importorskip("fsspec")
URL = "memory://lab"


@pytest.fixture
def files(data, memory):
    """A file system in memory with the data set and images that no list names."""
    memory.put(str(data.parent), "/lab/cells", recursive=True)
    memory.pipe_file("/lab/cells/images/unused.png", b"unused")
    return memory


@pytest.fixture
def remote(make, files, data):
    """Makes workflows all of whose roots are elsewhere."""
    folders = {"datalist": f"{URL}/cells/{data.name}", "basedir": f"{URL}/cells", "ckpt_path": f"{URL}/run"}
    return lambda **options: make(**{**folders, "output_dir": f"{URL}/run/eval", **options})


def sent(files, folder="run"):
    names = {path.removeprefix(f"/lab/{folder}/") for path in files.find(f"/lab/{folder}")}
    return {name for name in names if ".cellbundle/" not in name}


def test_all_modes(remote, files, data, tmp_path):
    remote(final_test=True).run()
    assert {"model.pt", "latest.pt", "history.csv", "eval/report.json"} <= sent(files)
    before = files.cat_file("/lab/run/model.pt")
    remote(mode="infer").run()
    maps = sorted(name for name in sent(files) if name.endswith("_labels.tif"))
    names = [Path(e["image"]).stem for e in json.loads(data.read_text())["testing"]]
    assert maps == sorted(f"eval/{name}_labels.tif" for name in names)
    assert files.cat_file("/lab/run/model.pt") == before
    assert not list((tmp_path / "cache").rglob("unused.png"))


@pytest.mark.parametrize("name", ["model.pt", "latest.pt"])
def test_weights_of_another_training_elsewhere_are_kept(remote, files, name):
    files.pipe_file(f"/lab/run/{name}", b"of another training")
    with pytest.raises(CheckpointError, match=f"{URL}/run .*{name}.* --overwrite True"):
        remote().run()
    assert files.cat_file(f"/lab/run/{name}") == b"of another training"


def test_outputs_elsewhere_with_data_here(make, files):
    make(ckpt_path=f"{URL}/run").run()
    assert {"model.pt", "latest.pt"} <= sent(files)


def test_files_of_others_elsewhere_are_kept(remote, files):
    remote().run()
    files.pipe_file("/lab/run/eval/report.html", b"by hand")
    with pytest.raises(ConfigError, match=f"{URL}/run/eval .* report.html;.*--replace-foreign"):
        remote(mode="eval").run()
    assert files.cat_file("/lab/run/eval/report.html") == b"by hand"
    assert "eval/report.json" not in sent(files)
    remote(mode="eval", replace_foreign=True).run()
    assert b"<html" in files.cat_file("/lab/run/eval/report.html")


def test_own_files_elsewhere_are_known_on_another_machine(remote, files, tmp_path, monkeypatch):
    remote(final_test=True).run()
    files.rm_file("/lab/run/eval/report.json")
    monkeypatch.setenv("CELLBUNDLE_CACHE", str(tmp_path / "another"))
    remote(mode="eval").run()
    assert "eval/report.json" in sent(files)
    assert files.exists("/lab/run/eval/.cellbundle/files.json")


def test_a_damaged_state_of_a_copy_means_that_it_is_made_anew(remote, files, tmp_path):
    remote(final_test=True).run()
    states = list((tmp_path / "cache").rglob(".remote.json"))
    assert states
    for content in (b"", b"{", b"[]", b'{"a": 1}', b"\xff", b"[" * 10**5):
        for path in states:
            path.write_bytes(content)
        remote(quick=True, mode="infer").content("dataset")


def test_only_the_entries_of_the_mode_are_copied(remote, files, data, tmp_path):
    remote().run()
    copied = {path.name for path in (tmp_path / "cache" / "data").rglob("images/*")}
    listed = json.loads(data.read_text())
    assert copied == {Path(entry["image"]).name for entry in listed["training"]}


def test_resuming_on_another_machine(remote, files, tmp_path, monkeypatch):
    remote(**{"train#trainer#max_epochs": 1}).run()
    monkeypatch.setenv("CELLBUNDLE_CACHE", str(tmp_path / "other"))
    resumed = remote(resume=True)
    assert resumed.trainer.state.epoch == 1
    resumed.run()
    with files.open("/lab/run/latest.pt") as file:
        assert torch.load(file, weights_only=True)["epoch"] == 2


def test_outputs_are_sent_while_the_training_runs(remote, files, monkeypatch):
    from ignite.engine import Events

    monkeypatch.setattr(roots, "SECONDS", 0.01)
    workflow = remote()
    arrived = threading.Event()

    @workflow.trainer.on(Events.EPOCH_STARTED(once=2))
    def wait(engine):
        for _ in range(1000):
            if files.exists("/lab/run/latest.pt"):
                arrived.set()
                return
            threading.Event().wait(0.01)

    workflow.run()
    assert arrived.is_set()


def test_without_a_network_training_goes_on_and_the_end_says_what_is_only_here(remote, files, monkeypatch, caplog):
    def fail(self, *args, **options):
        raise TimeoutError("no answer")

    workflow = remote()
    monkeypatch.setattr(roots, "SECONDS", 0.01)
    with monkeypatch.context() as broken:
        broken.setattr(type(files), "put_file", fail)
        with pytest.raises(RemoteError, match=r"files.*run-.*latest\.pt.*TimeoutError: no answer"):
            workflow.run()
    folder = Path(workflow.content("ckpt_path"))
    assert torch.load(folder / "latest.pt", weights_only=True)["epoch"] == 2
    assert "sent again later" in caplog.text
    remote(mode="eval").run()  # sends what was left, too
    assert files.cat_file("/lab/run/latest.pt") == (folder / "latest.pt").read_bytes()


def test_another_error_is_not_hidden(remote, files, monkeypatch, caplog):
    workflow = remote()
    monkeypatch.setattr(type(files), "put_file", lambda self, *args, **options: 1 / 0)
    Path(workflow.content("ckpt_path"), "a.csv").write_text("1")

    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "_train", stop)
    with pytest.raises(KeyboardInterrupt):
        workflow.run()
    assert re.search(r"files.*\(.*a\.csv.*ZeroDivisionError", caplog.text)


def test_folder_of_images(remote, files, make):
    remote().run()
    files.pipe_file("/lab/new/a.png", files.cat_file(files.find("/lab/cells/images")[0]))
    files.pipe_file("/lab/new/b.png", files.cat_file("/lab/new/a.png"))
    options = {"mode": "infer", "input_dir": f"{URL}/new", "output_dir": f"{URL}/found"}
    remote(**options).run()
    assert sent(files, "found") == {"a_labels.tif", "b_labels.tif"}
    files.rm_file("/lab/new/b.png")
    assert [Path(e["image"]).name for e in remote(**options).content("dataset").data] == ["a.png"]


def test_several_lists(remote, files, data, tmp_path):
    specs = [{"datalist": f"{URL}/cells/{data.name}", "basedir": f"{URL}/cells", "weight": 2}]
    specs.append({"datalist": str(data), "basedir": str(data.parent)})
    workflow = remote(data_list_files=specs, datalist=None, basedir=None)
    images = [entry["image"] for entry in workflow.content("train#dataset").data]
    assert sum(image.startswith(str(tmp_path / "cache")) for image in images) == len(images) / 2 > 0


def test_missing_files_are_named_with_their_address(remote, files, data):
    entry = json.loads(data.read_text())["training"][0]
    files.rm_file(f"/lab/cells/{entry['label']}")
    with pytest.raises(DatalistError, match=rf"1 files.*missing.*{URL}/cells;.* {entry['label']}"):
        remote()


def test_a_missing_list(remote):
    with pytest.raises(DatalistError, match=r"memory://lab/none\.json does not exist"):
        remote(datalist=f"{URL}/none.json")
