"""Checks, renumbering and connected components of label maps."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from cellbundle.errors import ArrayError, CellBundleError
from cellbundle.instances.labels import DENSE_ID_LIMIT, check_labels, label_components, renumber

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">u2", ">i4"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (0, 5), (4, 0)])
def test_integer_maps_of_any_width_are_accepted(shape, dtype):
    check_labels(np.ones(shape, dtype))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.zeros((2, 3), np.float32),
            r"^labels .*2-D integer.*\(2, 3\).*float32",
        ),
        (np.zeros((2, 3), bool), r"\(2, 3\).*bool"),
        (np.zeros((2, 3), complex), r"\(2, 3\).*complex128"),
        (np.zeros((1, 2, 3), np.int32), r"\(1, 2, 3\).*int32"),
        (np.zeros(4, np.uint8), r"\(4,\).*uint8"),
        (np.array(7), r"\(\).*int64"),
        ([[0, 1], [1, 0]], r"\(2, 2\).*list"),
        (None, r"\(\).*NoneType"),
        (np.array([[0, -3], [2, -1]]), "^labels .*negative.* -3 "),
        (np.array([[0, -(2**40)]]), "negative.* -1099511627776 "),
    ],
)
def test_other_arrays_are_refused(labels, message):
    with pytest.raises(ArrayError, match=message) as caught:
        check_labels(labels)
    assert isinstance(caught.value, (CellBundleError, ValueError))


def test_the_message_names_the_argument():
    with pytest.raises(ArrayError, match=r"^truth .*2-D integer"):
        check_labels(np.zeros(3), "truth")
    with pytest.raises(ArrayError, match=r"^truth .*negative"):
        check_labels(np.array([[-1]]), "truth")


@pytest.mark.parametrize(
    ("labels", "dtype", "expected", "n"),
    [
        ([[0, 0], [0, 0]], "i4", [[0, 0], [0, 0]], 0),
        ([[0, 1], [2, 2]], "i4", [[0, 1], [2, 2]], 2),
        ([[9, 0], [4, 9]], "u1", [[2, 0], [1, 2]], 2),
        ([[255, 7], [7, 255]], "u1", [[2, 1], [1, 2]], 2),
        ([[5, 5]], "i8", [[1, 1]], 1),
        ([[65535, 0, 300]], ">u2", [[2, 0, 1]], 2),
        ([[DENSE_ID_LIMIT, 0, 3]], "i4", [[2, 0, 1]], 2),
        ([[DENSE_ID_LIMIT + 1, 0, 3]], "i4", [[2, 0, 1]], 2),
        ([[2**31 - 1, 8]], "i4", [[2, 1]], 2),
        ([[2**31 + 5, 0], [2**40, 1]], "i8", [[2, 0], [3, 1]], 3),
        ([[2**64 - 1, 2**63], [0, 2**63]], "u8", [[2, 1], [0, 1]], 2),
    ],
)
def test_renumber_by_hand(labels, dtype, expected, n):
    result, count = renumber(np.array(labels, dtype))
    assert result.dtype == np.int32
    assert result.tolist() == expected
    assert count == n


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_renumber_of_nothing(shape):
    result, count = renumber(np.zeros(shape, np.uint16))
    assert result.shape == shape
    assert result.dtype == np.int32
    assert count == 0


@pytest.mark.parametrize("offset", [0, DENSE_ID_LIMIT, 2**40])
@pytest.mark.parametrize("view", [lambda a: a, lambda a: a.T, lambda a: a[::2, ::-1], np.asfortranarray])
def test_renumber_keeps_order_and_ignores_memory_layout(view, offset):
    labels = np.random.default_rng(3).integers(0, 50, (13, 9)) * 7
    labels[labels > 0] += offset
    labels.flags.writeable = False
    result, count = renumber(view(labels))
    assert result.flags.c_contiguous
    assert sorted(set(result.ravel().tolist()) - {0}) == list(range(1, count + 1))
    ids = np.unique(view(labels))
    np.testing.assert_array_equal(ids[ids > 0][result[result > 0] - 1], view(labels)[result > 0])
    np.testing.assert_array_equal(result == 0, view(labels) == 0)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
        ([[3, 3, 0, 3]], [[1, 1, 0, 2]]),
        ([[5, 0], [0, 5]], [[1, 0], [0, 2]]),  # a corner does not connect
        ([[1, 1, 2, 2]], [[1, 1, 2, 2]]),  # neighbours stay apart
        ([[1, 2, 1]], [[1, 2, 3]]),
        ([[4, 0, 4], [4, 4, 4]], [[1, 0, 1], [1, 1, 1]]),  # connected around a corner
    ],
)
def test_components_of_a_label_map_by_hand(labels, expected):
    result, n = label_components(np.array(labels, np.int32), connectivity=4)
    assert result.dtype == np.int32
    assert n == np.max(expected)
    assert result.tolist() == expected


def test_components_only_split_instances():
    labels = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.int32)
    parts, _ = label_components(labels, connectivity=4)
    np.testing.assert_array_equal(parts > 0, labels > 0)
    for part in range(1, parts.max() + 1):
        assert len(np.unique(labels[parts == part])) == 1
    np.testing.assert_array_equal(label_components(parts, connectivity=4)[0], parts)


def test_parts_of_a_mask_are_numbered_from_the_top():
    mask = np.array([[0, 0, 1, 0, 1], [1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 1, 1]], bool)
    expected = [[0, 0, 1, 0, 1], [2, 0, 0, 1, 0], [2, 0, 0, 0, 0], [0, 0, 3, 3, 3]]
    labels, n = label_components(mask)
    assert n == 3
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(
        label_components(mask, min_size=3)[0], [[0, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0] * 5, [0, 0, 2, 2, 2]]
    )
    assert not label_components(mask, min_size=4)[0].any()


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (0, 4), (4, 0), (40, 33)])
def test_components_are_those_of_scipy_and_skimage(shape, connectivity):
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        mask = rng.random(shape) < share
        expected, n = ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
        for given in (mask, np.asfortranarray(mask), mask.astype(np.uint16)):
            found = label_components(given, connectivity=connectivity)
            np.testing.assert_array_equal(found[0], expected)
            assert found[1] == n
        labels = np.where(mask, rng.integers(1, 4, shape), 0)
        if mask.size:  # skimage refuses others
            parts = label(labels, background=0, connectivity=connectivity // 4)
            np.testing.assert_array_equal(label_components(labels, connectivity=connectivity)[0], parts)
