"""Datalists: reading, selecting, concatenating, splitting, leaks."""

import json
import random

import pytest
from monai.auto3dseg.utils import datafold_read

from cellbundle.datalists.datalist import (
    check_leakage,
    find_leaks,
    load_datalists,
    read_class_names,
    read_datalist,
    select,
    split_by_group,
)
from cellbundle.errors import DatalistError

from ..words import Like

CONTENT = {
    "training": [
        {"image": "images/a.png", "label": "labels/a.tif", "fold": 0, "group": "slide 1"},
        {"image": "images/b.png", "label": "labels/b.tif", "fold": 1, "group": "slide 2"},
        {"image": "images/c.png", "label": "labels/c.tif"},
    ],
    "testing": [{"image": "images/d.png", "label": "labels/d.tif", "group": "slide 3"}],
}


def write_list(folder, content, name="list.json"):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def data(tmp_path):
    """A datalist whose files exist."""
    for entry in CONTENT["training"] + CONTENT["testing"]:
        for key in ("image", "label"):
            (tmp_path / entry[key]).parent.mkdir(exist_ok=True)
            (tmp_path / entry[key]).touch()
    return write_list(tmp_path, CONTENT)


def test_read(data):
    datalist = read_datalist(data, data.parent)
    assert datalist["training"][0] == {
        "image": str(data.parent / "images/a.png"),
        "label": str(data.parent / "labels/a.tif"),
        "fold": 0,
        "group": "slide 1",
    }
    assert len(datalist["testing"]) == 1


def test_absolute_path_inside_basedir(tmp_path):
    name = str(tmp_path / "a.png")
    path = write_list(tmp_path, {"testing": [{"image": name, "label": "x/../a.tif"}]})
    entry = read_datalist(path, tmp_path, check_files=False)["testing"][0]
    assert entry == {"image": name, "label": str(tmp_path / "a.tif")}


def test_relative_basedir(data, monkeypatch):
    monkeypatch.chdir(data.parent)
    assert read_datalist("list.json", ".") == read_datalist(data, data.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "'training' or 'testing'.* list"),
        ({"train": [], "test": []}, "'training' or 'testing'.* test, train"),
        ({"training": {}}, "'training'.* dict;.* list"),
        ({"training": [], "validation": []}, "'validation'.*'training'.*'fold'"),
        ({"training": ["a.png"]}, r"training\[0\].* str;.*'image' and 'label'"),
        ({"testing": [{"label": "a.tif"}]}, r"testing\[0\].*'image'.*missing"),
        ({"testing": [{"image": "a.png"}]}, r"testing\[0\].*'label'.*missing"),
        ({"testing": [{"image": "", "label": "a.tif"}]}, r"testing\[0\].*'image'.* '';"),
        ({"testing": [{"image": ["a.png"], "label": "a.tif"}]}, r"testing\[0\].*'image'.*\['a\.png'\]"),
        ({"training": [{"image": "a", "label": "b", "fold": "0"}]}, r"training\[0\].*'fold'.*'0'.*whole number"),
        ({"training": [{"image": "a", "label": "b", "fold": True}]}, r"training\[0\].*'fold'.*True.*whole number"),
        ({"training": [{"image": "a", "label": "b", "fold": None}]}, r"training\[0\].*'fold'.*None.*whole number"),
        ({"testing": [{"image": "../a.png", "label": "b"}]}, r"'image'.*'\.\./a\.png'.*not below.*basedir"),
        ({"testing": [{"image": "/etc/passwd", "label": "b"}]}, "'image'.*'/etc/passwd'.*not below.*basedir"),
        ({"testing": [{"image": ".", "label": "b"}]}, r"'image'.*'\.'.*not below.*basedir"),
    ],
)
def test_schema_errors(tmp_path, content, message):
    path = write_list(tmp_path, content)
    with pytest.raises(DatalistError, match=message) as caught:
        read_datalist(path, tmp_path, check_files=False)
    assert str(path) in str(caught.value)


