"""ROI sets come back from roifile as the same pixels."""

from zipfile import ZipFile

import numpy as np
import pytest
import roifile
from skimage import draw

from cellbundle.errors import ArrayError
from cellbundle.io.imagej import MAX_SHORT, write_imagej

from .conftest import make


def rasterise(rois, shape):
    labels = np.zeros(shape, np.int32)
    for roi in rois:
        mask = np.zeros(shape, bool)
        for ring in roi.coordinates(multi=True):
            x, y = ring.T - 0.5
            mask[draw.polygon(y, x, shape)] ^= True
        assert not labels[mask].any()
        labels[mask] = int(roi.name)
    return labels


def test_pixels_come_back(tmp_path, instances):
    write_imagej(tmp_path / "a.zip", instances)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [int(roi.name) for roi in rois] == instances.table["label"].tolist()
    np.testing.assert_array_equal(rasterise(rois, instances.labels.shape), instances.labels)
    assert len(list(tmp_path.iterdir())) == 1


def test_one_part_without_holes_is_traced_and_others_are_composite(tmp_path):
    write_imagej(tmp_path / "a.zip", make([[1, 1, 0, 2], [1, 0, 0, 0], [0, 3, 3, 3], [0, 3, 0, 3], [2, 3, 3, 3]]))
    simple, parts, ring = roifile.roiread(tmp_path / "a.zip")
    assert simple.roitype == roifile.ROI_TYPE.TRACED
    assert (simple.left, simple.top, simple.right, simple.bottom) == (0, 0, 2, 2)
    for roi in (parts, ring):
        assert roi.composite
        assert roi.roitype == roifile.ROI_TYPE.RECT
        assert len(roi.coordinates(multi=True)) == 2


def test_coordinates_beyond_16_bits(tmp_path):
    labels = np.zeros((4, 70_000), np.int32)
    for label, (first, last) in enumerate(
        [(0, 40_000), (32_760, 32_770), (60_000, MAX_SHORT), (60_530, MAX_SHORT + 1), (66_000, 69_000)], start=1
    ):
        labels[label % 4, first:last] = label
    instances = make(labels)
    write_imagej(tmp_path / "a.zip", instances)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [roi.composite for roi in rois] == [False, False, False, True, True]
    np.testing.assert_array_equal(rasterise(rois, labels.shape), instances.labels)


def test_too_large_an_image_is_refused(tmp_path):
    with pytest.raises(ArrayError, match=r"up to 16777216, got .*\(1, 16777217\); write GeoJSON"):
        write_imagej(tmp_path / "a.zip", make(np.zeros((1, 2**24 + 1), np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_many_instances(tmp_path, many):
    write_imagej(tmp_path / "a.zip", many)
    with ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        last = roifile.ImagejRoi.frombytes(archive.read(names[-1]))
    assert len(set(names)) == len(names) == 75_625
    assert names[0] == "00001.roi"
    assert last.coordinates().tolist() == [[1096, 1096], [1099, 1096], [1099, 1099], [1096, 1099]]


def test_the_same_instances_give_the_same_file(tmp_path, scored):
    for name in ("a.zip", "b.zip"):
        write_imagej(tmp_path / name, scored)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk):
    with pytest.raises(OSError, match="No space"):
        write_imagej(tmp_path / "a.zip", scored)
    assert not list(tmp_path.iterdir())
