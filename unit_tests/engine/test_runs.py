"""Run folders: a new one for each training, the last one for eval and infer, and what a resumed training may change."""

import gc
import logging
import shutil
from pathlib import Path

import pytest
import yaml

from cellbundle.bundles import inference_parser, warn_of_version_conflict
from cellbundle.engine import runs
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import CheckpointError, ConfigError
from cellbundle.record import RECORD, read_record, write_record

from .conftest import BUNDLE, SMALL


@pytest.fixture
def bundle(tmp_path):
    """A copy of the bundle, without weights, whose runs are its own."""
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle", ignore=shutil.ignore_patterns("runs", "eval", "models")))


@pytest.fixture
def start(bundle, data):
    def make(**options):
        config = str(bundle / "configs" / "hyper_parameters.yaml")
        given = {"datalist": str(data), "basedir": str(data.parent), **SMALL, **options}
        workflow = CellWorkflow(config_file=config, logging_file=False, **given)
        workflow.initialize()
        return workflow

    return make


def status(folder):
    return read_record(folder)["status"]


def test_each_training_has_a_folder_of_its_own_with_all_that_belongs_to_it(start, bundle, data, caplog):
    with caplog.at_level(logging.INFO, "cellbundle"):
        start(final_test=True).run()
        start(**{"train#trainer#max_epochs": 1}).run()
    first, second = bundle / "runs" / "1", bundle / "runs" / "2"
    names = {"model.pt", "model_final.pt", "latest.pt", "previous.pt", "history.csv", "curves.png", RECORD}
    assert names <= {path.name for path in first.iterdir()}
    assert (first / "eval" / "report.json").is_file()
    assert not (bundle / "eval").exists()
    record = read_record(first)
    assert (record["bundle"], record["status"], record["epoch"], record["max_epochs"]) == (
        "cell_unet",
        "finished",
        2,
        2,
    )
    assert record["configuration"]["network_def"]["features"] == [8, 8]
    assert record["data"] == [{"datalist": str(data), "basedir": str(data.parent)}]
    assert len(record["data_sha256"][0]) == 64
    assert {"torch", "monai", "cellbundle", "python"} <= record["versions"].keys()
    messages = [entry.message for entry in caplog.records if "run folder" in entry.message]
    assert messages == [
        f"run folder: {first}",
        f"run folder: {first} (finished)",
        f"run folder: {second}",
        f"run folder: {second} (finished)",
    ]


def test_eval_and_infer_take_the_last_run_that_finished_and_was_no_quick_one(start, bundle, caplog):
    def chosen(**options):
        return start(mode="infer", input_dir=str(bundle / "docs"), **options).content("weights")

    with pytest.raises(CheckpointError, match=r"models/model\.pt does not exist"):
        chosen()
    start().run()
    start(quick=True).run()
    start().run()
    (bundle / "runs" / "3" / RECORD).write_text(
        (bundle / "runs" / "3" / RECORD).read_text().replace("finished", "failed")
    )
    first = bundle / "runs" / "1"
    with caplog.at_level(logging.INFO, "cellbundle"):
        assert chosen() == str(first / "model.pt")
        assert f"ckpt_path is {first}" in caplog.text
    assert chosen(pretrained_ckpt_name="model_final.pt") == str(first / "model_final.pt")
    other = bundle / "runs" / "2" / "model.pt"
    assert chosen(pretrained_ckpt_path=str(other)) == str(other)
    assert sorted(path.name for path in (bundle / "runs").iterdir()) == ["1", "2", "3"], "eval and infer make none"


def test_training_starts_from_the_weights_of_the_bundle_by_name(start, bundle):
    start().run()
    shutil.copytree(bundle / "runs" / "1", bundle / "models")
    workflow = start(pretrained_ckpt_name="model.pt")
    assert workflow.content("weights") == str(bundle / "models" / "model.pt")
    assert workflow.content("ckpt_path") == str(bundle / "runs" / "2")