def test_sibling_of_basedir_is_outside(tmp_path):
    path = write_list(tmp_path, {"testing": [{"image": "../data_2/a.png", "label": "b"}]})
    with pytest.raises(DatalistError, match=r"'\.\./data_2/a\.png'.*not below.*basedir"):
        read_datalist(path, tmp_path / "data", check_files=False)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_not_json(tmp_path, content):
    (tmp_path / "list.json").write_bytes(content)
    with pytest.raises(DatalistError, match=r"list\.json.*JSON"):
        read_datalist(tmp_path / "list.json", tmp_path)


def test_no_such_list(tmp_path):
    with pytest.raises(DatalistError, match=r"none\.json.*No such file"):
        read_datalist(tmp_path / "none.json", tmp_path)


def test_missing_files_are_counted(tmp_path):
    path = write_list(tmp_path, {"testing": [{"image": f"{i}.png", "label": f"{i}.tif"} for i in range(4)]})
    with pytest.raises(DatalistError, match=r"8 files.*missing.*basedir") as caught:
        read_datalist(path, tmp_path)
    assert "2.png" in str(caught.value)
    assert "2.tif" not in str(caught.value)


def test_labels_are_optional_for_inference(tmp_path):
    path = write_list(tmp_path, {"testing": [{"image": "a.png"}, {"image": "b.png", "label": ""}]})
    datalist = read_datalist(path, tmp_path, check_files=False, require_labels=False)
    assert [list(entry) for entry in datalist["testing"]] == [["image"], ["image"]]


@pytest.mark.parametrize("fold", [0, 1, 2, -1])
def test_select_agrees_with_monai(data, fold):
    assert_agrees_with_monai(data, data.parent, fold)


@pytest.mark.parametrize("fold", range(4))
def test_real_list_agrees_with_monai(fold, real_data):
    folder = real_data("dsb2018")
    assert_agrees_with_monai(folder / "dsb2018_datalist.json", folder, fold)


def assert_agrees_with_monai(path, basedir, fold):
    datalist = read_datalist(path, basedir)
    training, validation = datafold_read(str(path), str(basedir), fold=fold)
    testing, _ = datafold_read(str(path), str(basedir), fold=-1, key="testing")
    for split, expected in (("training", training), ("validation", validation), ("testing", testing)):
        got = [(entry["image"], entry["label"]) for entry in select(datalist, split, fold)]
        assert got == [(entry["image"], entry["label"]) for entry in expected]


def test_select_unknown_split():
    with pytest.raises(DatalistError, match=r"split.*'test'.*training, validation, testing"):
        select(CONTENT, "test")


def test_load_several(data):
    other = write_list(data.parent, {"training": CONTENT["training"][:1]}, "other.json")
    specs = [{"datalist": str(path), "basedir": str(data.parent)} for path in (data, other)]
    specs[1]["weight"] = 0.25
    entries = load_datalists(specs, "training", fold=1)
    assert [(e["datalist_id"], e["datalist_name"], e["datalist_weight"]) for e in entries] == [
        (0, "list", 0.5),
        (0, "list", 0.5),
        (1, "other", 0.25),
    ]


def test_load_looks_only_for_files_of_the_split(data):
    (data.parent / "images/a.png").unlink()
    specs = [{"datalist": str(data), "basedir": str(data.parent)}]
    assert len(load_datalists(specs, "testing")) == 1
    with pytest.raises(DatalistError, match=r"1 files.*missing.*images/a\.png"):
        load_datalists(specs, "validation")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("datalist",), r"\['datalist'\].*'datalist', 'basedir'"),
        (("datalist", "basedir", "fold"), r"\['basedir', 'datalist', 'fold'\].*'datalist', 'basedir'"),
    ],
)
def test_load_bad_spec(keys, message):
    with pytest.raises(DatalistError, match=message):
        load_datalists([dict.fromkeys(keys, "x")])


