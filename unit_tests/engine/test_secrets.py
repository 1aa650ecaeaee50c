"""Secrets in the addresses of a workflow are in no log, file, parameter and error."""

import io
import logging
import re
import traceback
from itertools import compress
from pathlib import Path

import pytest
from monai.bundle.scripts import create_workflow

from cellbundle.cli import main
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import CellBundleError
from cellbundle.io.remote import RemoteError
from cellbundle.tracking import sender
from cellbundle.tracking.sender import find_runs

from ..tracking.tracking_servers import misbehaving, only_run
from .conftest import BUNDLE, SMALL

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("mlflow")

SECRET = "SEKRET123"
URL = f"memory://KEY:{SECRET}/x@lab"  # the password has a slash
QUERY = f"?sig={SECRET}"


@pytest.fixture
def files(data, memory):
    """A file system in memory whose addresses need a password, as far as a path can."""
    root = memory._strip_protocol(URL)
    memory.put(str(data.parent), f"{root}/cells", recursive=True)
    memory.pipe_file(f"{root}/cells/{data.name}{QUERY}", data.read_bytes())
    return memory


@pytest.fixture
def remote(make, files, data, uri):
    """Makes workflows whose roots are elsewhere, and which are tracked."""
    options = {
        "datalist": f"{URL}/cells/{data.name}{QUERY}",
        "basedir": f"{URL}/cells",
        "ckpt_path": f"{URL}/run",
        "output_dir": f"{URL}/run/eval",
        "mlflow_tracking_uri": uri,
        "mlflow_run_name": f"on {URL}",
    }
    return lambda **others: make(**{**options, **others})


@pytest.fixture
def written(tmp_path, capfd, caplog, monkeypatch):
    """Gives all that was logged, printed and written, file names too."""
    root = logging.getLogger()
    is_open = [not getattr(getattr(handler, "stream", None), "closed", False) for handler in root.handlers]
    monkeypatch.setattr(root, "handlers", [*compress(root.handlers, is_open)])  # those of other tests are closed
    caplog.set_level(logging.DEBUG, logger="cellbundle")

    def collect() -> bytes:
        captured = capfd.readouterr()
        paths = list(tmp_path.rglob("*"))
        names = [str(path.relative_to(tmp_path)) for path in paths]
        files = [path.read_bytes() for path in paths if path.is_file()]
        return b"\n".join(["\n".join([caplog.text, captured.out, captured.err, *names]).encode(), *files])

    return collect


def test_a_tracked_training(remote, client, written):
    remote(final_test=True).run()
    run = only_run(client, "cell_unet")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "on memory://lab")
    assert "config.yaml" in {file.path for file in client.list_artifacts(run.info.run_id)}
    everything = written()
    assert b"copied to memory://lab/run" in everything
    assert SECRET.encode() not in everything


def test_resuming_needs_no_more_than_the_same_options(remote, files):
    remote(**{"train#trainer#max_epochs": 1}).run()
    assert remote(resume=True).trainer.state.epoch == 1


def test_a_tracking_server_that_is_down(make, written, tmp_path, monkeypatch, client, uri):
    monkeypatch.setattr(sender, "PATIENCE", 0.5)
    with misbehaving(500) as (address, _):
        server = address.replace("//", f"//me:{SECRET}/x@")
        options = {"mlflow_tracking_uri": server, "pretrained_ckpt_path": None, "train#trainer#max_epochs": 1}
        make(**options, mlflow_experiment_name="down").run()
    assert find_runs([tmp_path])
    everything = written()
    assert b"--tracking-uri URI" in everything
    assert SECRET.encode() not in everything
    assert call("sync-runs", tmp_path, "--tracking-uri", f"http://me:{SECRET}@127.0.0.1:9/?token={SECRET}") == 1
    assert call("sync-runs", tmp_path, "--tracking-uri", f"{uri}?timeout=5") == 0
    assert only_run(client, "down").info.status == "FINISHED"
    assert SECRET.encode() not in written()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("basedir", f"{URL}/none"),
        ("basedir", f"simplecache::{URL}"),
        ("datalist", f"{URL}/none.json{QUERY}"),
        ("datalist", f"http://me:{SECRET}@127.0.0.1:9/a.json{QUERY}"),
        ("ckpt_path", f"http://me:{SECRET}@127.0.0.1:9/run{QUERY}"),
        ("output_dir", f"nothing://me:{SECRET}@host/run"),
        ("pretrained_ckpt_path", f"https://me:{SECRET}@host/a.pt{QUERY}"),
        ("mode", f"s3://me:{SECRET}@host/x"),
        ("data_list_files", f"$[{{'datalist': 's3://me:{SECRET}@h/x'}}, 1 / 0]"),
        ("ckpt_path", f"s3:/me:{SECRET}@host/run"),
    ],
)
def test_errors(remote, written, option, value):
    with pytest.raises((CellBundleError, RuntimeError, ValueError)) as error:
        remote(**{option: value}).run()
    assert SECRET not in "".join(traceback.format_exception(error.value))
    assert SECRET.encode() not in written()


def test_a_tracking_address_that_is_none(make, written):
    make(mlflow_tracking_uri=f"s3://me:{SECRET}@host/x", **{"train#trainer#max_epochs": 1}).run()
    everything = written()
    assert re.search(rb"mlflow_tracking_uri.*'s3://host/x'", everything)
    assert SECRET.encode() not in everything


def test_outputs_that_cannot_be_sent(remote, files, monkeypatch, written):
    def fail(self, here, there, **options):
        raise PermissionError(f"{there}: access of KEY denied")

    workflow = remote()
    monkeypatch.setattr(type(files), "put_file", fail)
    Path(workflow.content("ckpt_path"), "a.csv").write_text("1")
    monkeypatch.setattr(workflow, "_train", lambda: None)
    with pytest.raises(
        RemoteError, match=r"memory://lab/run: PermissionError: /lab/run/\S+: access of KEY denied"
    ) as error:
        workflow.run()
    assert SECRET not in "".join(traceback.format_exception(error.value))
    assert SECRET.encode() not in written()


def test_errors_of_other_libraries(make, monkeypatch):
    workflow = make()

    def fail():
        raise ValueError(f"no {URL}") from OSError(2, "No such file", f"/{URL}")

    monkeypatch.setattr(workflow, "_train", fail)
    with pytest.raises(ValueError, match="no memory://lab") as error:
        workflow.run()
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_the_options_that_monai_logs(data, tmp_path):
    stream = io.StringIO()
    logger = logging.getLogger("monai.bundle.scripts")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        create_workflow(
            CellWorkflow,
            config_file=str(BUNDLE / "configs" / "hyper_parameters.yaml"),
            logging_file=False,
            datalist=str(data),
            basedir=f"file://{data.parent}",
            ckpt_path=str(tmp_path),
            mlflow_tracking_uri=f"http://me:{SECRET}@127.0.0.1:9{QUERY}",
            mlflow_run_name=f"of {URL}",
            **SMALL,
        )
    finally:
        logger.removeHandler(handler)
    assert "> mlflow_tracking_uri: 'http://127.0.0.1:9'" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_the_handlers_of_the_bundle_hide_secrets(make, tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    make(logging_file=str(BUNDLE / "configs" / "logging.conf"))
    (handler,) = root.handlers
    handler.stream = io.StringIO()
    logging.getLogger("fsspec").warning("cannot open %s", URL)
    assert handler.stream.getvalue().endswith("fsspec: cannot open memory://lab\n")


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return exit_.value.code
