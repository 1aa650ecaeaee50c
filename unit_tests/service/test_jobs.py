"""What a worker does with a request."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from unit_tests.service.fakes import FakePredictor, png, segmenter

from cellbundle.io import read_labels
from cellbundle.service.workers import answers
from cellbundle.service.workers.answers import Answer, Job, Refusal

from ..words import Like

LABELS = np.zeros((20, 30), np.int32)
LABELS[2:8, 3:9] = 1
LABELS[10:15, 20:28] = 2


@pytest.fixture
def job(tmp_path):
    """Makes jobs for images given as bytes or arrays."""

    def make_job(data=None, form="json", name="image", **options):
        path = tmp_path / name
        if isinstance(data, np.ndarray):
            tifffile.imwrite(path, data)
        else:
            path.write_bytes(png() if data is None else data)
        return Job(path, "fake", form, tmp_path / f"answer_{name}", **options)

    return make_job


def done(work, one):
    (outcome,) = work([one])
    return outcome


def test_measurements(job):
    answer = done(segmenter(), job())
    document = json.loads(answer.body)
    assert {key: document[key] for key in ("n", "size", "bundle")} == {"n": 2, "size": [20, 30], "bundle": "fake"}
    assert [row["area"] for row in document["measurements"]] == [36, 40]
    assert document["measurements"][0]["score"] == 0.5
    assert answer.cells == 2
    assert 0 < document["seconds"] <= answer.seconds


def test_what_cannot_be_measured_is_null(job, monkeypatch):
    table = pd.DataFrame({"label": [1, 2, 3], "score": [np.nan, np.inf, 0.5], "class": ["a", None, "b"]})
    monkeypatch.setattr(answers, "_instances", lambda *_: SimpleNamespace(table=table))
    rows = json.loads(done(segmenter(), job()).body, parse_constant=pytest.fail)["measurements"]
    assert rows == [
        {"label": 1, "score": None, "class": "a"},
        {"label": 2, "score": None, "class": None},
        {"label": 3, "score": 0.5, "class": "b"},
    ]


def test_label_maps_and_outlines(job, tmp_path):
    for form in ("tiff", "png"):
        (tmp_path / "read").write_bytes(done(segmenter(), job(form=form)).body)
        assert np.array_equal(read_labels(tmp_path / "read"), LABELS)
    with Image.open(tmp_path / "read") as picture:
        assert picture.mode == "I;16"
    features = json.loads(done(segmenter(), job(form="geojson")).body)["features"]
    assert [f["properties"]["measurements"]["area"] for f in features] == [36, 40]


def test_a_mask_is_written_and_has_no_body(job):
    one = job(form="mask")
    assert done(segmenter(), one).body == b""
    mask = np.asarray(Image.open(one.output))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.where(LABELS, 255, 0))


def test_too_many_cells_for_a_png(job, monkeypatch):
    monkeypatch.setattr(answers, "MOST_IN_PNG", 1)
    refusal = done(segmenter(), job(form="png"))
    assert (refusal.status, refusal.code) == (422, "too_many_cells")
    assert "tiff" in refusal.message


def test_an_image_without_cells(job):
    for form in ("json", "geojson", "tiff", "png"):
        assert done(segmenter(), job(np.zeros((8, 9), np.uint8), form)).cells == 0


def test_images_of_one_shape_share_a_call_and_bad_ones_do_not_disturb(job):
    work = segmenter(batch=8)
    small, junk = job(name="small"), job(b"\x89PNG\r\n\x1a\njunk", name="junk")
    large = job(np.ones((40, 40), np.uint8), name="large")
    outcomes = work([small, large, junk, small])
    assert [getattr(one, "cells", None) for one in outcomes] == [2, 1, None, 2]
    assert outcomes[2].status == 400
    assert sorted(work.predictors["fake"].calls) == [1, 2]


def test_images_of_a_batch_that_fails_are_segmented_one_by_one(job):
    work = segmenter(batch=8)
    predictor = work.predictors["fake"]
    alone = predictor.segment_batch

    def in_company(images):
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory")
        return alone(images)

    predictor.segment_batch = in_company
    assert [one.cells for one in work([job(), job()])] == [2, 2]


def test_networks_that_take_no_batches_get_none(job):
    work = segmenter(batch=8)
    work.predictors["fake"].takes_batches = False
    assert [one.cells for one in work([job(), job()])] == [2, 2]
    assert work.predictors["fake"].calls == [1, 1]


@pytest.mark.parametrize("data", [b"", b"junk", b"\x89PNG\r\n\x1a\n", b"II*\0junk", b"BM", b"\xff\xd8\xff", png()[:60]])
def test_junk_is_refused_without_a_path(job, tmp_path, data):
    refusal = done(segmenter(), job(data))
    assert (refusal.status, refusal.code) == (400, "unreadable_image")
    assert str(tmp_path) not in refusal.message
    assert "answer" not in refusal.message


def test_an_advice_of_the_reader_is_passed_on(job):
    refusal = done(segmenter(), job(np.zeros((3, 5, 4, 6), np.uint8)))
    assert refusal.status == 400
    assert "(3, 5, 4, 6)" in refusal.message


def test_too_many_pixels_are_refused_before_they_are_decoded(job, monkeypatch):
    monkeypatch.setattr("imagecodecs.png_decode", lambda *_: pytest.fail("decoded"))
    refusal = done(segmenter(max_pixels=599), job())
    assert (refusal.status, refusal.code) == (413, "too_many_pixels")


def test_a_diameter_must_not_magnify_an_image_beyond_the_limit(job):
    work = segmenter(max_pixels=2400)
    assert isinstance(done(work, job(diameter=10.0)), Answer)
    refusal = done(work, job(diameter=9.9))
    assert (refusal.status, refusal.code) == (422, "unsuitable")
    work.predictors["fake"].diameter = None
    assert "no diameter" in done(work, job(diameter=10.0)).message


def test_without_a_diameter_the_scale_of_the_bundle_is_no_reason_to_refuse(job, monkeypatch):
    monkeypatch.setattr(FakePredictor, "at_diameter", lambda self, _: self)
    monkeypatch.setattr(FakePredictor, "scale", 2.0)
    assert isinstance(done(segmenter(max_pixels=2399), job(diameter="none")), Answer)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (ValueError("/secret/path"), "failed"),
    ],
)
def test_a_network_that_fails_is_an_answer_of_500_without_details(job, error, code):
    refusal = done(segmenter(error=error), job())
    assert (refusal.status, refusal.code) == (500, code)
    assert "secret" not in refusal.message + refusal.note


def test_a_broken_gpu_ends_the_process(job):
    with pytest.raises(RuntimeError, match="CUDA error"):
        done(segmenter(error=RuntimeError("CUDA error: device-side assert triggered")), job())


def test_a_folder_that_cannot_be_written(job, tmp_path):
    refusal = done(segmenter(), Job(job().image, "fake", "tiff", tmp_path / "missing" / "labels.tif"))
    assert refusal == Refusal(500, "cannot_write", Like("cannot be written"), refusal.note)
    assert str(tmp_path) not in refusal.note
    assert "FileNotFoundError at" in refusal.note


def test_several_bundles_in_one_worker(job):
    work = segmenter(names=("fake", "other"))
    assert [one["name"] for one in work.about] == ["fake", "other"]
    assert done(work, job()).cells == 2
    assert work.predictors["other"].calls == []
