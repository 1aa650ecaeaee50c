"""``cellbundle serve`` as people start it."""

import io
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit_tests.service.fakes import TOKEN
from unit_tests.service.running import EXAMPLE, PATIENCE_S, Service

from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels

from ..cli.conftest import call

SERVE = ("serve", "--port", "0")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "a.png").write_bytes(EXAMPLE.read_bytes())
    with Service("--device", "cpu", "--root", root, "--path-map", f"/host={root}") as one:
        one.root = root
        yield one


@pytest.fixture
def image():
    return EXAMPLE.read_bytes()


pytestmark = pytest.mark.slow


def test_it_finds_what_the_predictor_finds(service, image, tmp_path):
    status, body, headers = service.ask("POST", "/v1/segment?format=tiff", image)
    assert status == 200
    (tmp_path / "labels.tif").write_bytes(body)
    labels = read_labels(tmp_path / "labels.tif")
    expected = Predictor(device="cpu")(np.asarray(Image.open(EXAMPLE), np.float32)[None]).labels
    assert np.count_nonzero(labels != expected) <= 10  # of 81920: the number of threads decides about rounding
    assert int(headers["x-cell-count"]) == labels.max() == expected.max()


def test_a_mask_beside_the_image(service):
    status, body, _ = service.ask("POST", "/seg_mask", json.dumps({"image_path": "/host/a.png"}), "application/json")
    assert (status, json.loads(body)) == (200, {"mask_path": "/host/a_mask.png"})
    mask = np.asarray(Image.open(service.root / "a_mask.png"))
    assert (mask.shape, np.unique(mask).tolist()) == ((256, 320), [0, 255])
    assert str(service.root) not in service.log


def test_a_worker_that_is_killed_is_replaced_and_the_next_request_works(service, image):
    pid = int(service.wait_for(r"worker (\d+) is ready"))
    large = io.BytesIO()  # takes seconds
    Image.fromarray(np.tile(np.asarray(Image.open(EXAMPLE)), (8, 8))).save(large, "PNG")
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(service.ask("POST", "/v1/segment", large.getvalue())[0]))
    before = service.log.count("is ready")
    thread.start()
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    thread.join(PATIENCE_S)
    assert statuses == [500]
    assert service.ask("POST", "/v1/segment", image)[0] == 200
    assert service.log.count("is ready") == before + 1


def test_a_time_out_frees_the_worker(service, image):
    status, body, _ = service.ask("POST", "/v1/segment?timeout=0.05", image)
    assert (status, json.loads(body)["error"]["code"]) == (504, "timed_out")
    assert service.ask("POST", "/v1/segment", image)[0] == 200


def test_the_server_process_loads_no_network_and_says_nothing_of_its_kind(service):
    assert "libtorch" not in Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "server" not in service.ask("GET", "/healthz")[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_runs_and_leaves_no_process(image, number):
    service = Service("--device", "cpu")
    pid = int(service.wait_for(r"worker (\d+) is ready"))
    answers = []
    ask = lambda: answers.append(service.ask("POST", "/v1/segment", image)[0])  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert service.stop(number) == 0
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [200, 200]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "Traceback" not in service.log


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--root", "/no/such/folder"], "/no/such/folder.*--root"),
        (["--path-map", "a=b"], "--path-map.*'a=b'.*HOST=CONTAINER"),
        (["--workers", 0], "workers.* 0"),
        (["--timeout", 0], "timeout_s.* 0"),
        (["--bundle", "cell_unet", "--bundle", "cell_unet"], "cell_unet.*once"),
        (["--bundle", "none_such"], "no bundle 'none_such'"),
        (["--host", "192.0.2.1"], r"192\.0\.2\.1:0"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(arguments, reason, capsys):
    assert call(*SERVE, *arguments) in (1, 2)
    assert re.search(reason, capsys.readouterr().err)


def test_a_token_comes_from_a_file_or_the_environment_and_must_not_be_weak(tmp_path, capsys, monkeypatch):
    file = tmp_path / "token"
    file.write_text("short\n")
    assert call(*SERVE, "--token-file", file) == 2
    file.write_text("")
    assert call(*SERVE, "--token-file", file) == 2
    monkeypatch.setenv("CELLBUNDLE_TOKEN_FILE", str(file))
    assert call(*SERVE) == 2
    monkeypatch.setenv("CELLBUNDLE_TOKEN_FILE", "/dev/null")  # no token
    monkeypatch.setenv("CELLBUNDLE_TOKEN", TOKEN + " ä")
    assert call(*SERVE) == 2
    errors = capsys.readouterr().err
    assert errors.count("at least 16") == 2
    assert errors.count("is empty") == 2
    assert "short" not in errors
    assert TOKEN not in errors
