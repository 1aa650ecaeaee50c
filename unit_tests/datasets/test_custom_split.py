"""Own images: parts of a split, groups and options."""

import pytest

from cellbundle.datasets.splits import hold_out
from cellbundle.errors import ConfigError, DatasetError

from .own_images import CUSTOM, save_image, save_labels


@pytest.fixture
def grouped(raw):
    """Twelve images of four patients."""
    for number in range(12):
        name = f"p{number % 4}/{number // 4}_p{number % 4}_x"
        save_image(raw / f"{name}.png", number)
        save_labels(raw / f"{name}_masks.tif")
    return raw


@pytest.fixture
def parts(raw):
    """Folders of four images for training, two for validation and one for testing."""
    for part, names in {"Train": "abcd", "valid": "ef", "testing": "g"}.items():
        for name in names:
            save_image(raw / part / f"{name}.png", ord(name))
            save_labels(raw / part / f"{name}_mask.png")
    return raw


def test_folders_of_a_split_are_kept(parts, tmp_path):
    _, lists = CUSTOM.prepare(parts, tmp_path / "out", n_folds=3)
    content = lists["custom"]
    folds = {entry["group"]: entry["fold"] for entry in content["training"]}
    assert {name for name, fold in folds.items() if fold == 0} == {"e", "f"}
    assert sorted(folds[name] for name in "abcd") == [1, 1, 2, 2]
    assert [entry["image"] for entry in content["testing"]] == ["images/g.png"]


def test_folders_of_a_split_are_ignored_on_request(parts):
    assert {(item.section, item.fold) for item in CUSTOM.locate(parts, split="random").items} == {(None, None)}


def test_images_outside_of_the_folders_of_a_split_are_an_error(parts):
    save_image(parts / "h.png")
    save_labels(parts / "h_mask.png")
    with pytest.raises(DatasetError, match=r"h\.png.*split: random"):
        CUSTOM.locate(parts)
    assert len(CUSTOM.locate(parts, split="random").items) == 8


def test_one_folder_of_a_split_is_none(raw):
    save_image(raw / "train/a.png")
    save_labels(raw / "train/a_mask.png")
    assert CUSTOM.locate(raw).items[0].section is None
    assert CUSTOM.locate(raw, split="folders").items[0].section == "training"


@pytest.mark.parametrize("rule", [r"_(p\d)_", "folder"])
def test_groups_are_never_split(grouped, rule):
    found = CUSTOM.locate(grouped, group=rule)
    assert {item.group for item in found.items} == {"p0", "p1", "p2", "p3"}
    items = CUSTOM.split(hold_out(found.items, 0.25, 0), 3, 0)
    places = {(item.group, item.section, item.fold) for item in items}
    assert len(places) == 4  # one for each group
    assert sorted((section, fold) for _, section, fold in places if fold is not None) == [
        ("training", 0),
        ("training", 1),
        ("training", 2),
    ]
    assert sum(section == "testing" for _, section, _ in places) == 1


def test_a_fifth_is_held_out_by_default(grouped, tmp_path):
    options = {"group": "folder"}
    for share, n in ((None, 3), (0, 0)):
        prepared, _ = CUSTOM.prepare(grouped, tmp_path / "out", test_share=share, options=options)
        assert sum(item.section == "testing" for item in prepared.items) == n


def test_group_of_folders_leaves_out_those_for_images_and_parts(raw):
    for name in ("train/p1/images/a.png", "test/p1/images/b.png", "train/images/c.png"):
        save_image(raw / name)
        save_labels(raw / name.replace("images", "labels"))
    assert [item.group for item in CUSTOM.locate(raw, group="folder").items] == ["p1", "train", "p1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "masks"}, "option encoding.*'masks'.*auto, label_map"),
        ({"rle_order": "F"}, "option rle_order.*'F'.*columns, rows"),
        ({"split": "yes"}, "option split.*'yes'.*auto, folders, random"),
        ({"min_size": 0}, "option min_size.* 0"),
        ({"group": "(p"}, r"option group.*'\(p'.*regular expression"),
        ({"group": 3}, "option group.* 3.*regular expression"),
        ({"group": "p."}, "option group.*'p.'.*0 groups"),
        ({"group": "(p0)"}, r"option group.*'\(p0\)'.* 9 .*0_p1_x, 1_p1_x, 2_p1_x;"),
        ({"colours": {"300,0,0": "a"}}, "option colours.*'300,0,0'.*255,0,0"),
        ({"colours": {"red": "a"}}, "option colours.*'red'.*255,0,0"),
        ({"colours": {"#ff0000": 1}}, "option colours.*class.*'#ff0000'.* 1.*name"),
        ({"colours": {"#ff0000": "a", "255,0,0": "b"}}, "option colours.*'255,0,0'.*twice"),
        ({"colours": "red"}, "option colours.*table.*'red'.*such as"),
    ],
)
def test_options_without_a_possible_value_are_errors(grouped, options, message):
    with pytest.raises(ConfigError, match=message):
        CUSTOM.locate(grouped, **options)
