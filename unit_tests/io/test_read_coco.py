"""COCO data sets by hand and by pycocotools, written and read again, and broken ones."""

import json
import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cellbundle.errors import LabelReadError
from cellbundle.io.formats.coco import read_coco, write_coco

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")

SQUARE = [1, 0, 3, 0, 3, 2, 1, 2]  # x 1 to 3, y 0 to 2
TALL = [[0, 0, 1, 0, 1, 3, 0, 3]]  # one column


def annotation(index, segmentation, **others):
    return {"id": index, "image_id": 5, "category_id": 2, "segmentation": segmentation} | others


def save(path, annotations=(), **others):
    document = {
        "images": [{"id": 5, "file_name": "a.png", "height": 3, "width": 4}],
        "annotations": list(annotations),
        "categories": [{"id": 2, "name": "cell"}, {"id": 3, "name": "nucleus"}],
    }
    path.write_text(json.dumps(document | others), encoding="utf-8")
    return path


def only(images):
    ((image,),) = images.values()
    return image


def test_classes_come_back(tmp_path, scored):
    write_coco(tmp_path / "a.json", scored, "a.png")
    assert only(read_coco(tmp_path / "a.json")).categories == ["tumour", "cell", "immune", "tumour"]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([SQUARE], [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
        (TALL, [[1, 0, 0, 0]] * 3),
        ([SQUARE, [0, 2, 2, 2, 2, 3, 0, 3]], [[0, 1, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]]),  # parts
        ([SQUARE, [2, 1, 4, 1, 4, 3, 2, 3]], [[0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]),  # parts that overlap
        ([[3, 1, 8, 1, 8, 8, 3, 8]], [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]),  # over the edge
        ({"size": [3, 4], "counts": [3, 2, 7]}, [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]),
        ({"size": [3, 4], "counts": "327"}, [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_masks_by_hand(tmp_path, segmentation, expected):
    image = only(read_coco(save(tmp_path / "a.json", [annotation(9, segmentation)])))
    np.testing.assert_array_equal(image.paint().labels, expected)


def test_ids_are_those_of_positions_and_smaller_ones_are_on_top(tmp_path):
    rows = [
        annotation(70, [SQUARE]),
        annotation(30, TALL),
        annotation(50, [[2, 0, 3, 0, 3, 1, 2, 1]]),
        annotation(8, TALL),
    ]
    painted = only(read_coco(save(tmp_path / "a.json", rows))).paint()
    np.testing.assert_array_equal(painted.labels, [[2, 1, 3, 0], [2, 1, 1, 0], [2, 0, 0, 0]])
    assert painted.lost == [3]


def test_crowds_are_told_and_left_out(tmp_path):
    crowd = annotation(1, {"size": [3, 4], "counts": [0, 12]}, iscrowd=1)
    rows = [crowd, annotation(2, [SQUARE], iscrowd=0), annotation(3, TALL, category_id=3)]
    image = only(read_coco(save(tmp_path / "a.json", rows)))
    assert image.is_crowd == [True, False, False]
    alone = image.without_crowds()
    assert (alone.ids, alone.categories, alone.is_crowd) == ([2, 3], ["cell", "nucleus"], [False, False])
    np.testing.assert_array_equal(alone.paint().labels, [[2, 1, 1, 0], [2, 1, 1, 0], [2, 0, 0, 0]])
    np.testing.assert_array_equal(image.paint().labels, [[3, 2, 2, 1], [3, 2, 2, 1], [3, 1, 1, 1]])


def test_annotations_with_one_id_stay_two(tmp_path):
    image = only(read_coco(save(tmp_path / "a.json", [annotation(7, [SQUARE]), annotation(7, TALL)])))
    np.testing.assert_array_equal(image.paint().labels, [[2, 1, 1, 0], [2, 1, 1, 0], [2, 0, 0, 0]])


def test_one_file_under_two_ids_keeps_its_annotations_apart(tmp_path):
    names = {4: "a.png", 9: "b.png", 2: "a.png"}
    listed = [{"id": i, "file_name": name, "height": 3, "width": 4} for i, name in names.items()]
    rows = [annotation(i, [SQUARE], image_id=owner) for i, owner in enumerate([2, 4, 2])]
    images = read_coco(save(tmp_path / "a.json", rows, images=listed))
    assert {name: [image.ids for image in found] for name, found in images.items()} == {
        "a.png": [[1], [0, 2]],
        "b.png": [[]],
    }
    assert not images["b.png"][0].paint().labels.any()


def test_polygons_hold_the_pixels_that_pycocotools_gives_them(tmp_path):
    rng = np.random.default_rng(0)
    polygons = [(rng.random(2) * 60 + rng.random((9, 2)) * 12 - 6).round(2).ravel().tolist() for _ in range(40)]
    listed = [{"id": 5, "file_name": "a.png", "height": 50, "width": 70}]
    for polygon in polygons:
        image = only(read_coco(save(tmp_path / "a.json", [annotation(1, [polygon])], images=listed)))
        expected = coco_mask.decode(coco_mask.frPyObjects([polygon], 50, 70))[..., 0]
        np.testing.assert_array_equal(image.paint().labels, expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 0, 3, 0]], "polygon.* 4 numbers.* 3 points"),
        ([SQUARE, [1, 0, 3, 0, 3, 2, 1]], "polygon.* 7 numbers.* 3 points"),
        ([SQUARE[:6], [[1, 0], [3, 0], [3, 2]]], "polygon.* 6 numbers.* 3 points"),
        (SQUARE, "polygon.* 1 numbers.* 3 points"),
        ([[1, 0, 3, 0, 3, "x"]], "no number.*'x'"),
        ([[1, 0, 3, 0, 3, None]], "polygon.* nan to nan"),
        ([[1, 0, 3, 0, 3, 1e7]], r"polygon.* 0 to 1e\+07.*sides.* 4;"),
        ([[1, 0, 3, 0, 3, -5]], "polygon.* -5 to 3.*sides.* 4;"),
        ([], r"segmentation.*\[\].*polygons or run lengths"),
        (None, "segmentation.*None.*polygons or run lengths"),
        ("327", "segmentation.*'327'.*polygons or run lengths"),
        ({"size": [4, 3], "counts": [3, 2, 7]}, r"size.*\[4, 3\].*\[3, 4\]"),
        ({"size": [3, 4], "counts": [3, 2]}, " 5 pixels.* 12"),
        ({"counts": [3, 2, 7]}, "'size'"),
    ],
)
def test_broken_masks_are_named(tmp_path, segmentation, message):
    good, last = annotation(7, [SQUARE]), annotation(9, [SQUARE])
    image = only(read_coco(save(tmp_path / "x.json", [good, annotation(8, segmentation), last])))
    with pytest.raises(LabelReadError, match=rf"x\.json.*annotation 8.*a\.png.*{message}"):
        image.paint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"id": 8, "image_id": 5, "category_id": 2}]}, r"annotation.*\(id 8\).*no segmentation;"),
        ({"annotations": [{"segmentation": [SQUARE]}]}, "annotation.*no id, image_id, category_id;"),
        ({"annotations": [annotation(8, TALL, image_id=6)]}, "annotation 8.*image_id 6"),
        ({"annotations": [annotation(8, TALL, category_id=1)]}, "annotation 8.*category_id 1"),
        ({"annotations": ["x"]}, "annotation.*no id, image_id, category_id, segmentation;"),
        ({"images": [{"id": 5, "file_name": "a.png", "height": 3}]}, r"image.*\(id 5\).*no width;"),
        ({"images": [{"id": 5, "file_name": "a", "height": 3.5, "width": 4}]}, "image 5.*height 3.5.*width 4"),
        ({"images": [{"id": 5, "file_name": "a", "height": 0, "width": 4}]}, "image 5.*height 0.*width 4"),
        ({"images": [{"id": 5, "file_name": c, "height": 3, "width": 4} for c in "ab"]}, "two images.*id 5"),
        ({"categories": [{"id": 2, "name": c} for c in "aba"]}, "two categories.*id 2"),
        ({"categories": [{"id": 2}]}, r"category.*\(id 2\).*no name;"),
    ],
)
def test_broken_entries_are_named(tmp_path, change, message):
    with pytest.raises(LabelReadError, match=rf"x\.json.*{message}"):
        read_coco(save(tmp_path / "x.json", **change))


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "no images, annotations, categories;"), ("{", "cannot be decoded"), ("", "cannot be decoded")],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LabelReadError, match=rf"x\.json.*{message}"):
        read_coco(tmp_path / "x.json")


def test_three_thousand_cells_need_little_memory(tmp_path):
    """As many as in the densest images of LIVECell, which as masks in an array would take a gigabyte."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circles = 6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres = rng.random((3000, 2)) * (704, 520)
    rows = [annotation(i, [(centre + circles).ravel().tolist()]) for i, centre in enumerate(centres)]
    listed = [{"id": 5, "file_name": "a.png", "height": 520, "width": 704}]
    path = save(tmp_path / "a.json", rows, images=listed)
    tracemalloc.start()
    painted = only(read_coco(path)).paint()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert len(np.unique(painted.labels)) + len(painted.lost) == 3001
