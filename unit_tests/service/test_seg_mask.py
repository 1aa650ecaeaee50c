"""Masks beside files below a root."""

import json
import statistics
import time

import numpy as np
from PIL import Image
from unit_tests.service.fakes import JSON, error

from cellbundle.service.paths import PathMap


def test_a_mask_beside_the_image(make, tmp_path):
    client = make(path_maps=(PathMap.of(f"/host={tmp_path / 'root'}"),))
    for path, answer in (
        (f"{tmp_path}/root/a.png", f"{tmp_path}/root/a_mask.png"),
        ("/host/a.png", "/host/a_mask.png"),
    ):
        assert client.post("/seg_mask", json={"image_path": path}).json() == {"mask_path": answer}
        mask = np.asarray(Image.open(tmp_path / "root" / "a_mask.png"))
        assert (mask.shape, np.unique(mask).tolist(), (mask > 0).sum()) == ((20, 30), [0, 255], 76)
        (tmp_path / "root" / "a_mask.png").unlink()


def test_without_a_root_there_are_no_paths(make):
    client = make(roots=())
    assert error(client.post("/seg_mask", json={"image_path": "/etc/passwd"})) == (404, "not_found")
    assert "/seg_mask" not in client.get("/openapi.json").json()["paths"]


def test_refused_paths_are_equal_in_body_and_nearly_in_time(make, tmp_path):
    client = make()
    root = tmp_path / "root"
    (root / "link.png").symlink_to("/etc/passwd")
    (root / "loop.png").symlink_to(root / "loop.png")
    paths = [
        f"{root}/none.png",
        f"{root}/../root/a.png",
        "/etc/passwd",
        "/none",
        f"{root}/link.png",
        f"{root}/loop.png",
    ]
    paths += [f"{root}/a.png\0", f"{root}/A.png", f"{root}/%61.png", f"{root}/" + "x" * 999, "../" * 999, "", "\ud800"]
    seconds, answers = {}, set()
    for path in paths:
        took = []
        for _ in range(5):
            started = time.perf_counter()
            answer = client.post("/seg_mask", content=json.dumps({"image_path": path}).encode(), headers=JSON)
            took.append(time.perf_counter() - started)
            headers = {k: v for k, v in answer.headers.items() if k != "date"}
            answers.add((answer.status_code, answer.content, tuple(sorted(headers.items()))))
        seconds[path] = statistics.median(took)
    assert len(answers) == 1
    assert error(answer) == (404, "not_found")
    assert max(seconds.values()) - min(seconds.values()) < 0.03
    assert not list(root.glob("*_mask.png"))


def test_requests_for_masks_that_are_none(make):
    client = make()
    for body in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"image_path": 1}',
        b'{"image_path": null}',
        b'{"image_path": "a", "x": 1}',
    ):
        answer = client.post("/seg_mask", content=body, headers=JSON)
        assert error(answer) == (422, "invalid")
    # What another site's page can send without asking first is no JSON.
    assert (
        client.post("/seg_mask", content=b'{"image_path": "a"}', headers={"content-type": "text/plain"}).status_code
        == 422
    )


def test_a_file_below_a_root_that_is_no_image(make, tmp_path):
    (tmp_path / "root" / "junk.png").write_text("junk")
    answer = make().post("/seg_mask", json={"image_path": f"{tmp_path}/root/junk.png"})
    assert error(answer) == (400, "unreadable_image")
    assert str(tmp_path) not in answer.text