def test_a_training_that_does_not_begin_leaves_no_folder(start, bundle):
    workflow = start(datalist="missing.json")
    folder = Path(workflow.content("ckpt_path"))
    assert folder.is_dir()
    with pytest.raises(Exception, match=r"missing\.json"):
        workflow.run()
    del workflow
    gc.collect()
    assert not folder.exists()


def test_numbers_are_taken_once(bundle):
    folders = [runs.make_folder(bundle) for _ in range(3)]
    shutil.rmtree(folders[0])
    folders.append(runs.make_folder(bundle))
    assert [folder.name for folder in folders] == ["1", "2", "3", "4"]


def test_a_read_only_bundle_has_its_runs_in_the_working_directory(bundle, tmp_path, monkeypatch):
    (bundle / "runs").write_text("a file in the way")
    monkeypatch.chdir(tmp_path)
    assert runs.make_folder(bundle) == tmp_path / "runs" / "1"
    write_record(tmp_path / "runs" / "1", record(bundle="cell_unet", status="running"))
    assert runs.unfinished_run(bundle) == tmp_path / "runs" / "1"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs").write_text("")
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"no folder.*File exists.*--ckpt_path"):
        runs.make_folder(bundle)


def test_a_bundle_in_a_wheel_has_its_runs_in_the_working_directory(tmp_path, monkeypatch):
    bundle = tmp_path / "site-packages" / "cellbundle" / "_bundles" / "cell_unet"
    bundle.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert runs.runs_folders(bundle) == [tmp_path / "runs"]
    assert runs.make_folder(bundle) == tmp_path / "runs" / "1"
    write_record(tmp_path / "runs" / "1", record(bundle="cell_unet", status="finished"))
    (tmp_path / "runs" / "1" / "model.pt").write_text("")
    assert runs.last_run(bundle) == tmp_path / "runs" / "1"
    assert list(bundle.iterdir()) == []


def test_a_bundle_of_another_version_of_the_core_is_reported(tmp_path, caplog):
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundles" / "tiny", ignore=shutil.ignore_patterns("runs", "eval"))
    (tmp_path / "scripts" / "cellbundle").mkdir(parents=True)
    (tmp_path / "scripts" / "cellbundle" / "version.py").write_text('__version__ = "9.8.7"\n')
    with caplog.at_level(logging.WARNING):
        CellWorkflow(config_file=str(bundle / "configs" / "hyper_parameters.yaml"), mode="infer", logging_file=False)
        inference_parser(bundle, {})
    assert "9.8.7" in caplog.text
    assert caplog.text.count("belongs to cellbundle") == 1
    warn_of_version_conflict.cache_clear()
    caplog.clear()
    inference_parser(bundle, {})
    assert "9.8.7" in caplog.text


TRAIN = {"handlers": [{"a": 1}], "trainer": {"max_epochs": 3}}


def record(**values):
    config = {"learning_rate": 0.1, "num_workers": 0, "batch_size": 4, "train": TRAIN}
    base = {"form": 1, "bundle": "cell_unet", "status": "finished", "settings": {}, "started": "2026"}
    base |= {"max_epochs": 3, "processes": 1, "data_sha256": ["a"], "configuration": config}
    return base | values


def changed(**values):
    return record(configuration={**record()["configuration"], **values})


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (record(), []),
        (changed(num_workers=8, mlflow_tracking_uri="runs.db", output_dir="elsewhere", device_name="cuda"), []),
        (changed(train=TRAIN | {"trainer": {"max_epochs": 4}}) | {"max_epochs": 4}, []),
        (
            changed(train=TRAIN | {"trainer": {"max_epochs": 2}}) | {"max_epochs": 2},
            ["train#trainer#max_epochs: 3 before, 2 now"],
        ),
        (record(max_epochs=2), []),  # the same expression in another phase
        (changed(learning_rate=0.2), ["learning_rate: 0.1 before, 0.2 now"]),
        (changed(train=TRAIN | {"handlers": [{"a": 2}]}), ["train#handlers#0#a: 1 before, 2 now"]),
        (changed(amp=False), ["amp: not set before, False now"]),
        (record(data_sha256=["b"]), ["the content of the data list"]),
        (changed(batch_size=2), ["batch_size: 4 before, 2 now"]),
        (changed(batch_size=2) | {"processes": 2}, []),
    ],
)
def test_what_differs_from_the_run_that_is_resumed(new, expected):
    assert runs.find_changes(record(), new) == expected


