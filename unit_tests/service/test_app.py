"""Uploads and what is answered."""

import pytest
from unit_tests.service.fakes import FORM, InlinePool, error, png, segmenter

from cellbundle.service.workers.tasks import CrashedError, FullError, NotReadyError, TimedOutError

from ..words import Like


def test_an_upload_as_form_and_as_body(make):
    client = make()
    for sent in ({"files": FORM}, {"content": png(), "headers": {"content-type": "image/png"}}):
        answer = client.post("/v1/segment", **sent)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-cell-count"] == "2"
        assert float(answer.headers["x-seconds"]) >= 0
        assert answer.json()["n"] == len(answer.json()["measurements"]) == 2


@pytest.mark.parametrize(
    ("form", "kind", "start"),
    [
        ("geojson", "application/geo+json", b'{"type":"FeatureCollection"'),
        ("tiff", "image/tiff", b"II*\0"),
        ("png", "image/png", b"\x89PNG"),
    ],
)
def test_formats(make, form, kind, start):
    answer = make().post(f"/v1/segment?format={form}", files=FORM)
    assert answer.headers["content-type"] == kind
    assert answer.content.startswith(start)


def test_options_reach_the_worker(make):
    pool = InlinePool(segmenter(names=("fake", "other")))
    client = make(pool, bundles=("fake", "other"))
    assert client.post("/v1/segment?bundle=other&diameter=12.5&timeout=3", files=FORM).json()["bundle"] == "other"
    ((job, timeout_s),) = pool.jobs
    assert (job.bundle, job.diameter, timeout_s) == ("other", 12.5, 3.0)
    assert client.post("/v1/segment", files=FORM).json()["bundle"] == "fake"


def test_nothing_of_an_upload_stays(make):
    pool = InlinePool(segmenter())
    client = make(pool)
    client.post("/v1/segment?format=tiff", files=FORM)
    client.post("/v1/segment", files={"image": ("a.png", b"junk", "image/png")})
    folder = pool.jobs[0][0].image.parent.parent
    assert [path.name for path in folder.iterdir()] == ["lock"]
    client.__exit__(None, None, None)
    assert not folder.exists()
    client.__enter__()


@pytest.mark.parametrize(
    "query", ["format=gif", "diameter=0", "diameter=nan", "diameter=inf", "diameter=x", "timeout=-1", "colour=red"]
)
def test_wrong_parameters(make, query):
    answer = make().post(f"/v1/segment?{query}", files=FORM)
    assert error(answer) == (422, "invalid")
    assert query.partition("=")[0] in answer.json()["error"]["message"]


def test_an_unknown_bundle(make):
    answer = make().post("/v1/segment?bundle=../../etc", files=FORM)
    assert error(answer) == (422, "invalid")
    assert answer.json()["error"]["message"] == Like(r"^query\.bundle.*'fake'")


@pytest.mark.parametrize(
    ("name", "data", "kind", "expected"),
    [
        ("a.png", b"junk", "image/png", (400, "unreadable_image")),
        ("a.png", b"", "image/png", (400, "unreadable_image")),
        ("a.TIF", b"junk", "application/octet-stream", (400, "unreadable_image")),
        ("a.png", png()[:40], "image/png", (400, "unreadable_image")),
        ("a", b"junk", "application/octet-stream", (415, "wrong_type")),
        ("a.png", png(), "text/html", (415, "wrong_type")),
        ("a.gif", png(form="GIF"), "image/gif", (415, "wrong_type")),
        ("a.svg", b"<svg/>", "image/svg+xml", (415, "wrong_type")),
        ("a_seg.npy", b"\x93NUMPY\x01\0junk", "application/octet-stream", (415, "wrong_type")),
    ],
)
def test_what_is_no_image_is_400_and_what_is_another_type_415(make, name, data, kind, expected):
    client = make()
    assert error(client.post("/v1/segment", files={"image": (name, data, kind)})) == expected
    if not name.endswith(".TIF"):  # a body has no name
        assert error(client.post("/v1/segment", content=data, headers={"content-type": kind})) == expected


def test_a_type_is_not_needed_where_the_content_tells(make):
    client = make()
    assert client.post("/v1/segment", content=png()).status_code == 200
    assert client.post("/v1/segment", files={"image": ("a", png(), "application/octet-stream")}).status_code == 200


def test_bodies_that_are_no_forms(make):
    client = make()
    send = lambda body, kind: error(client.post("/v1/segment", content=body, headers={"content-type": kind}))  # noqa: E731
    assert send(b"{}", "application/json") == (415, "wrong_type")
    assert send(b"x", "multipart/form-data") == (400, "bad_request")
    assert send(b"junk", "multipart/form-data; boundary=x") == (400, "bad_request")
    assert send(
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
    ) == (422, "no_image")
    assert error(client.post("/v1/segment", files={"file": FORM["image"]})) == (422, "no_image")
    two = [("image", FORM["image"]), ("image", FORM["image"])]
    assert error(client.post("/v1/segment", files=two)) == (400, "bad_request")


def test_more_pixels_than_the_limit(make):
    client = make(InlinePool(segmenter(max_pixels=599)))
    assert error(client.post("/v1/segment", files=FORM)) == (413, "too_many_pixels")


@pytest.mark.parametrize(
    ("pool", "expected", "retry_after"),
    [
        (InlinePool(refused=FullError(7)), (503, "busy"), "7"),
        (InlinePool(refused=NotReadyError()), (503, "not_ready"), "10"),
        (InlinePool(error=NotReadyError()), (503, "not_ready"), "10"),
        (InlinePool(error=TimedOutError()), (504, "timed_out"), None),
        (InlinePool(error=CrashedError()), (500, "crashed"), None),
    ],
)
def test_what_becomes_of_jobs_that_are_not_done(make, tmp_path, pool, expected, retry_after):
    client = make(pool)
    pool.accepting = True
    for answer in (
        client.post("/v1/segment", files=FORM),
        client.post("/seg_mask", json={"image_path": f"{tmp_path}/root/a.png"}),
    ):
        assert error(answer) == expected
        assert answer.headers.get("retry-after") == retry_after


def test_a_request_that_waits_too_long_is_refused_and_taken_out_of_the_queue(make):
    pool = InlinePool()  # never does anything
    answer = make(pool, wait_s=0.05).post("/v1/segment", files=FORM)
    assert error(answer) == (503, "busy")
    assert answer.headers["retry-after"] == "3"


def test_not_ready(make):
    client = make(InlinePool(refused=NotReadyError()))
    assert client.get("/healthz").json() == {"status": "alive"}
    for answer in (client.get("/readyz"), client.get("/v1/bundles"), client.post("/v1/segment", files=FORM)):
        assert error(answer) == (503, "not_ready")
        assert answer.headers["retry-after"] == "10"


def test_what_is_served(make):
    client = make()
    assert client.get("/readyz").json() == {"status": "ready"}
    (one,) = client.get("/v1/bundles").json()
    assert one["name"] == "fake"
    assert one["options"] == {"diameter": 20.0, "finds_diameter": True}
    assert set(one) == {"name", "version", "description", "options", "device", "weights"}
    assert one["weights"] == {"file": "models/model.pt", "sha256": None}
