"""Which files a batch reads, and under which names it writes."""

import os
from pathlib import Path

import pytest

from cellbundle.errors import ConfigError
from cellbundle.inference.batch.inputs import find_jobs

from ...words import Like


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def bases(inputs, output="/nowhere"):
    jobs, _, _ = find_jobs(inputs, output)
    return {job.name: job.base.as_posix() for job in jobs}


def test_folders_are_searched_with_their_sub_folders_in_order(tmp_path):
    make(tmp_path, "b.png", "plate 1/ä.TIF", "plate 1/deep/a.b.jpeg", "notes.txt", "plate 1/data.csv")
    jobs, ignored, unreadable = find_jobs([tmp_path], tmp_path / "results")
    assert [job.name for job in jobs] == ["b.png", "plate 1/deep/a.b.jpeg", "plate 1/ä.TIF"]
    assert [job.base.as_posix() for job in jobs] == ["b", "plate 1/deep/a.b", "plate 1/ä"]
    assert sorted(path.name for path in ignored) == ["data.csv", "notes.txt"]
    assert unreadable == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "a.tif"], {"a.png": "a_png", "a.tif": "a_tif"}),
        (["A.png", "a.tif", "b.png"], {"A.png": "A_png", "a.tif": "a_tif", "b.png": "b"}),
        (["a.png", "a.tif", "a_png.bmp"], {"a.png": "a_png_2", "a.tif": "a_tif", "a_png.bmp": "a_png"}),
        (["x/a.png", "y/a.png"], {"x/a.png": "x/a", "y/a.png": "y/a"}),
        (["a.b.png", "a.png"], {"a.b.png": "a.b", "a.png": "a"}),
        (["x.ome.tif"], {"x.ome.tif": "x.ome"}),
    ],
)
def test_images_that_would_share_a_name_are_told_apart(tmp_path, names, expected):
    assert bases([make(tmp_path, *names)]) == expected


def test_files_of_one_name_from_two_folders(tmp_path):
    make(tmp_path, "x/a.png", "y/a.png")
    jobs, _, _ = find_jobs([tmp_path / "x/a.png", tmp_path / "y/a.png"], tmp_path / "out")
    assert [job.base.as_posix() for job in jobs] == ["a_png", "a_png_2"]
    assert len({job.name for job in jobs}) == 2


def test_a_file_given_twice_is_one_job(tmp_path):
    make(tmp_path, "a.png")
    assert len(find_jobs([tmp_path / "a.png", tmp_path / "a.png"], tmp_path / "out")[0]) == 1


def test_hidden_files_and_earlier_results_are_left_out(tmp_path):
    make(tmp_path, "a.png", ".hidden.png", ".cache/b.png", "results/a_overlay.png")
    assert list(bases([tmp_path], tmp_path / "results")) == ["a.png"]


def test_an_ome_zarr_folder_is_one_image(tmp_path):
    make(tmp_path, "x.ome.zarr/0/0", "x.ome.zarr/zarr.json", "x.ome.zarr/thumbnail.png")
    assert bases([tmp_path]) == {"x.ome.zarr": "x.ome"}
    assert bases([tmp_path / "x.ome.zarr"]) == {"x.ome.zarr": "x.ome"}


def test_inputs_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="missing does not exist"):
        find_jobs([tmp_path / "missing"], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"input.*output.*--output"):
        find_jobs([tmp_path], tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "locked/b.png")
    import os

    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    jobs, _, unreadable = find_jobs([tmp_path], tmp_path / "out")
    assert [job.name for job in jobs] == ["a.png"]
    assert [reason for _, reason in unreadable] == [Like("locked.*Permission denied")]


def test_folders_of_results_are_left_out_and_links_are_followed_once(tmp_path):
    make(tmp_path / "images", "a.png", "old/.cellbundle/a.npz", "old/a_overlay.png")
    make(tmp_path / "elsewhere", "b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "images")
    assert list(bases([tmp_path / "images"])) == ["a.png", "linked/b.png"]


def test_a_file_in_a_folder_that_is_given_too_is_one_job(tmp_path):
    make(tmp_path, "a.png")
    assert len(find_jobs([tmp_path, tmp_path / "." / "a.png"], tmp_path / "out")[0]) == 1


def test_only_regular_files_and_folders_are_images(tmp_path):
    make(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    jobs, _, unreadable = find_jobs([tmp_path], tmp_path / "results")
    assert [job.name for job in jobs] == ["a.png"]
    reasons = {path.name: reason for path, reason in unreadable}
    assert "is a FIFO" in reasons["pipe.png"]
    assert "does not exist" in reasons["gone.tif"]


def test_label_files_beside_images_are_left_out(tmp_path):
    images = ["a.tif", "b.png", "images/c_mask.png", "sub/seg.jpg.png", "lone_masked.tif"]
    labels = [
        "a_masks.tif",
        "a_cp_masks.png",
        "a_flows.tif",
        "a_labels.tif",
        "b_seg.png",
        "sub/b_mask.png",
        "masks/b.png",
    ]
    for name in [*images, *labels, "a_seg.npy"]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    jobs, ignored, _ = find_jobs([tmp_path / "in"], tmp_path / "out")
    assert sorted(job.name for job in jobs) == sorted(images)
    assert sorted(str(path.relative_to(tmp_path / "in")) for path in ignored) == sorted([*labels, "a_seg.npy"])
    named, _, _ = find_jobs([tmp_path / "in" / "a_masks.tif"], tmp_path / "out")  # a file that is asked for
    assert [job.name for job in named] == ["a_masks.tif"]


def test_a_prepared_data_set_is_read_and_results_are_not(tmp_path):
    for name in ("data/images/a.png", "results/a_overlay.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for folder in ("data", "results"):
        (tmp_path / folder / ".cellbundle").mkdir()
    (tmp_path / "data" / ".cellbundle" / "dataset").write_text("custom\n")
    jobs, _, _ = find_jobs([tmp_path], tmp_path / "out")
    assert [job.name for job in jobs] == ["data/images/a.png"]
