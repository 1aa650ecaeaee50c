"""The picture that the page shows: the whole image, with contrast, no larger than browsers like."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cellbundle.io import Image
from cellbundle.service.workers.answers import PREVIEW_SIDE, preview


def made(height, width):
    data = np.zeros((1, height, width), np.float32)
    data[:, : height // 2] = 7  # dim: contrast makes it white
    answer = preview(Image(data, Path("a.tif"), "YX", "metadata", None, np.dtype("uint16")), 0)
    return answer, np.asarray(Picture.open(io.BytesIO(answer.body)))


def test_a_dim_image_is_shown_with_contrast():
    answer, picture = made(40, 64)
    assert (answer.cells, answer.size) == (0, (40, 64))
    assert picture.shape == (40, 64, 3)
    assert picture[:18].min() > 240
    assert picture[22:].max() < 15


@pytest.mark.parametrize(("height", "width", "shown"), [(3, PREVIEW_SIDE, PREVIEW_SIDE), (3, PREVIEW_SIDE + 1, 2049)])
def test_large_images_are_reduced(height, width, shown):
    answer, picture = made(height, width)
    assert answer.size == (height, width)
    assert picture.shape[1] == shown
