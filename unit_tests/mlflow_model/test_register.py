"""Bundles as MLflow models: what is registered, and a scoring server that answers images."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit_tests.run_folders import write_run

from cellbundle import predict
from cellbundle.cli import main
from cellbundle.errors import CellBundleError, CheckpointError, ConfigError, DependencyError
from cellbundle.inference.predictor import Predictor
from cellbundle.mlflow_model import log_model
from cellbundle.mlflow_model.register import requirements, stage

mlflow = pytest.importorskip("mlflow")
BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "cell_unet"
EXAMPLE = BUNDLE / "docs" / "example.png"
WAIT = 180  # seconds until a server answers; a machine may be busy


def encoded(content):
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Client of an SQLite store with a cell_unet registered for a training run; its entity and its folder."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'runs.db'}"
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("trainings", (folder / "artifacts").as_uri()))
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")
    try:
        logged = log_model(BUNDLE, uri, registered_name="cells", run_id=run.info.run_id, max_pixels=320 * 256)
        assert mlflow.get_tracking_uri() == "sqlite:///elsewhere.db"
    finally:
        mlflow.set_tracking_uri(None)
    assert logged.version == "1"
    model = client.get_logged_model(logged.uri.removeprefix("models:/"))
    return client, model, Path(model.artifact_location.removeprefix("file://"))


@pytest.mark.slow
def test_registered_model(store):
    client, model, place = store
    version = client.get_model_version("cells", "1")
    assert (version.source, version.run_id) == (model.model_uri, model.source_run_id)
    assert model.status == "READY"
    assert [output.model_id for output in client.get_run(version.run_id).outputs.model_outputs] == [model.model_id]
    assert model.tags["bundle"] == "cell_unet"
    assert mlflow.models.Model.load(str(place)).signature.inputs.input_names() == ["image"]
    pins = (place / "requirements.txt").read_text().split()
    assert f"mlflow=={mlflow.__version__}" in pins
    assert all("==" in line for line in pins)


@pytest.mark.slow
def test_model_runs_on_the_code_that_it_holds(store, tmp_path):
    _, _, place = store
    code = f"""
import mlflow, pandas
model = mlflow.pyfunc.load_model({str(place)!r})
import cellbundle
print(cellbundle.__file__)
print(model.predict(pandas.DataFrame({{"image": [{encoded(EXAMPLE.read_bytes())!r}]}}))["n"][0])
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    module, n = done.stdout.split()
    assert Path(module).parts[-3:] == ("code", "cellbundle", "__init__.py")
    assert int(n) == len(predict(EXAMPLE, BUNDLE, device="cpu").table)


@pytest.fixture(scope="module")
def ask(store, tmp_path_factory):
    """Posts a request to ``mlflow models serve``; status and answer."""
    _, _, place = store
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", str(place)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*serve, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ping", server, log)
        yield lambda **body: post(f"{address}/invocations", body)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(address, server, log):
    for _ in range(WAIT * 5):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"no answer in {WAIT} s: {log.read_text()[-3000:]}")


def post(address, body):
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_server_answers_an_image_with_the_label_map_of_predict(ask):
    image = encoded(EXAMPLE.read_bytes())
    status, text = ask(dataframe_split={"columns": ["image"], "data": [[image]]})
    assert status == 200
    (answer,) = json.loads(text)["predictions"]
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["labels"]))))
    expected = predict(EXAMPLE, BUNDLE, device="cpu").labels
    assert np.array_equal(labels, expected)
    assert (answer["shape"], answer["n"]) == (list(expected.shape), expected.max())
    status, text = ask(inputs={"image": [image]}, params={"format": "list"})
    assert status == 200
    assert np.array_equal(json.loads(text)["predictions"][0]["labels"], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": {"image": ["???"]}}, "image 0.*not base64"),
        ({"inputs": {"image": [encoded(b"junk")]}}, "image 0.*not a PNG, JPEG, BMP or TIFF"),
        ({"inputs": {"image": [encoded(EXAMPLE.read_bytes()[:999])]}}, "image 0.*cannot be decoded"),
        ({"inputs": {"image": [encoded(EXAMPLE.read_bytes())]}, "params": {"format": "x"}}, "format.*'x'"),
        ({"inputs": {"photo": ["a"]}}, r"missing inputs \['image'\]"),
    ],
)
def test_bad_image_is_400_without_a_trace(ask, body, message):
    status, text = ask(**body)
    assert status == 400
    assert re.search(message, json.loads(text)["message"])
    assert "Traceback" not in text
    assert "stack_trace" not in text
    assert "/tmp" not in text


