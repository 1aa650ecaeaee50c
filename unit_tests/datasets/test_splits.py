"""Folds keep groups together, do not depend on order, and copies are found."""

import random
from pathlib import Path

import pytest

from cellbundle.datasets.model import Item
from cellbundle.datasets.splits import beside_validation, by_group, find_shared, hold_out, join_equal_images
from cellbundle.errors import ConfigError

from ..words import Like

FILE = Path("x")


def item(name, **options):
    return Item(name, FILE, (FILE,), **options)


@pytest.fixture
def many():
    """90 items in 30 groups of two subsets."""
    return [item(f"{n:02d}", group=f"g{n // 3}", subsets=("even" if n // 3 % 2 == 0 else "odd",)) for n in range(90)]


def folds(items):
    return {one.name: (one.section, one.fold) for one in items}


def test_groups_stay_together_and_every_fold_has_all_subsets(many):
    split = by_group(many, 5, seed=0)
    assert len({(one.group, one.fold) for one in split}) == 30
    for subset in ("even", "odd"):
        assert [sum(one.fold == k for one in split if subset in one.subsets) for k in range(5)] == [9] * 5


def test_the_order_of_the_items_does_not_matter_but_the_seed_does(many):
    expected = folds(by_group(many, 5, seed=0))
    for seed in range(3):
        mixed = random.Random(seed).sample(many, len(many))
        assert folds(by_group(mixed, 5, seed=0)) == expected
        assert [one.name for one in by_group(mixed, 5, seed=0)] == [one.name for one in mixed]
    assert folds(by_group(many, 5, seed=1)) != expected


def test_subsets_with_few_groups_do_not_pile_up_in_one_fold():
    items = [item(f"{subset}{n}", group=subset, subsets=(subset,)) for subset in "abc" for n in range(4)]
    assert sorted({(one.group, one.fold) for one in by_group(items, 5, seed=0)}) == [("a", 0), ("b", 1), ("c", 2)]


def test_a_group_of_two_subsets_is_not_split(many):
    wide = [item(f"w{n}", group=f"wide{n // 2}", subsets=(("even", "odd")[n % 2],)) for n in range(20)]
    assert len({(one.group, one.fold) for one in by_group([*many, *wide], 5, seed=0)}) == 40


def test_what_is_published_is_kept():
    items = [item("a", section="testing"), item("b", section="training", fold=0), item("c"), item("d"), item("e")]
    split = folds(by_group(items, 4, seed=0, first_fold=1))
    assert split["a"] == ("testing", None)
    assert split["b"] == ("training", 0)
    assert sorted(split[name] for name in "cde") == [("training", 1), ("training", 2), ("training", 3)]


def test_fewer_groups_than_folds_make_fewer_folds():
    assert sorted(one.fold for one in by_group([item("a"), item("b")], 5, seed=0)) == [0, 1]


def test_the_published_validation_part_is_fold_0_where_there_is_one():
    items = [item("a", section="training", fold=0), item("b"), item("c"), item("d")]
    assert sorted(one.fold for one in beside_validation(items, 4, seed=0)) == [0, 1, 2, 3]
    assert sorted(one.fold for one in beside_validation(items[1:], 3, seed=0)) == [0, 1, 2]


@pytest.mark.parametrize(("share", "expected"), [(0.2, 18), (0.1, 6), (0.5, 42), (0, 0)])
def test_whole_groups_are_held_out(many, share, expected):
    split = hold_out(many, share, seed=0)
    assert sum(one.section == "testing" for one in split) == expected
    assert not {one.group for one in split if one.section == "testing"} & {
        one.group for one in split if one.section == "training"
    }


def test_holding_out_keeps_published_sections_and_one_group_trains():
    split = hold_out([item("a", section="testing"), item("b", group="g"), item("c", group="g")], 0.5, seed=0)
    assert [one.section for one in split] == ["testing", "training", "training"]


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_a_share_that_leaves_too_little_is_refused(share):
    with pytest.raises(ConfigError, match=f"test_share.* {share}.* 0 .* 0.5"):
        hold_out([], share, 0)


def test_groups_with_an_equal_image_become_one_along_chains():
    items = [item("a", group="g3"), item("b", group="g1"), item("c", group="g1"), item("d", group="g2"), item("e")]
    joined = join_equal_images(items, {"a": "x", "b": "x", "c": "y", "d": "y", "e": ""})
    assert [one.group for one in joined] == ["g1", "g1", "g1", "g1", "e"]


def test_blank_images_do_not_join():
    assert [one.group for one in join_equal_images([item("a"), item("b")], {"a": "", "b": ""})] == ["a", "b"]


def test_leaks_are_found_by_group_and_by_content():
    items = [
        item("a", group="g", section="training", fold=0),
        item("b", group="g", section="training", fold=1),
        item("c", section="testing"),
        item("d", section="training", fold=1),
    ]
    assert find_shared(items, {"c": "same", "d": "same"}) == [
        Like("group 'g'.*fold 0 and fold 1"),
        Like("image.* c and d .*fold 1 and testing"),
    ]
    assert find_shared(items[2:], {}) == []
