"""YOLO outlines by hand, written and read again, and lines that are none."""

import numpy as np
import pytest

from cellbundle.errors import ArrayError, LabelReadError
from cellbundle.instances.polygons import outlines
from cellbundle.io.formats.yolo import read_yolo, write_yolo


def save(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path, shape, **options):
    """Label map, ids that have lost all pixels, and classes."""
    painted, classes = read_yolo(path, shape, **options)
    return painted.labels, painted.lost, classes


def read_back(path, labels):
    """Read outlines as they are written."""
    return read(path, labels.shape, corners="edges")


def test_outlines_by_hand(tmp_path):
    """4 pixels wide and 8 high, so that x and y cannot be taken for each other."""
    path = save(
        tmp_path / "a.txt", "0 0.25 0.125 0.5 0.125 0.5 0.5 0.25 0.5", "", "3 0 0.875 0.75 0.875 0.75 0.875", " "
    )
    labels, lost, classes = read(path, (8, 4))
    expected = np.zeros((8, 4))
    expected[1:5, 1:3] = 1
    expected[7] = 2
    np.testing.assert_array_equal(labels, expected)
    assert (labels.dtype, lost, classes) == (np.int32, [], [0, 3])


def test_the_smaller_instance_is_on_top(tmp_path):
    small, large = "1 0.25 0.25 0.5 0.25 0.5 0.5", "2 0 0 0 0.75 0.75 0.75 0.75 0"
    for lines, inner, outer in (((small, large), 1, 2), ((large, small), 2, 1)):
        labels, lost, classes = read(save(tmp_path / "a.txt", *lines, small), (4, 4))
        expected = [[outer] * 4, [outer, inner, inner, outer], [outer, outer, inner, outer], [outer] * 4]
        np.testing.assert_array_equal(labels, expected)
        assert lost == [2]
        assert classes == [inner, outer, 1] if inner == 1 else [outer, inner, 1]


def test_an_empty_file_has_no_instances(tmp_path):
    labels, lost, classes = read(save(tmp_path / "a.txt"), (2, 3))
    np.testing.assert_array_equal(labels, np.zeros((2, 3)))
    assert (lost, classes) == ([], [])


def fill_as_ultralytics(path, shape, scale=1):
    """Masks as ultralytics makes them for training: corners in float32, rounded down, and OpenCV."""
    cv2 = pytest.importorskip("cv2")
    size = np.float32([shape[1] * scale, shape[0] * scale])
    for line in path.read_text().splitlines():
        mask = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
        corners = np.array(line.split()[1:], np.float32).reshape(-1, 2) * size
        yield cv2.fillPoly(mask, corners.astype(np.int32)[None], color=1)


def instances_of(labels):
    return [np.where(labels == i, i, 0) for i in np.unique(labels[labels > 0])]


def test_what_is_written_comes_back(tmp_path, instances):
    parts = outlines(instances.labels)
    with_holes, in_parts = (
        sum(any(part.holes for part in own) for own in parts),
        sum(len(own) > 1 for own in parts),
    )
    assert write_yolo(tmp_path / "a.txt", instances.labels) == (len(instances), with_holes, in_parts)
    labels, lost, classes = read_back(tmp_path / "a.txt", instances.labels)
    assert (lost, classes) == ([], [0] * len(instances))
    whole = np.isin(labels, 1 + np.flatnonzero([len(own) == 1 for own in parts]))
    np.testing.assert_array_equal(labels[whole], instances.labels[whole])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_ultralytics_gets_the_same_pixels_at_each_magnification(tmp_path, instances, scale):
    for labels, own in zip(instances_of(instances.labels), outlines(instances.labels), strict=True):
        write_yolo(tmp_path / "a.txt", (labels > 0).astype(int))
        (mask,) = fill_as_ultralytics(tmp_path / "a.txt", labels.shape, scale)
        expected = np.kron(labels > 0, np.ones((scale, scale), bool))
        assert mask[expected].all()
        if len(own) == 1:
            np.testing.assert_array_equal(mask, expected)


def test_holes_that_touch_and_islands_in_holes(tmp_path):
    """Pairs of holes that meet in a corner, a hole at a thin wall, and a part within a hole."""
    labels = np.array(
        [
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            [1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1],
            [1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1],
            [1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 1],
            [1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1],
            [1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        ]
    )
    assert write_yolo(tmp_path / "a.txt", labels) == (1, 1, 1)
    np.testing.assert_array_equal(read_back(tmp_path / "a.txt", labels)[0], labels)
    (mask,) = fill_as_ultralytics(tmp_path / "a.txt", labels.shape)
    assert np.argwhere(mask != labels).tolist() in ([[2, 5]], [[2, 9]], [[1, 6]], [[1, 7]], [[1, 8]])  # to the island


def test_parts_are_joined_by_the_shortest_path(tmp_path):
    labels = np.zeros((9, 12), int)
    labels[1:3, 1:9], labels[5:8, 6], labels[7, 11] = 1, 1, 1
    assert write_yolo(tmp_path / "a.txt", labels) == (1, 0, 1)
    (mask,) = fill_as_ultralytics(tmp_path / "a.txt", labels.shape)
    expected = labels.copy()
    expected[3:5, 6] = 1
    expected[7, 7:11] = 1
    np.testing.assert_array_equal(mask, expected)


def test_a_part_is_joined_to_the_nearest_one_not_to_the_last(tmp_path):
    labels = np.zeros((10, 10), int)
    labels[0], labels[2:, 0], labels[9] = 1, 1, 1  # the second part surrounds the third, at a distance
    labels[4, 8] = 1
    write_yolo(tmp_path / "a.txt", labels)
    labels[1, 0] = labels[1:4, 8] = 1
    np.testing.assert_array_equal(next(fill_as_ultralytics(tmp_path / "a.txt", labels.shape)), labels)


def test_parts_that_touch_in_a_corner_come_back(tmp_path):
    labels = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0]])
    assert write_yolo(tmp_path / "a.txt", labels) == (1, 0, 1)
    np.testing.assert_array_equal(read_back(tmp_path / "a.txt", labels)[0], labels)
    np.testing.assert_array_equal(next(fill_as_ultralytics(tmp_path / "a.txt", (3, 3))), labels)


