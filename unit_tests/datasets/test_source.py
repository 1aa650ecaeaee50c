"""Published files are found in archives and folders, and what is wrong with them is explained."""

import shutil
import zipfile

import numpy as np
import pytest

from cellbundle.datasets import prepare, source
from cellbundle.errors import DatasetError
from cellbundle.io import read_labels

from .contract import save
from .own_images import save_text
from .running import pack, run

WEB_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def test_another_archive_of_the_same_name_is_extracted_anew(stage1, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    for n, position in enumerate((3, 6)):
        raw = stage1(
            tmp_path / f"raw{n}", {"a": [np.eye(9, dtype=bool)], "b": [np.arange(81).reshape(9, 9) < position]}
        )
        pack(raw, packed / "stage1_train.zip")
        run(packed, tmp_path / "out", n_folds=2)
        assert read_labels(tmp_path / "out/labels/b.tif").sum() == position
    assert len(list((tmp_path / "out/.cellbundle/extracted").iterdir())) == 1


def test_archives_of_one_stem_are_both_used(tmp_path):
    for kind, folder in (("zip", "gold-standard-BF-V-1"), ("tar", "gold-standard-PhC-plus-2")):
        stem = tmp_path / kind / folder / folder[14:16]
        save(stem.with_name(f"{stem.name}_crop_1_im.tif"), np.arange(81, dtype=np.uint8).reshape(9, 9))
        save(stem.with_name(f"{stem.name}_crop_1_mask.tif"), np.eye(9, dtype=np.uint8) * 3)
        shutil.make_archive(str(tmp_path / "raw/data"), kind, tmp_path / kind)
    found = prepare("yeaz", tmp_path / "raw", tmp_path / "out", workers=1)
    assert [item.name for item in found.items] == ["BF_crop_1", "Ph_crop_1"]


def test_a_tree_that_is_half_extracted_is_completed_from_its_archive(twelve, tmp_path):
    pack(twelve, twelve / "stage1_train.zip")
    for n in range(7, 12):
        shutil.rmtree(twelve / f"stage1_train/{n:02d}aa")
    prepared = run(twelve, tmp_path / "out")
    assert prepared.problems == []
    assert len(prepared.items) == 12


def test_a_wrong_data_set_does_not_claim_the_folder(twelve, tmp_path):
    with pytest.raises(DatasetError, match=r"does not hold YeaZ.* dsb2018"):
        prepare("yeaz", twelve, tmp_path / "out")
    assert len(run(twelve, tmp_path / "out").items) == 12


def test_another_data_set_is_recognised(tmp_path):
    for path in ("train/original/a.png", "train/mask/a.png", "test/original/b.png", "test/mask/b.png"):
        save_text(tmp_path / "raw" / path, "x")
    with pytest.raises(DatasetError, match=r"does not hold 2018 Data Science Bowl.* bccd"):
        run(tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WEB_PAGE, "web page"),
        (b"", "is empty"),
        (b"PK\x03\x04 cut off", "is damaged"),
        (b"text", "not a zip"),
    ],
)
def test_what_is_no_archive_is_explained_and_the_right_one_continues(content, message, twelve, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "stage1_train.zip").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        run(packed, tmp_path / "out")
    pack(twelve, packed / "stage1_train.zip")
    assert len(run(packed, tmp_path / "out").items) == 12


def test_numbers_that_start_again_do_not_make_an_archive_seem_extracted(tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000_img.png").write_text(folder)
        with zipfile.ZipFile(tmp_path / f"{folder}.zip", "w") as archive:
            archive.writestr("000_img.png", folder)
    shutil.rmtree(tmp_path / "test")
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert source._is_extracted(tmp_path / "train.zip", files)
    assert not source._is_extracted(tmp_path / "test.zip", files)


def test_nothing_there_says_where_to_get_it(tmp_path):
    with pytest.raises(DatasetError, match=r"missing.*stage1_train\.zip.*https://bbbc"):
        run(tmp_path / "missing", tmp_path / "out")


def test_missing_files_are_fetched_only_where_no_login_is_needed(twelve, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "fetch", lambda url, target, **options: pack(twelve, target))
    assert len(run(tmp_path / "raw", tmp_path / "out", fetch=True).items) == 12
    with pytest.raises(DatasetError, match=r"sartorius-cell-instance-segmentation\.zip.*Kaggle account"):
        prepare("sartorius", tmp_path / "none", tmp_path / "out2", fetch=True)
