"""HoVer targets: distances by hand, invariants, threads, and MONAI as an oracle."""

import json

import numpy as np
import pytest
from monai.transforms import ComputeHoVerMaps
from PIL import Image

from cellbundle.errors import ArrayError
from cellbundle.synthetic import KINDS
from cellbundle.targets.hover import MIN_INSTANCES_PER_THREAD, labels_to_hover

from ..hand_made import digits
from .label_maps import cells


def by_monai(labels):
    return np.asarray(ComputeHoVerMaps(dtype="float32")(labels[None]))


# Hand-made maps


def test_distances_by_hand():
    horizontal, vertical = labels_to_hover(digits(".....", ".111.", ".111.", ".111."))
    assert horizontal.tolist() == [[0] * 5] + [[0, -1, 0, 1, 0]] * 3
    assert vertical.tolist() == [[0] * 5, [0, -1, -1, -1, 0], [0] * 5, [0, 1, 1, 1, 0]]


def test_both_sides_are_scaled_apart():
    horizontal, vertical = labels_to_hover(digits("1111", "1..."))  # centre of mass at x = 6/5, y = 1/5
    np.testing.assert_allclose(horizontal, [[-1, -1 / 6, 4 / 9, 1], [-1, 0, 0, 0]], rtol=1e-7)
    np.testing.assert_array_equal(vertical, [[-1, -1, -1, -1], [1, 0, 0, 0]])


def test_parts_of_an_instance_share_its_centre():
    horizontal, vertical = labels_to_hover(digits("1...1", "..2.."))
    assert horizontal[0].tolist() == [-1, 0, 0, 0, 1]
    assert not horizontal[1].any()
    assert not vertical.any()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 6), (4, 7)])
def test_empty_maps(shape):
    maps = labels_to_hover(np.zeros(shape, np.uint8))
    assert maps.shape == (2, *shape)
    assert maps.dtype == np.float32
    assert not maps.any()


def test_an_image_of_one_pixel():
    assert labels_to_hover(np.array([[5]])).tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize("shape", [(6, 8), (7, 7), (1, 12), (12, 1)])
def test_one_cell_as_large_as_the_image(shape):
    horizontal, vertical = labels_to_hover(np.full(shape, 3))
    for distances, n in ((horizontal, shape[1]), (vertical.T, shape[0])):
        expected = np.linspace(-1, 1, n) if n > 1 else [0]
        np.testing.assert_allclose(distances, np.broadcast_to(expected, distances.shape), atol=1e-7)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 5), np.float32), r"\(4, 5\).*float32"),
        (np.zeros((1, 4, 5), np.int32), r"\(1, 4, 5\).*int32"),
        (np.array([[0, -1]]), "negative.* -1 "),
    ],
)
def test_bad_maps_are_refused(labels, message):
    with pytest.raises(ArrayError, match=message):
        labels_to_hover(labels)


# Invariants


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_reaches_1_on_all_sides(kind):
    labels = cells(kind)
    maps = labels_to_hover(labels)
    assert maps.dtype == np.float32
    assert maps.flags.c_contiguous
    assert not maps[:, labels == 0].any()
    for i in range(1, labels.max() + 1):
        inside = maps[:, labels == i]
        assert inside.min(1).tolist() == [-1, -1]
        assert inside.max(1).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8", ">i4"])
def test_ids_and_their_type_do_not_matter(dtype):
    """MONAI needs ids below 2**24, and a bin for every one."""
    labels = cells()
    largest = min(np.iinfo(dtype).max, 2**62)
    ids = np.linspace(largest, largest // 2, labels.max()).astype(np.uint64)  # gaps, reversed order, huge
    renamed = np.concatenate([[0], ids]).astype(dtype)[labels]
    np.testing.assert_array_equal(labels_to_hover(renamed), labels_to_hover(labels))


@pytest.mark.parametrize("view", [lambda a: a[::2, ::2], lambda a: a[::-1], lambda a: a[5:50, 7:40], np.asfortranarray])
def test_memory_layout_does_not_matter(view):
    labels = cells()
    labels.flags.writeable = False
    np.testing.assert_array_equal(labels_to_hover(view(labels)), labels_to_hover(view(labels).copy(order="C")))


def test_the_maps_turn_with_the_cells():
    labels = cells()
    np.testing.assert_array_equal(labels_to_hover(labels.T), labels_to_hover(labels)[::-1].transpose(0, 2, 1))
    np.testing.assert_array_equal(labels_to_hover(labels[::-1])[1], -labels_to_hover(labels)[1, ::-1])


def test_the_number_of_threads_does_not_matter(monkeypatch):
    labels = np.kron(np.arange(1, 3 * MIN_INSTANCES_PER_THREAD + 1).reshape(16, -1), np.ones((4, 5), np.int64))
    labels[::3, ::4] = 0
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        results.append(labels_to_hover(labels))
    np.testing.assert_allclose(results[0], by_monai(labels), atol=1e-6)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


# MONAI as an oracle


@pytest.mark.parametrize("kind", KINDS)
def test_same_maps_as_monai(kind):
    """It overwrites ids by distances in one map, but a distance is an id only for id 1, which it replaces first."""
    labels = cells(kind, seed=4)
    assert labels.max() > 10
    np.testing.assert_allclose(labels_to_hover(labels), by_monai(labels), rtol=0, atol=2e-7)
    with_gaps = labels * 3
    np.testing.assert_allclose(labels_to_hover(with_gaps), by_monai(with_gaps), rtol=0, atol=2e-7)


def test_same_maps_as_monai_on_real_cells(real_data):
    folder = real_data("dsb2018")
    entries = json.loads((folder / "dsb2018_datalist.json").read_text())["training"][:200:20]
    for entry in entries:
        labels = np.array(Image.open(folder / entry["label"])).astype(np.int32)
        np.testing.assert_allclose(labels_to_hover(labels), by_monai(labels), rtol=0, atol=2e-7)
