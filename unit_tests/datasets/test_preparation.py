"""A preparation gives the same lists everywhere, and says what is wrong."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai.auto3dseg.utils import datafold_read

from cellbundle.datalists.datalist import read_datalist
from cellbundle.datasets import facts, prepare, verify
from cellbundle.datasets.model import Problem
from cellbundle.errors import ConfigError

from ..words import Like
from .running import contents, run


def test_a_list_that_every_bundle_and_monai_read(twelve, tmp_path):
    prepared = run(twelve, tmp_path / "out", n_folds=3)
    read = read_datalist(tmp_path / "out/dsb2018.json", tmp_path / "out")
    assert [len(read[section]) for section in ("training", "testing")] == [10, 2]
    training, validation = datafold_read(str(tmp_path / "out/dsb2018.json"), str(tmp_path / "out"), fold=1)
    assert len(training) + len(validation) == 10
    assert {Path(entry["image"]).name for entry in validation} == {
        f"{item.name}.png" for item in prepared.items if item.fold == 1
    }
    content = json.loads((tmp_path / "out/dsb2018.json").read_text())
    names = [entry["image"] for entry in content["training"]]
    assert names == sorted(names)
    assert set(content["training"][0]) == {"image", "label", "fold", "group"}
    assert set(content["testing"][0]) == {"image", "label", "group"}


def test_neither_order_nor_processes_change_a_byte(twelve, out, tmp_path, shuffled_listing):
    expected = contents(out)
    for seed in range(2):
        shuffled_listing(seed)
        run(twelve, tmp_path / f"out{seed}", workers=2)
        assert contents(tmp_path / f"out{seed}") == expected


def test_too_few_groups_are_remarked(stage1, tmp_path):
    raw = stage1(tmp_path / "raw", {"a": [np.eye(9, dtype=bool)]})
    remarks = run(raw, tmp_path / "out").remarks
    assert Like("1 folds.* 5") in remarks
    assert Like("no testing images") in remarks


def test_two_images_of_one_name_are_named_with_their_files(twelve, tmp_path):
    shutil.copytree(twelve / "stage1_train/03aa", twelve / "fixed/03aa")
    reason = Like(r"several images.*fixed/03aa/images/03aa\.png, stage1_train/03aa/")
    assert run(twelve, tmp_path / "out").problems == [Problem("03aa", reason)]


def test_a_name_that_is_not_utf8_is_a_problem(twelve, tmp_path):
    folder = os.fsencode(twelve / "stage1_train")
    shutil.copytree(folder + b"/03aa", folder + b"/b\xff")
    prepared = run(twelve, tmp_path / "out")
    assert [problem.name for problem in prepared.problems] == ["b\\udcff"]


def test_a_damaged_image_is_named_by_its_published_file(twelve, tmp_path):
    (twelve / "stage1_train/07aa/images/07aa.png").write_bytes(b"")
    (problem,) = run(twelve, tmp_path / "out").problems
    assert problem.reason.startswith("stage1_train/07aa/images/07aa.png: ")


def test_a_file_in_the_place_of_the_results_is_named(twelve, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file is a file.*folder"):
        run(twelve, tmp_path / "file/out")


def test_copies_of_an_image_come_into_one_place(twelve, tmp_path):
    for n in range(2, 8):
        shutil.copy(
            twelve / "stage1_train/01aa/images/01aa.png", twelve / f"stage1_train/{n:02d}aa/images/{n:02d}aa.png"
        )
    prepared = run(twelve, tmp_path / "out")
    assert len({(item.section, item.fold) for item in prepared.items if "01aa" <= item.name <= "07aa"}) == 1
    assert prepared.leaks == []


def test_names_that_differ_in_case_only_are_errors(twelve, tmp_path):
    shutil.copytree(twelve / "stage1_train/03aa", twelve / "stage1_train/03AA")
    prepared = run(twelve, tmp_path / "out")
    assert [problem.name for problem in prepared.problems] == ["03AA and 03aa"]
    assert len(prepared.items) == 11


def test_names_with_all_letters_work(stage1, tmp_path):
    raw = stage1(tmp_path / "raw", {"Zelle übergroß 細胞": [np.eye(9, dtype=bool)], "b": [np.eye(9, dtype=bool)]})
    run(raw, tmp_path / "out", n_folds=2)
    read_datalist(tmp_path / "out/dsb2018.json", tmp_path / "out")
    assert "Zelle übergroß 細胞" in (tmp_path / "out/dsb2018.json").read_text(encoding="utf-8")
    assert verify(tmp_path / "out") == []


def test_published_defects_are_left_out_and_counts_compared(twelve, tmp_path, monkeypatch):
    known = facts.read_facts("dsb2018")
    changed = facts.Facts(**{**vars(known), "excluded": {"05aa": "its mask shows another image"}})
    monkeypatch.setattr("cellbundle.datasets.preparation.read_facts", lambda name: changed)
    prepared = run(twelve, tmp_path / "out")
    assert "05aa" not in prepared.records
    assert prepared.remarks[:2] == [
        Like("12 images.* 670 "),
        Like("05aa.*left out.*its mask shows another image"),
    ]


def test_results_may_lie_in_the_published_folder(twelve):
    first = contents((run(twelve, twelve / "out")).folder)
    assert contents((run(twelve, twelve / "out")).folder) == first


def test_folders_that_hold_something_else_are_refused(twelve, tmp_path):
    with pytest.raises(ConfigError, match=r"output_dir.*published files"):
        run(twelve, twelve)
    (tmp_path / "mine/images").mkdir(parents=True)
    (tmp_path / "mine/images/a.png").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine.* images/a\.png;.*--replace-foreign"):
        run(twelve, tmp_path / "mine")
    run(twelve, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"data set dsb2018.*yeaz an output_dir"):
        prepare("yeaz", twelve, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "stage2"}, "variant 'stage2'.*auto, stage1, stardist"),
        ({"n_folds": 1}, "n_folds.* 1"),
        ({"workers": 0}, "workers.* 0"),
        ({"options": {"folds": 3}}, "option folds.*none"),
    ],
)
def test_wrong_options_are_named(options, message, twelve, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(twelve, tmp_path / "out", **options)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(twelve, tmp_path):
    (twelve / "stage1_train/01aa/images/01aa.png").chmod(0)
    prepared = run(twelve, tmp_path / "out")
    assert prepared.problems == [Problem("01aa", Like("Permission denied"))]
