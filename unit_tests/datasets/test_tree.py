"""Published files are listed in one order, and paired by their names."""

import pytest

from cellbundle.datasets.tree import Tree, list_files, pair
from cellbundle.errors import DatasetError

from ..words import Like


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_files_are_sorted_by_name_whatever_the_order_of_folders(tmp_path, shuffled_listing):
    write(tmp_path, "b/2.png", "b/10.png", "a/ö.png", "c.txt", "B/1.png")
    expected = ["B/1.png", "a/ö.png", "b/10.png", "b/2.png", "c.txt"]
    for seed in range(5):
        shuffled_listing(seed)
        assert list(list_files(tmp_path)) == expected


def test_hidden_files_archive_leftovers_and_the_results_are_left_out(tmp_path):
    write(
        tmp_path, "a.png", ".DS_Store", "._a.png", "__MACOSX/a.png", ".hidden/b.png", "out/images/a.png", "x/out/b.png"
    )
    assert list(list_files(tmp_path, exclude=tmp_path / "out")) == ["a.png", "x/out/b.png"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"missing.*cannot be listed"):
        list_files(tmp_path / "missing")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/masks/*.png", ["s/1/masks/a.png", "s/1/masks/b.PNG"]),
        ("masks/a.png", ["s/1/masks/a.png"]),
        ("s/*.png", []),
        ("masks/[b-z].p?g", ["s/1/masks/b.PNG"]),
        ("*.tif", ["s/c.tif"]),
    ],
)
def test_patterns_match_the_end_of_names(pattern, found, tmp_path):
    names = ["s/1/masks/a.png", "s/1/masks/b.PNG", "s/c.tif"]
    assert Tree(tmp_path, {name: tmp_path / name for name in names}).glob(pattern) == found


def test_pairs_and_what_has_no_partner():
    images = ["i/a.png", "i/b.png", "i/c.png", "i/c.tif"]
    labels = ["l/a.tif", "l/c.tif", "l/d.tif"]
    pairs, broken = pair(images, labels, lambda name: name[2], lambda name: name[2])
    assert pairs == {"a": ("i/a.png", "l/a.tif")}
    assert list(broken) == ["b", "c", "d"]
    assert broken["b"] == Like(r"i/b\.png.*no label file")
    assert "i/c.png, i/c.tif, l/c.tif" in broken["c"]
    assert broken["d"] == Like(r"l/d\.tif.*no image")
