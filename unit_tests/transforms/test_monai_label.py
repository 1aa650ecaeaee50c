"""Support for servers of MONAI Label, without one."""

import sys
from types import ModuleType

import numpy as np
import pytest
import tifffile

from cellbundle.errors import ImageReadError
from cellbundle.transforms import LoadCelld, NormaliseIntensityd
from cellbundle.transforms.monai_label import APP_VARIABLE, runs_in_monai_label

from ..words import Like


class HTTPError(Exception):
    def __init__(self, status_code, detail):
        super().__init__(status_code, detail)
        self.status_code, self.detail = status_code, detail


@pytest.fixture
def server(monkeypatch):
    module = ModuleType("starlette.exceptions")
    module.HTTPException = HTTPError
    monkeypatch.setitem(sys.modules, "starlette.exceptions", module)
    monkeypatch.setenv(APP_VARIABLE, "app")


@pytest.fixture
def image(tmp_path):
    tifffile.imwrite(tmp_path / "many.tif", np.zeros((5, 40, 50), np.uint8))
    return tmp_path / "many.tif"


def test_bad_images_are_answered_with_the_reason_and_no_path(server, image):
    assert runs_in_monai_label()
    with pytest.raises(HTTPError) as refused:
        LoadCelld()({"image": str(image)})
    assert refused.value.status_code == 400
    assert refused.value.detail == Like(r"^ImageReadError: many\.tif.*axes")
    assert str(image.parent) not in refused.value.detail


def test_channels_that_a_bundle_cannot_take_are_answered(server):
    with pytest.raises(HTTPError, match="channels"):
        NormaliseIntensityd()({"image": np.zeros((7, 8, 9), np.float32)})


def test_elsewhere_the_error_is_our_own(monkeypatch, image):
    monkeypatch.delenv(APP_VARIABLE, raising=False)
    assert not runs_in_monai_label()
    with pytest.raises(ImageReadError, match=str(image)):
        LoadCelld()({"image": str(image)})
