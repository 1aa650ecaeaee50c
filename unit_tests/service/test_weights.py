"""``cellbundle serve --weights``: a checkpoint in place of the bundle's own."""

import hashlib
import shutil

import pytest
from unit_tests.run_folders import BUNDLE, write_run
from unit_tests.service.fakes import FORM, InlinePool

from cellbundle.errors import CheckpointError, ConfigError
from cellbundle.inference.predictor import Predictor
from cellbundle.service.http.server import make_pool
from cellbundle.service.settings import ServiceSettings
from cellbundle.service.workers.answers import Job
from cellbundle.service.workers.segmenter import Segmenter

from ..cli.conftest import call

NAMES = {"bundles": (str(BUNDLE),)}


@pytest.fixture
def weights(tmp_path):
    return write_run(tmp_path / "runs" / "3") / "model.pt"


def handler(**options) -> Segmenter:
    """What a worker of the service runs."""
    return make_pool(ServiceSettings(**NAMES, device="cpu", **options)).make_handler()


def test_the_service_finds_what_the_weights_find(make, weights, tmp_path):
    work = handler(weights=weights)
    client = make(InlinePool(work), **NAMES, weights=weights)
    (one,) = client.get("/v1/bundles").json()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (one["name"], one["weights"]) == ("cell_unet", {"file": "3/model.pt", "sha256": digest})
    assert str(tmp_path) not in str(one)
    answer = client.post("/v1/segment?diameter=none", files=FORM)
    (tmp_path / "image").write_bytes(FORM["image"][1])
    expected = Segmenter({"a": "a"}, lambda _: Predictor(device="cpu", weights=weights), 10**6, 1)
    (segmented,) = expected([Job(tmp_path / "image", "a", "json", tmp_path / "answer", "none")])
    assert answer.json()["n"] == segmented.cells > 5


def test_without_the_option_the_shipped_weights_are_used():
    (one,) = handler().about
    digest = hashlib.sha256((BUNDLE / "models" / "model.pt").read_bytes()).hexdigest()
    assert one["weights"] == {"file": "models/model.pt", "sha256": digest}


def test_weights_that_cannot_be_served(weights, tmp_path):
    with pytest.raises(ConfigError, match=r"--weights.*one --bundle.* 2;"):
        ServiceSettings(bundles=("cell_unet", "swin_unet"), weights=weights)
    with pytest.raises(ConfigError, match=r"--weights.*none\.pt.*checkpoint"):
        ServiceSettings(weights=tmp_path / "none.pt")
    other = write_run(tmp_path / "4", bundle="swin_unet", weights=False)
    shutil.copyfile(weights, other / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt.*swin_unet's.*not cell_unet's"):
        handler(weights=other / "model.pt")


def test_command_line(weights, monkeypatch, tmp_path, capsys):
    given = []

    def stop(settings):
        given.append(settings)
        raise ConfigError("stop")

    monkeypatch.setattr("cellbundle.service.http.server.make_pool", stop)
    monkeypatch.chdir(weights.parent)
    for options, expected in ((["--weights", "model.pt"], weights), ([], None)):
        assert call("serve", "--port", "0", *options) == 2
        assert given.pop().weights == expected