def test_load_empty_split(data):
    with pytest.raises(DatalistError, match=r"validation.*fold 7 .*list\.json"):
        load_datalists([{"datalist": str(data), "basedir": str(data.parent)}], "validation", fold=7)


def test_load_warns_of_leaks(data, caplog):
    content = {"training": CONTENT["training"], "testing": CONTENT["training"][:1]}
    write_list(data.parent, content)
    load_datalists([{"datalist": str(data), "basedir": str(data.parent)}], "testing")
    assert "fold 0 and testing" in caplog.text


def test_groups_stay_together_and_folds_are_balanced():
    groups = [f"g{i % 23}" for i in range(200)] + ["large"] * 60
    folds = split_by_group(groups, 4)
    assert len(set(zip(groups, folds, strict=True))) == len(set(groups))
    sizes = [folds.count(fold) for fold in range(4)]
    assert max(sizes) - min(sizes) <= 9  # the size of a small group


def test_split_does_not_depend_on_order():
    groups = [f"g{i // 3}" for i in range(60)]
    expected = dict(zip(groups, split_by_group(groups, 5, seed=1), strict=True))
    random.Random(0).shuffle(groups)
    assert dict(zip(groups, split_by_group(groups, 5, seed=1), strict=True)) == expected


def test_split_is_the_same_everywhere():
    groups = list("abcdefgh")
    assert split_by_group(groups, 2, seed=0) == [0, 0, 1, 1, 1, 1, 0, 0]
    assert split_by_group(groups, 2, seed=1) == [0, 1, 1, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("n_folds", [0, 3])
def test_split_needs_enough_groups(n_folds):
    with pytest.raises(DatalistError, match=f"{n_folds} folds.* 2 groups"):
        split_by_group(["a", "b", "b"], n_folds)


def entry(name, **extra):
    return {"image": f"{name}.png", "label": f"{name}.tif", **extra}


@pytest.mark.parametrize(
    ("datalist", "expected"),
    [
        (CONTENT, []),
        ({"training": [entry("a", fold=0, group="g"), entry("b", fold=0, group="g")]}, []),
        (
            {"training": [entry("a", fold=0, group="g"), entry("b", fold=1, group="g")]},
            ["group 'g' .*fold 0 and fold 1"],
        ),
        (
            {"training": [entry("a", fold=0, group="g"), entry("b", group="g")]},
            ["group 'g' .*fold 0 and fold none"],
        ),
        (
            {"training": [entry("a", fold=2, group=7)], "testing": [entry("b", group=7)]},
            ["group '7' .*fold 2 and testing"],
        ),
        (
            {"training": [{"image": "x/../a.png", "fold": 0}], "testing": [{"image": "a.png"}]},
            [r"image 'a\.png' .*fold 0 and testing"],
        ),
    ],
)
def test_leaks(datalist, expected):
    assert find_leaks(datalist) == [Like(message) for message in expected]
    if expected:
        with pytest.raises(DatalistError, match=expected[0]):
            check_leakage(datalist)
    else:
        check_leakage(datalist)


def test_real_list_does_not_leak(real_data):
    path = real_data("dsb2018", "dsb2018_datalist.json")
    check_leakage(read_datalist(path, path.parent, check_files=False))


@pytest.mark.parametrize(("given", "expected"), [(None, []), ([], []), (["round", "long"], ["round", "long"])])
def test_class_names(tmp_path, given, expected):
    content = {"training": []} | ({} if given is None else {"class_names": given})
    (tmp_path / "list.json").write_text(json.dumps(content))
    assert read_class_names(tmp_path / "list.json") == expected


@pytest.mark.parametrize("given", ["round", ["round", "round"], [1, 2], {"1": "round"}])
def test_bad_class_names(tmp_path, given):
    (tmp_path / "list.json").write_text(json.dumps({"training": [], "class_names": given}))
    with pytest.raises(DatalistError, match=r"list\.json.*'class_names'.*different names"):
        read_class_names(tmp_path / "list.json")
