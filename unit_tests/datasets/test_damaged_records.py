"""Damage of any record of a preparation means that the work is made anew; nothing raises."""

import json
import os

import pytest

from cellbundle.datasets import verify
from cellbundle.datasets.coco_parts import INDEX, cut_coco
from cellbundle.datasets.convert import read_journal
from cellbundle.errors import DatasetError

from ..damage import SHAPES, damaged, other_values
from .running import contents, run

STATE = ("dataset", "files.json", "journal.jsonl", "manifest.sha256")


def test_damaged_lines_of_the_journal_are_left_out(out):
    path = out / ".cellbundle/journal.jsonl"
    original, records = path.read_bytes(), read_journal(path)
    assert len(records) == 12
    kept = []
    for content in damaged(original, 600):
        path.write_bytes(content)
        found = read_journal(path)
        assert all(records[name] == record for name, record in found.items())
        kept.append(len(found))
    assert sum(kept) > 600  # one damaged line takes no other with it


def test_values_of_other_types_in_a_journal_without_checksums(out):
    path = out / ".cellbundle/journal.jsonl"
    record = json.loads(path.read_bytes().split(b"\n")[1])
    del record["sha256"]
    path.write_text(json.dumps(record))
    assert list(read_journal(path)) == [record["name"]]
    files = [{"image": json.loads(text)} for text in other_values(record["image"])]
    for content in [*other_values(record), *(json.dumps(record | file).encode() for file in files)]:
        path.write_bytes(content)
        for found in read_journal(path).values():
            assert found.digest is None or isinstance(found.digest, str)
            assert found.image.path.startswith("images/")


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("shape", [0, 2, 7, 11, 13], ids=["empty", "null", "list", "nested", "not UTF-8"])
def test_a_preparation_with_a_damaged_record_gives_the_same_files(twelve, out, name, shape):
    before = contents(out)
    (out / ".cellbundle" / name).write_bytes(SHAPES[shape])
    run(twelve, out)
    assert contents(out) == before
    assert verify(out) == []


@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_manifest_is_named(out, sealed):
    path = out / "manifest.csv"
    original = path.read_bytes()
    if not sealed:
        (out / ".cellbundle/manifest.sha256").unlink()
    for content in damaged(original, 150):
        path.write_bytes(content)
        try:
            found = verify(out)
        except DatasetError as error:
            assert "manifest.csv" in str(error)  # noqa: PT017 - either is right
        else:
            assert found or content == original or not sealed


def test_a_damaged_hash_of_the_manifest_is_named(out):
    path = out / ".cellbundle/manifest.sha256"
    for content in damaged(path.read_bytes(), 60):
        path.write_bytes(content)
        assert [damage.path for damage in verify(out)] in ([], ["manifest.csv"])


def test_a_fifo_in_a_prepared_folder_is_named_and_not_opened(out):
    (out / "labels/01aa.tif").unlink()
    os.mkfifo(out / "labels/01aa.tif")
    (damage,) = verify(out)
    assert (damage.path, "is a FIFO" in damage.reason) == ("labels/01aa.tif", True)


def test_a_damaged_index_of_coco_parts_means_that_they_are_cut_again(tmp_path):
    image = {"id": 1, "file_name": "a.png", "height": 2, "width": 3}
    cells = [{"id": n, "image_id": 1, "category_id": 1, "iscrowd": 0} for n in range(3)]
    source = tmp_path / "all.json"
    source.write_text(json.dumps({"images": [image], "annotations": cells, "categories": []}))
    expected = cut_coco(source, tmp_path / "parts")
    index = tmp_path / "parts" / INDEX
    original = index.read_bytes()
    for content in [*damaged(original, 200), *other_values(json.loads(original))]:
        index.write_bytes(content)
        assert cut_coco(source, tmp_path / "parts") == expected
