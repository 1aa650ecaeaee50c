"""Many images: order, failures, resuming, tables."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import label

from cellbundle.batch import pipeline
from cellbundle.batch.jobs import find_jobs
from cellbundle.batch.pipeline import FullDiskError, segment_all
from cellbundle.batch.results import Reading, check_settings, restore, write_settings, write_tables
from cellbundle.errors import ArrayError, ConfigError
from cellbundle.io import read_labels

READ = Reading(None, 2**30)
KINDS = ("labels", "overlay", "measurements", "page")


def bright(image):
    """Components of bright pixels, as a network that is always right about these images."""
    labels = label(image[0] > 100).astype(np.int32)
    return labels, np.full(labels.max(), 0.5, np.float32)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for count, name in enumerate(["a.tif", "b.tif", "sub/c.tif"]):
        pixels = np.zeros((20, 30), np.uint8)
        for i in range(count):
            pixels[2 + 6 * i : 5 + 6 * i, 3:9] = 200 + i
        tifffile.imwrite(folder / name, pixels)
    return folder


def run(images, output, kinds=KINDS, segment=bright):
    jobs, _, _ = find_jobs([images], output)
    return list(segment_all(jobs, output, kinds, READ, segment))


def test_results_come_in_order_with_their_files(images, tmp_path):
    results = run(images, tmp_path / "out")
    assert [r.job.name for r in results] == ["a.tif", "b.tif", "sub/c.tif"]
    assert [len(r.table) for r in results] == [0, 1, 2]
    assert all(r.error is None and r.seconds > 0 for r in results)
    for result in results:
        assert set(result.files) == {"labels", "overlay", "picture", "outlines"}
        assert all((tmp_path / "out" / path).is_file() for path in result.files.values())
    assert read_labels(tmp_path / "out/sub/c_labels.tif").max() == 2
    assert results[2].table["area"].tolist() == [18, 18]
    assert results[2].table["score"].tolist() == [0.5, 0.5]


def test_labels_alone_are_not_measured(images, tmp_path, monkeypatch):
    monkeypatch.setattr("cellbundle.batch.results.measured", None)
    results = run(images, tmp_path / "out", ("labels",))
    assert [list(r.table.columns) for r in results] == [["label"]] * 3
    assert [len(r.table) for r in results] == [0, 1, 2]


def test_bad_files_do_not_stop_the_others(images, tmp_path):
    (images / "aa.png").write_bytes(b"no image")
    (images / "zz.tif").write_bytes(b"")

    def segment(image):
        if image.max() == 200:
            raise ArrayError("cannot be segmented")
        return bright(image)

    results = run(images, tmp_path / "out", segment=segment)
    errors = {r.job.name: r.error for r in results}
    assert "not a PNG, JPEG, BMP or TIFF" in errors["aa.png"]
    assert "is empty (0 bytes)" in errors["zz.tif"]
    assert errors["b.tif"] == f"{images / 'b.tif'}: cannot be segmented"
    assert errors["a.tif"] is errors["sub/c.tif"] is None
    assert all("\n" not in error for error in errors.values() if error)
    write_tables(tmp_path / "out", results, KINDS)
    failures = pd.read_csv(tmp_path / "out/failures.csv")
    assert failures["image"].tolist() == ["aa.png", "b.tif", "zz.tif"]


@pytest.mark.parametrize("error", [MemoryError(), __import__("torch").OutOfMemoryError("CUDA")])
def test_too_little_memory_says_what_to_do(images, tmp_path, error):
    def segment(image):
        raise error

    assert all("use a smaller --tile" in r.error for r in run(images, tmp_path / "out", segment=segment))


def test_a_full_disk_stops_with_one_error_and_leaves_nothing_half_written(images, tmp_path, monkeypatch):
    real = pipeline.write_files

    def full(folder, files, image, instances, job):
        real(folder, files, image, instances, job)
        if job.name != "a.tif":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline, "write_files", full)
    with pytest.raises(FullDiskError, match=r"no space is left for the results of b\.tif"):
        run(images, tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"a_labels.tif", "a_overlay.png", "a.jpg", "a_outlines.png"}


def test_finished_images_are_restored_with_their_measurements(images, tmp_path):
    out = tmp_path / "out"
    results = run(images, out)
    write_tables(out, results, KINDS)
    jobs, _, _ = find_jobs([images], out)
    again = restore(jobs, out, KINDS, READ)
    assert list(again) == jobs
    for before, after in zip(results, again.values(), strict=True):
        assert after.table["score"].tolist() == before.table["score"].tolist()
        pd.testing.assert_frame_equal(after.table, before.table, check_dtype=False)


def test_without_tables_the_measurements_are_taken_again(images, tmp_path):
    out = tmp_path / "out"
    results = run(images, out)
    jobs, _, _ = find_jobs([images], out)
    again = restore(jobs, out, KINDS, READ)
    assert [t.table["area"].tolist() for t in again.values()] == [r.table["area"].tolist() for r in results]


@pytest.mark.parametrize("change", ["image is newer", "file is gone", "label map is damaged"])
def test_what_is_not_finished_is_made_again(images, tmp_path, change):
    out = tmp_path / "out"
    run(images, out)
    if change == "image is newer":
        os.utime(images / "b.tif", ns=(2**62, 2**62))
    elif change == "file is gone":
        (out / "b_overlay.png").unlink()
    else:
        (out / "b_labels.tif").write_bytes(b"II*\0")
    jobs, _, _ = find_jobs([images], out)
    assert [job.name for job in restore(jobs, out, KINDS, READ)] == ["a.tif", "sub/c.tif"]


def test_tables(images, tmp_path):
    out = tmp_path / "out"
    write_tables(out, run(images, out, (*KINDS, "parquet")), (*KINDS, "parquet"))
    rows = pd.read_csv(out / "measurements.csv")
    assert rows["image"].tolist() == ["b.tif", "sub/c.tif", "sub/c.tif"]
    assert rows["label"].tolist() == [1, 1, 2]
    pd.testing.assert_frame_equal(rows, pd.read_parquet(out / "measurements.parquet"), check_dtype=False)
    summary = pd.read_csv(out / "images.csv")
    assert summary["cells"].tolist() == [0, 1, 2]
    assert summary["area_median"].tolist()[1:] == [18, 18]
    assert not (out / "failures.csv").exists()


def test_an_old_list_of_failures_goes_away(images, tmp_path):
    out = tmp_path / "out"
    results = run(images, out)
    (out / "failures.csv").write_text("old")
    write_tables(out, results, KINDS)
    assert not (out / "failures.csv").exists()


def test_results_of_other_settings_are_not_mixed(tmp_path):
    settings = {"bundle": "x", "diameter": None}
    check_settings(tmp_path, settings, overwrite=False)
    write_settings(tmp_path / "new", settings)
    check_settings(tmp_path / "new", settings, overwrite=False)
    with pytest.raises(ConfigError, match=r"diameter None -> 20.*--overwrite"):
        check_settings(tmp_path / "new", settings | {"diameter": 20}, overwrite=False)
    check_settings(tmp_path / "new", settings | {"diameter": 20}, overwrite=True)
