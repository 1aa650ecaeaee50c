"""Real files of many instruments and programs: all are read, or refused for the reason that is listed here."""

import os
from pathlib import Path

import numpy as np
import pytest

from cellbundle.errors import LabelReadError
from cellbundle.io import read_image, read_labels

FOLDER = os.environ.get("CELLBUNDLE_TEST_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="CELLBUNDLE_TEST_DATA is not set")
DATA = Path(FOLDER or ".")
SAMPLES = DATA / "loader_samples"
SUFFIXES = {".tif", ".tiff", ".png", ".jpg"}

# name: shape, type, axes, pixel size; what tifffile and ImageJ show
KNOWN = {
    "instanseg_examples/Fluorescence_example.tif": ((2, 450, 450), "uint8", "CYX", None),
    "instanseg_examples/HE_example.tif": ((3, 1484, 1380), "uint8", "YXS", 0.50008),
    "neubias_training/xyc_16bit__nuclei_golgi.tif": ((2, 220, 204), "uint16", "CYX", 0.51576),
    "neubias_training/xy_16bit_labels__nuclei.tif": ((1, 427, 423), "uint16", "YX", 0.35),
    "neubias_training/xy_rgb__cells.tif": ((3, 257, 280), "uint8", "YXS", None),
    "omnipose_docs/test_files/Sample000306.tiff": ((3, 396, 390), "uint8", "YXS", None),
    "omnipose_docs/test_files/caulo_15.tif": ((1, 281, 310), "uint16", "YX", None),
    "omnipose_docs/_static/ecoli_phase_GT.png": ((3, 65, 65), "uint8", "YXS", None),
    "yeaz_example/2020_3_19_frame_100_cropped.tif": ((1, 1164, 1280), "uint8", "YX", None),
    "bccd_boxes/BCCD/JPEGImages/BloodImage_00000.jpg": ((3, 480, 640), "uint8", "YXS", None),
}
LABELS = {
    "neubias_training/xy_16bit_labels__nuclei.tif": 10,
    "neubias_training/watershed/xy_8bit_labels__nuclei.tif": 11,
    "neubias_training/batch_process/xy_8bit__mitocheck_incenp_t1_labels.tif": 7,
    "omnipose_docs/test_files/masks/Sample000193_cp_masks.tif": 182,
    "omnipose_docs/test_files/masks/Sample000033_cp_masks.tif": 116,
}
REFUSED_LABELS = {
    "neubias_training/watershed/xy_8bit_binary__nuclei.tif": "binary mask",
    "omnipose_docs/_static/ecoli_phase_GT.png": "holds colours",
    "neubias_training/xyc_16bit__nuclei_golgi.tif": "2 channels",
    "instanseg_examples/HE_example.tif": "JPEG.*PNG or TIFF",
    "bccd_boxes/BCCD/JPEGImages/BloodImage_00000.jpg": "JPEG.*PNG or TIFF",
}


def test_every_sample_is_read():
    files = [file for file in sorted(SAMPLES.rglob("*")) if file.suffix in SUFFIXES]
    assert len(files) > 50
    for file in files:
        data = read_image(file).data
        assert np.isfinite(data).all(), file
        assert data.min() < data.max(), file


@pytest.mark.parametrize("name", KNOWN)
def test_known_samples(name):
    shape, dtype, axes, size = KNOWN[name]
    image = read_image(SAMPLES / name)
    assert (image.data.shape, str(image.dtype), image.axes) == (shape, dtype, axes)
    assert image.pixel_size_um == (size and pytest.approx((size, size), rel=1e-4))


@pytest.mark.parametrize("name", LABELS)
def test_label_samples(name):
    assert read_labels(SAMPLES / name).max() == LABELS[name]


@pytest.mark.parametrize("name", REFUSED_LABELS)
def test_refused_label_samples(name):
    with pytest.raises(LabelReadError, match=REFUSED_LABELS[name]):
        read_labels(SAMPLES / name)


def test_a_binary_sample_becomes_components():
    name = "neubias_training/watershed/xy_8bit_binary__nuclei.tif"
    assert read_labels(SAMPLES / name, binary="components").max() > 1


@pytest.mark.parametrize("folder", ["dsb2018", "nuinsseg"])
def test_data_sets(folder):
    for file in sorted((DATA / folder / "images").iterdir())[:5]:
        image = read_image(file)
        assert image.data.shape[0] in (1, 3)
        label = DATA / folder / "labels" / file.name
        if label.exists():
            labels = read_labels(label)
            assert labels.shape == image.data.shape[1:]
            assert len(np.unique(labels)) - 1 == labels.max() > 0
