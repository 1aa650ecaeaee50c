"""A COCO file of many images, cut into one file an image."""

import json
import os
import tracemalloc

import pytest

from cellbundle.datasets import coco_parts
from cellbundle.datasets.coco_parts import cut_coco, part_path
from cellbundle.errors import DatasetError
from cellbundle.io.formats.coco import read_coco

CATEGORIES = [{"id": 1, "name": "cell"}]


def image(index, stem):
    return {"id": index, "file_name": f"{stem}.tif", "height": 52, "width": 64, "license": 1}


def annotation(index, image_id, *, crowd=0, n=1):
    polygons = [[4.25, 4, 9, 4, 9, 9.5, 4, 9]] * n
    return {"id": index, "image_id": image_id, "category_id": 1, "segmentation": polygons, "iscrowd": crowd}


def write(path, images, annotations):
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


@pytest.fixture
def published(tmp_path):
    """``a`` under the ids 7 and 9 with one and two cells, ``b`` with a crowd only, and an annotation of no image."""
    annotations = [(1, 9), (2, 7), (3, 9), (5, 3)]
    listed = [annotation(*ids) for ids in annotations] + [annotation(4, 8, crowd=1)]
    return write(tmp_path / "all.json", [image(7, "a"), image(9, "a"), image(8, "b")], listed)


def test_parts_are_coco_files_of_one_image(published, tmp_path):
    parts = cut_coco(published, tmp_path / "parts")
    assert (parts.cells, parts.doubled, parts.orphans) == ({"a": 2, "b": 0}, ["a"], 1)
    ((a,),) = read_coco(part_path(tmp_path / "parts", "a")).values()
    assert (a.file_name, a.height, a.width, a.ids) == ("a.tif", 52, 64, [1, 3])
    assert a.segmentations == [annotation(1, 9)["segmentation"]] * 2
    ((b,),) = read_coco(part_path(tmp_path / "parts", "b")).values()
    assert (b.ids, b.is_crowd) == ([4], [True])


def test_a_crowd_is_no_cell_when_the_larger_set_is_chosen(tmp_path):
    crowds = [annotation(index, 1, crowd=1) for index in (1, 2)]
    path = write(tmp_path / "all.json", [image(1, "a"), image(2, "a")], [*crowds, annotation(3, 2)])
    cut_coco(path, tmp_path / "parts")
    assert read_coco(part_path(tmp_path / "parts", "a"))["a.tif"][0].ids == [3]


def test_of_equal_sets_the_first_id_is_taken_in_any_order_of_the_file(tmp_path):
    annotations = [annotation(1, 5), annotation(2, 4)]
    for images in ([image(5, "a"), image(4, "a")], [image(4, "a"), image(5, "a")]):
        cut_coco(write(tmp_path / "all.json", images, annotations), tmp_path / "parts")
        assert read_coco(part_path(tmp_path / "parts", "a"))["a.tif"][0].ids == [2]


def test_annotations_may_be_a_dictionary_by_id(tmp_path):
    path = write(tmp_path / "all.json", [image(1, "a")], {"17": annotation(17, 1), "18": annotation(18, 1)})
    assert cut_coco(path, tmp_path / "parts").cells == {"a": 2}
    assert read_coco(part_path(tmp_path / "parts", "a"))["a.tif"][0].ids == [17, 18]


def test_parts_are_written_anew_only_if_the_file_changed_or_one_is_missing(published, tmp_path):
    folder = tmp_path / "parts"
    first = cut_coco(published, folder)
    a, b = part_path(folder, "a"), part_path(folder, "b")
    for path in (a, b):
        os.utime(path, ns=(1, 1))
    assert cut_coco(published, folder) == first
    assert (a.stat().st_mtime_ns, b.stat().st_mtime_ns) == (1, 1)
    b.unlink()
    cut_coco(published, folder)
    assert b.exists()
    write(published, [image(7, "a")], [annotation(1, 7, n=2)])
    assert cut_coco(published, folder).cells == {"a": 1}
    assert len(read_coco(a)["a.tif"][0].segmentations[0]) == 2


def test_parts_of_a_stopped_run_are_not_trusted_when_an_older_file_comes_back(published, tmp_path, monkeypatch):
    folder, older, state = tmp_path / "parts", published.read_text(), published.stat()
    expected = cut_coco(published, folder)
    write(published, [image(7, "a"), image(8, "b")], [annotation(6, 7)])
    own, written = coco_parts._write, []

    def stop_at_the_second(*arguments):
        if written:
            raise KeyboardInterrupt
        written.append(own(*arguments))

    monkeypatch.setattr(coco_parts, "_write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        cut_coco(published, folder)
    monkeypatch.undo()
    assert read_coco(part_path(folder, "a"))["a.tif"][0].ids == [6]
    published.write_text(older)
    os.utime(published, ns=(state.st_mtime_ns, state.st_mtime_ns))
    assert cut_coco(published, folder) == expected
    assert read_coco(part_path(folder, "a"))["a.tif"][0].ids == [1, 3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"images": [{"id": 1, "file_name": "a.tif", "height": 52, "wid', "JSONDecodeError"),
        ("<!doctype html>", "JSONDecodeError"),
        ('{"images": []}', "KeyError: 'categories'"),
        ('{"images": [{"id": 1}], "categories": []}', "KeyError: 'file_name'"),
        ("[1, 2]", "TypeError"),
    ],
)
def test_a_file_that_is_no_coco_file_is_named(tmp_path, text, reason):
    path = tmp_path / "livecell_coco_test.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=f"livecell_coco_test.json.*damaged.*{reason}"):
        cut_coco(path, tmp_path / "parts")


def test_annotations_are_not_held_as_objects(tmp_path):
    polygon = [round(value / 7, 2) for value in range(80)]
    listed = [annotation(index, index % 50) | {"segmentation": [polygon]} for index in range(5000)]
    path = write(tmp_path / "all.json", [image(index, f"a{index}") for index in range(50)], listed)
    del listed
    tracemalloc.start()
    cut_coco(path, tmp_path / "parts")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * path.stat().st_size  # json.load alone takes five times the size
