"""Many images: order, failures, resuming, tables."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from skimage.measure import label

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.inference.batch import formats, pipeline
from cellbundle.inference.batch.inputs import find_jobs
from cellbundle.inference.batch.pipeline import FullDiskError, segment_all
from cellbundle.inference.batch.store import Reading, Store, write_tables
from cellbundle.inference.segment import Segmentation
from cellbundle.io import read_labels

from ...damage import mutations

READ = Reading(None, 2**30)
SETTINGS = {"bundle": "x", "diameter": None}
KINDS = ("labels", "overlay", "measurements", "page")


def bright(image):
    """Components of bright pixels, as a network that is always right about these images."""
    labels = label(image[0] > 100).astype(np.int32)
    return Segmentation(labels, np.full(labels.max(), 0.5, np.float32))


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


def run(images, output, kinds=KINDS, segment=bright, settings=SETTINGS):
    jobs, _, _ = find_jobs([images], output)
    return list(segment_all(jobs, Store(output, settings), kinds, READ, segment))


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
    monkeypatch.setattr("cellbundle.inference.batch.store.measured", None)
    results = run(images, tmp_path / "out", ("labels",))
    assert [list(r.table.columns) for r in results] == [["label"]] * 3
    assert [len(r.table) for r in results] == [0, 1, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 1100), (2050, 2), (3, 1025), (1500, 1300)])
def test_every_size_gets_a_preview(tmp_path, shape):
    (tmp_path / "images").mkdir()
    pixels = np.zeros(shape, np.uint8)
    pixels[: shape[0] // 2 + 1, : shape[1] // 2] = 200
    tifffile.imwrite(tmp_path / "images" / "a.tif", pixels)
    (result,) = run(tmp_path / "images", tmp_path / "out")
    assert result.error is None
    with (
        Image.open(tmp_path / "out" / result.files["picture"]) as picture,
        Image.open(tmp_path / "out" / result.files["outlines"]) as outlines,
    ):
        assert picture.size == outlines.size
        assert max(picture.size) <= 1024


def test_classes_reach_tables_files_and_records(images, tmp_path):
    def segment(image):
        found = bright(image)
        return found._replace(classes=["long", "round"][: len(found.scores)])

    out, kinds = tmp_path / "out", ("geojson", "measurements")
    results = run(images, out, kinds, segment)
    jobs = [result.job for result in results]
    restored, _ = Store(out, SETTINGS).restore(jobs, kinds, False)
    for table in (results[2].table, restored[jobs[2]].table):
        assert table["class"].tolist() == ["long", "round"]
    write_tables(Store(out, SETTINGS), results, kinds)
    assert pd.read_csv(out / "measurements.csv")["class"].tolist() == ["long", "long", "round"]
    assert '"round"' in (out / results[2].files["geojson"]).read_text()


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
    assert "is empty" in errors["zz.tif"]
    assert errors["b.tif"] == f"{images / 'b.tif'}: cannot be segmented"
    assert errors["a.tif"] is errors["sub/c.tif"] is None
    assert all("\n" not in error for error in errors.values() if error)
    write_tables(Store(tmp_path / "out", SETTINGS), results, KINDS)
    failures = pd.read_csv(tmp_path / "out/failures.csv")
    assert failures["image"].tolist() == ["aa.png", "b.tif", "zz.tif"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_too_little_memory_says_what_to_do(images, tmp_path, error):
    def segment(image):
        raise error

    assert all("--tile" in r.error for r in run(images, tmp_path / "out", segment=segment))


def test_a_full_disk_stops_with_one_error_and_leaves_nothing_half_written(images, tmp_path, monkeypatch):
    real = pipeline.write_files

    def full(folder, files, image, instances, job):
        real(folder, files, image, instances, job)
        if job.name != "a.tif":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline, "write_files", full)
    with pytest.raises(FullDiskError, match=r"no space.*b\.tif"):
        run(images, tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"a_labels.tif", "a_overlay.png", "a.jpg", "a_outlines.png", "a.npz", "files.json"}


def restore(images, out, kinds=KINDS, settings=SETTINGS, overwrite=False):
    jobs, _, _ = find_jobs([images], out)
    done, others = Store(out, settings).restore(jobs, kinds, overwrite)
    return {job.name: result for job, result in done.items()}, others


@pytest.mark.parametrize("tables", [True, False])
def test_finished_images_are_restored_with_their_measurements(images, tmp_path, tables):
    out = tmp_path / "out"
    results = run(images, out)
    if tables:
        write_tables(Store(out, SETTINGS), results, KINDS)
    done, others = restore(images, out)
    assert not others
    for before, after in zip(results, done.values(), strict=True):
        assert after.files == before.files
        pd.testing.assert_frame_equal(after.table, before.table)


@pytest.mark.parametrize("change", ["image is newer", "image is older", "file is gone", "record is damaged", "more"])
def test_what_is_not_finished_is_made_again(images, tmp_path, change):
    out, kinds = tmp_path / "out", KINDS
    run(images, out)
    record = out / ".cellbundle" / "b.npz"
    if change == "image is newer":
        os.utime(images / "b.tif", ns=(2**62, 2**62))
    elif change == "image is older":
        os.utime(images / "b.tif", ns=(1, 1))
    elif change == "file is gone":
        (out / "b_overlay.png").unlink()
    elif change == "record is damaged":
        record.write_bytes(record.read_bytes()[:100])
    else:
        kinds = (*KINDS, "geojson")
    expected = [] if change == "more" else ["a.tif", "sub/c.tif"]
    assert list(restore(images, out, kinds)[0]) == expected


def test_labels_without_measurements_are_not_enough_for_a_table(images, tmp_path):
    run(images, tmp_path / "out", ("labels",))
    assert len(restore(images, tmp_path / "out", ("labels",))[0]) == 3
    assert not restore(images, tmp_path / "out", ("labels", "measurements"))[0]


def test_results_of_other_settings_are_not_mixed(images, tmp_path):
    out, settings = tmp_path / "out", SETTINGS | {"diameter": 20}
    run(images, out)
    with pytest.raises(ConfigError, match=r"a\.tif.*diameter None, not 20 \(2 more\).*--overwrite"):
        restore(images, out, settings=settings)
    assert restore(images, out, settings=settings, overwrite=True) == ({}, [])


def test_results_of_other_images_of_one_name_are_not_taken(images, tmp_path):
    out = tmp_path / "out"
    run(images, out)
    copy = tmp_path / "plate 2"
    shutil.copytree(images, copy)
    with pytest.raises(ConfigError, match=r"images/a\.tif, not .*plate 2/a\.tif.*--overwrite"):
        restore(copy, out)
    assert restore(copy, out, overwrite=True) == ({}, [])


def test_results_of_a_subset_join_those_that_are_there(images, tmp_path):
    out = tmp_path / "out"
    run(images, out)
    done, others = restore(images / "b.tif", out)
    assert list(done) == ["b.tif"]
    assert [r.job.name for r in others] == ["a.tif", "sub/c.tif"]
    assert [len(r.table) for r in others] == [0, 2]


EVERYTHING = tuple(kind for kind in formats.KINDS if kind != "parquet")
FOREIGN = ("measurements.csv", "index.html", "a_labels.tif", "b_seg.npy", "sub/c.geojson", "previews/a.jpg")


def test_foreign_files_are_named_and_stay(images, tmp_path):
    """Also those of an image that fails, and of kinds that are not saved."""
    out = tmp_path / "out"
    for name in FOREIGN:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    (images / "b.tif").write_bytes(b"damaged")
    jobs, _, _ = find_jobs([images], out)
    with pytest.raises(ConfigError, match=r"out .*--replace-foreign") as refused:
        Store(out, SETTINGS).check_foreign(jobs, EVERYTHING)
    assert all(name in str(refused.value) for name in FOREIGN)
    Store(out, SETTINGS).check_foreign(jobs, ("coco",))
    write_tables(Store(out, SETTINGS), run(images, out, ("coco",)), ("coco",))
    assert {name: (out / name).read_text() for name in FOREIGN} == dict.fromkeys(FOREIGN, "mine")


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", "[[", '{"a": 1}', "null"])
def test_a_damaged_list_of_files_is_made_anew_from_the_records(images, tmp_path, text):
    out = tmp_path / "out"
    jobs, _, _ = find_jobs([images], out)
    write_tables(Store(out, SETTINGS), run(images, out), KINDS)
    path = out / ".cellbundle" / "files.json"
    path.unlink() if text is None else path.write_text(text)
    Store(out, SETTINGS).check_foreign(jobs, KINDS)
    (images / "b.tif").write_bytes(b"damaged")
    run(images / "b.tif", out)
    assert not list(out.rglob("b_*"))


def test_damaged_records_mean_that_the_image_is_made_anew(images, tmp_path):
    out = tmp_path / "out"
    run(images / "b.tif", out)
    path = out / ".cellbundle" / "b.npz"
    original, finished = path.read_bytes(), restore(images, out)[0]["b.tif"].table
    for content in mutations(original, 1500):
        path.write_bytes(content)
        for result in restore(images, out)[0].values():
            pd.testing.assert_frame_equal(result.table, finished)


FIELDS = ("name", "source", "fingerprint", "settings", "kinds", "measured", "columns", None)
SHAPES = [(name, value) for name in FIELDS for value in (None, 3, "text", [1, [2]], {"a": 1})]
POSSIBLE = [("name", "text"), ("source", "text"), ("settings", {"a": 1})]  # another record, but not a damaged one


@pytest.mark.parametrize(("name", "value"), [shape for shape in SHAPES if shape not in POSSIBLE])
def test_records_of_another_shape_mean_that_the_image_is_made_anew(images, tmp_path, name, value):
    out = tmp_path / "out"
    run(images / "b.tif", out)
    path = out / ".cellbundle" / "b.npz"
    with np.load(path) as file:
        content = dict(file)
    facts = json.loads(str(content["facts"]))
    changed = value if name is None else facts | {name: value}
    np.savez_compressed(path, **content | {"facts": np.array(json.dumps(changed))})
    assert restore(images, out)[0] == {}


def test_files_of_a_stopped_run_are_our_own(images, tmp_path):
    out = tmp_path / "out"
    run(images, out)
    (out / ".cellbundle" / "b.npz").unlink()  # as after a kill between the files and the record
    jobs, _, _ = find_jobs([images], out)
    Store(out, SETTINGS).check_foreign(jobs, KINDS)


def test_a_failure_removes_earlier_results_of_the_image(images, tmp_path):
    out = tmp_path / "out"
    run(images, out)
    (images / "b.tif").write_bytes(b"damaged")
    run(images / "b.tif", out)
    assert not list(out.rglob("b_*"))
    assert not (out / ".cellbundle" / "b.npz").exists()
    assert list(restore(images, out)[0]) == ["a.tif", "sub/c.tif"]


def test_tables(images, tmp_path):
    out = tmp_path / "out"
    write_tables(Store(out, SETTINGS), run(images, out, (*KINDS, "parquet")), (*KINDS, "parquet"))
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
    write_tables(Store(out, SETTINGS), results, KINDS)
    assert not (out / "failures.csv").exists()