@pytest.mark.slow
def test_many_instances(tmp_path, many):
    assert write_yolo(tmp_path / "a.txt", many.labels) == (75_625, 0, 0)
    labels, lost, _ = read_back(tmp_path / "a.txt", many.labels)
    np.testing.assert_array_equal(labels, many.labels)
    assert lost == []


def test_an_instance_in_very_many_parts(tmp_path):
    labels = (np.random.default_rng(0).random((60, 60)) < 0.5).astype(int)
    write_yolo(tmp_path / "a.txt", labels)
    np.testing.assert_array_equal(read_back(tmp_path / "a.txt", labels)[0], labels)


def test_large_images_come_back(tmp_path):
    labels = np.zeros((2, 70_001), np.int32)
    labels[0, 69_999:], labels[1, 33_333] = 1, 2
    write_yolo(tmp_path / "a.txt", labels)
    np.testing.assert_array_equal(read_back(tmp_path / "a.txt", labels)[0], labels)


def test_file_by_hand(tmp_path):
    labels = np.array([[1, 0, 2, 2], [0, 0, 0, 0], [3, 3, 0, 0], [3, 0, 0, 0]])
    assert write_yolo(tmp_path / "a.txt", labels, [5, 0, 1]) == (3, 0, 0)
    assert (tmp_path / "a.txt").read_text().splitlines() == [
        "5 0.025000 0.025000 0.225000 0.025000 0.225000 0.225000 0.025000 0.225000",
        "0 0.525000 0.025000 0.975000 0.025000 0.975000 0.225000 0.525000 0.225000",
        "1 0.025000 0.525000 0.475000 0.525000 0.475000 0.725000 0.275000 0.725000 0.225000 0.775000 "
        "0.225000 0.975000 0.025000 0.975000",  # the corner into the instance is cut off
    ]
    again, lost, classes = read_back(tmp_path / "a.txt", labels)
    np.testing.assert_array_equal(again, labels)
    assert (lost, classes) == ([], [5, 0, 1])


def test_an_id_without_pixels_has_no_line(tmp_path):
    assert write_yolo(tmp_path / "a.txt", np.array([[3, 0], [1, 1]]), [7, 8, 9]) == (2, 0, 0)
    labels, _, classes = read(tmp_path / "a.txt", (2, 2), corners="edges")
    np.testing.assert_array_equal(labels, [[2, 0], [1, 1]])
    assert classes == [7, 9]


@pytest.mark.parametrize("classes", [[0], [0, 1, 2], [0, -1]])
def test_there_must_be_a_class_for_each_id(tmp_path, classes):
    with pytest.raises(ArrayError, match=r"classes.* 2 numbers.* 0 up"):
        write_yolo(tmp_path / "a.txt", np.array([[1, 2]]), classes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.25 0.25", "line 3.*box"),
        ("0 0.5 0.5", "line 3.* 3 numbers.* 3 points"),
        ("0 0 0 1 0 1 1 0", "line 3.* 8 numbers.* 3 points"),
        ("0", "line 3.* 1 numbers.* 3 points"),
        ("0 0 0 1 0 1 1.02", "line 3.*coordinates.* 0 to 1.02, .* 0 to 1;"),
        ("0 -0.02 0 1 0 1 1", "line 3.*coordinates.* -0.02 to 1, .* 0 to 1;"),
        ("0 10 20 30 40 50 60", "line 3.*coordinates.* 10 to 60, .* 0 to 1;.*width"),
        ("0 nan 0 1 0 1 1", "line 3.*coordinates.* nan"),
        ("0.5 0 0 1 0 1 1", "line 3.*class 0.5, .*whole number"),
        ("-1 0 0 1 0 1 1", "line 3.*class -1, .*whole number"),
        ("inf 0 0 1 0 1 1", "line 3.*class inf, .*whole number"),
        ("cell 0 0 1 0 1 1", "line 3.*'cell'.*class x1 y1"),
    ],
)
def test_what_is_no_outline_is_refused(tmp_path, line, message):
    good = "0 -0.005 0 1.005 0 1 1"  # a little outside, by rounding
    assert read_yolo(save(tmp_path / "x.txt", good, "", good), (5, 5))[0].labels.any()
    with pytest.raises(LabelReadError, match=rf"x\.txt.*{message}"):
        read_yolo(save(tmp_path / "x.txt", good, "", line), (5, 5))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelReadError, match=r"x\.txt.*cannot be decoded"):
        read_yolo(tmp_path / "x.txt", (5, 5))
    with pytest.raises(LabelReadError, match=r"y\.txt.*No such file"):
        read_yolo(tmp_path / "y.txt", (5, 5))


def test_corners_may_be_on_the_edges_of_pixels(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n")  # pixels 1..4 of rows 1..2, of 10 x 5
    expected = np.zeros((5, 10), int)
    expected[1:3, 1:5] = 1
    np.testing.assert_array_equal(read(tmp_path / "a.txt", (5, 10), corners="edges")[0], expected)
    expected[1:4, 1:6] = 1
    np.testing.assert_array_equal(read(tmp_path / "a.txt", (5, 10))[0], expected)