def test_resuming_with_another_configuration_is_refused_key_by_key(make, tmp_path):
    make().run()
    with pytest.raises(CheckpointError, match=r"learning_rate.* 0\.002 .* 0\.5 .*--allow_changes True"):
        make(resume=True, learning_rate=0.5).run()
    make(resume=True, learning_rate=0.5, allow_changes=True, **{"train#trainer#max_epochs": 3}).run()
    assert read_record(tmp_path / "run")["configuration"]["learning_rate"] == 0.5


def test_a_record_without_what_is_compared(make, tmp_path):
    make().run()
    path = tmp_path / "run" / RECORD
    content = yaml.safe_load(path.read_text())
    del content["data_sha256"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError, match=r"run/run\.yaml.*no data_sha256"):
        make(resume=True).run()


def test_resume_auto_starts_goes_on_and_ends(make, tmp_path):
    make(resume="AUTO", **{"train#trainer#max_epochs": 1}).run()
    make(resume="auto", **{"train#trainer#max_epochs": 2}).run()
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    make(resume="auto", **{"train#trainer#max_epochs": 2}).run()
    assert (tmp_path / "run" / "history.csv").read_text().splitlines()[1:] == rows


def test_resume_without_a_folder_takes_the_newest_unfinished_run(start, bundle):
    with pytest.raises(CheckpointError, match=r"no run.*unfinished.*--ckpt_path"):
        start(resume=True)
    start(resume="auto").run()
    workflow = start(resume="auto")
    assert Path(workflow.content("ckpt_path")).name == "2", "the first one is finished"
    workflow.run()
    path = bundle / "runs" / "1" / RECORD
    path.write_text(path.read_text().replace("status: finished", "status: preempted"))
    workflow = start(resume=True, **{"train#trainer#max_epochs": 3})
    assert Path(workflow.content("ckpt_path")).name == "1"
    workflow.run()
    assert status(bundle / "runs" / "1") == "finished"
    assert len((bundle / "runs" / "1" / "history.csv").read_text().splitlines()) == 4


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(make, tmp_path):
    make().run()
    for name in ("latest.pt", "previous.pt", "model.pt", "model_final.pt"):
        (tmp_path / "run" / name).unlink()
    make(resume=True).run()
    assert (tmp_path / "run" / "model_final.pt").is_file()


def test_a_run_of_another_bundle_and_a_damaged_record_are_refused(make, tmp_path):
    make().run()
    path = tmp_path / "run" / RECORD
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"bundle": "swin_unet"}))
    with pytest.raises(CheckpointError, match="swin_unet, not of cell_unet"):
        make(resume=True).run()
    path.write_text("form: [")
    with pytest.raises(CheckpointError, match=r"run\.yaml.*damaged"):
        make(resume=True).run()


def test_two_trainings_into_one_folder(make, tmp_path):
    with (
        runs.locked(tmp_path / "run", "the folder"),
        pytest.raises(CheckpointError, match=r"another training.*run;.*--ckpt_path"),
    ):
        make().run()
    make().run()


def test_overwrite_leaves_nothing_of_the_other_training(make, tmp_path):
    make().run()
    before = (tmp_path / "run" / "model.pt").read_bytes()
    workflow = make(overwrite=True, seed=5, **{"network_def#features": [4, 4], "train#trainer#max_epochs": 1})
    workflow.run()
    assert (tmp_path / "run" / "model.pt").read_bytes() != before
    assert not (tmp_path / "run" / "previous.pt").exists()
    assert read_record(tmp_path / "run")["configuration"]["network_def"]["features"] == [4, 4]


@pytest.mark.parametrize("value", ["perhaps", "2"])
def test_resume_has_three_values(make, value):
    with pytest.raises(ConfigError, match=f"--resume.*'{value}'"):
        make(resume=value)