@pytest.mark.slow
def test_too_many_pixels_and_channels_are_400(ask):
    for shape, message in (((300, 300), "max_pixels=81920"), ((4, 40, 50), "channels")):
        buffer = io.BytesIO()
        import tifffile

        tifffile.imwrite(
            buffer, np.zeros(shape, np.uint8), photometric="minisblack", metadata={"axes": "CYX"[-len(shape) :]}
        )
        status, text = ask(inputs={"image": [encoded(buffer.getvalue())]})
        assert (status, message in text) == (400, True), text


def test_staged_bundle_has_what_inference_needs_and_nothing_else(tmp_path):
    weights = tmp_path / "other.pt"
    weights.write_bytes(b"weights")
    folder = stage(BUNDLE, weights, tmp_path / "cell_unet")
    assert {path.name for path in folder.iterdir()} == {
        "LICENSE", "configs", "docs", "large_files.yml", "models", "scripts",
    }  # fmt: skip
    assert (folder / "models/model.pt").read_bytes() == b"weights"
    assert [path.name for path in (folder / "models").iterdir()] == ["model.pt"]
    assert not list(folder.rglob("__pycache__"))


def test_staged_weights_keep_their_settings(tmp_path):
    """The bundle alone would have another network and normaliser."""
    run = write_run(tmp_path / "1")
    folder = stage(BUNDLE, run / "model.pt", tmp_path / "staged")
    assert (folder / "models" / "run.yaml").read_bytes() == (run / "run.yaml").read_bytes()
    image = np.random.default_rng(0).random((1, 64, 80), np.float32)
    found, expected = (
        Predictor(*bundle, device="cpu", diameter="none", **options).segment(image).labels
        for bundle, options in (([folder], {}), ([BUNDLE], {"weights": run / "model.pt"}))
    )
    assert expected.max() > 10
    assert np.array_equal(found, expected)


def test_requirements_are_pinned_and_a_missing_package_is_named(tmp_path):
    (tmp_path / "configs").mkdir()
    metadata = tmp_path / "configs" / "metadata.json"
    metadata.write_text(json.dumps({"required_packages_version": {"Pillow": "1"}}))
    pins = dict(line.split("==") for line in requirements(tmp_path))
    assert {"torch", "monai", "numpy", "pillow", "mlflow"} <= pins.keys()
    metadata.write_text(json.dumps({"required_packages_version": {"no-such-package": "1"}}))
    with pytest.raises(DependencyError, match="pip install no-such-package"):
        requirements(tmp_path)


@pytest.mark.parametrize(
    ("bundle", "options", "error", "message"),
    [
        ("none", {}, ConfigError, "no bundle 'none'"),
        (BUNDLE, {"weights": "none.pt"}, CheckpointError, "none.pt does not exist"),
        (BUNDLE, {"weights": __file__}, CheckpointError, r"test_register\.py.*not a readable checkpoint"),
        (BUNDLE, {"run_id": "a", "experiment_name": "b"}, ConfigError, "run id.*experiment"),
        (BUNDLE, {"run_id": "0123456789abcdef"}, CellBundleError, "cell_unet.*0123456789abcdef"),
    ],
)
def test_wrong_options(bundle, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        log_model(bundle, f"sqlite:///{tmp_path / 'runs.db'}", **options)


def test_a_server_that_is_down_is_an_error_without_the_password():
    with pytest.raises(CellBundleError, match=r"cell_unet.*http://127\.0\.0\.1:9: ") as raised:
        log_model(BUNDLE, "http://me:secret@127.0.0.1:9")
    assert "secret" not in str(raised.value)


def test_mlflow_is_not_installed(monkeypatch):
    monkeypatch.setattr("cellbundle.mlflow_model.register.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'cellbundle\[mlflow\]'"):
        log_model(BUNDLE, "runs.db")


def test_command_line(monkeypatch, capsys):
    given = {}

    def log(bundle, uri, **options):
        from cellbundle.mlflow_model import LoggedBundle

        given.update(options, bundle=bundle, uri=uri)
        return LoggedBundle("models:/m-1", "3")

    monkeypatch.setattr("cellbundle.mlflow_model.log_model", log)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    options = ["--bundle", "cell_unet", "--tracking_uri", "runs.db", "--registered-name", "cells", "--run-id", "ab"]
    with pytest.raises(SystemExit) as left:
        main(["log-model", *options])
    assert left.value.code == 0
    assert capsys.readouterr().out.split() == ["models:/m-1", "models:/cells/3"]
    assert (given["uri"], given["registered_name"], given["run_id"]) == ("runs.db", "cells", "ab")
