"""Masks beside images: which are replaced, and that no link leads the service elsewhere."""

import io
import os
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from unit_tests.service.fakes import InlinePool, error, names, png, segmenter

from cellbundle.service import handles
from cellbundle.service.masks import KEYWORD, ForeignMaskError, check_mask, encode_mask, is_own, write_mask
from cellbundle.service.paths import OutsideError

CELLS = np.indices((60, 80)).sum(0) % 7 < 3


def own(data):
    return is_own(io.BytesIO(data))


def resaved(data, change=lambda array: array):
    """The file as a program saves it that keeps texts it does not know."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        text = PngInfo()
        for name, value in image.text.items():
            text.add_text(name, value)
        Image.fromarray(change(np.array(image))).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def corrected(array):
    array[0, 0] ^= 255
    return array


def test_a_mask_is_known_until_a_pixel_of_it_changes():
    data = encode_mask(CELLS)
    with Image.open(io.BytesIO(data)) as image:
        assert (np.asarray(image) == 255 * CELLS).all()
    assert own(data)
    assert own(resaved(data))
    assert not own(resaved(data, corrected))
    assert not own(resaved(data, np.flipud))
    assert not own(png(np.uint8(255) * CELLS))


def test_files_that_are_no_masks_of_ours():
    data = encode_mask(CELLS)
    for other in (b"", b"text", data[:8], data[:-1], data[:40], data.replace(KEYWORD.encode(), b"another keyword")):
        assert not own(other)
    assert not own(data[:8] + b"\xff\xff\xff\xffIDAT" + data[16:])  # a chunk of 4 GiB


def test_damaged_masks_are_not_ours_and_raise_nothing():
    data, random = encode_mask(CELLS), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        own(bytes(damaged))


def test_only_own_masks_are_replaced(tmp_path):
    path = tmp_path / "a_mask.png"
    write_mask(path, CELLS, replace_foreign=False)
    write_mask(path, ~CELLS, replace_foreign=False)
    assert (np.asarray(Image.open(path)) == 255 * ~CELLS).all()
    by_hand = resaved(path.read_bytes(), corrected)
    path.write_bytes(by_hand)
    for refused in (lambda: check_mask(path), lambda: write_mask(path, CELLS, replace_foreign=False)):
        with pytest.raises(ForeignMaskError, match="--replace-foreign"):
            refused()
    assert path.read_bytes() == by_hand
    write_mask(path, CELLS, replace_foreign=True)
    assert own(path.read_bytes())
    assert names(tmp_path) == ["a_mask.png"]


def test_a_mask_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_mask(tmp_path / "a_mask.png", CELLS, replace_foreign=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("b.png")])
def test_what_is_no_file_is_not_ours(tmp_path, make):
    make(tmp_path / "a_mask.png")
    with pytest.raises(ForeignMaskError):
        check_mask(tmp_path / "a_mask.png")


@pytest.fixture
def swapped(tmp_path):
    """A folder below a root, and a function that puts a link to a folder outside in its place."""
    inside, outside = tmp_path / "root" / "sub", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(png())
    (outside / "a.png").write_bytes(png(np.full((9, 9), 200, np.uint8)))  # a secret

    def swap(link=outside):
        inside.rename(tmp_path / "moved")
        inside.symlink_to(link)

    return inside, outside, swap


@pytest.mark.parametrize("descriptors", [True, False])
def test_files_that_are_pinned_stay_the_same(swapped, monkeypatch, descriptors):
    if not descriptors:  # as on macOS
        monkeypatch.setattr(handles, "DESCRIPTORS", handles.DESCRIPTORS / "none")
    inside, _, swap = swapped
    with handles.pinned(inside / "a.png") as path:
        swap()
        assert path.read_bytes() == png()
    for refused in (lambda: handles.pinned(inside / "a.png"), lambda: handles.open_folder(inside)):
        with pytest.raises(OutsideError), refused():
            pass


def test_no_part_of_a_path_may_be_a_link_and_no_descriptor_is_left(swapped):
    inside, outside, swap = swapped
    swap()
    (outside / "link.png").symlink_to("a.png")
    os.mkfifo(outside / "fifo.png")
    before = len(names(handles.DESCRIPTORS))
    for path in (inside / "a.png", outside / "link.png", outside / "fifo.png", outside / "none.png", outside):
        with pytest.raises(OutsideError), handles.pinned(path):
            pass
    with pytest.raises(OutsideError):
        write_mask(inside / "a_mask.png", CELLS, replace_foreign=True)
    assert len(names(handles.DESCRIPTORS)) == before
    assert sorted(names(outside)) == ["a.png", "fifo.png", "link.png"]


class LatePool(InlinePool):
    """A pool in which jobs wait until ``go`` is called."""

    def __init__(self, handler):
        super().__init__(handler)
        self.arrived, self.waiting_jobs = threading.Event(), []

    def submit(self, job, timeout_s=None):
        future = Future()
        self.waiting_jobs.append((job, future))
        self.arrived.set()
        return future

    def go(self):
        for job, future in self.waiting_jobs:
            future.set_result(self.handler([job])[0])


@pytest.mark.parametrize("relative", [True, False])
def test_a_folder_that_becomes_a_link_while_the_job_waits_is_not_followed(make, swapped, relative):
    inside, outside, swap = swapped
    pool = LatePool(segmenter())
    client = make(pool)
    answers = []
    ask = threading.Thread(
        target=lambda: answers.append(client.post("/seg_mask", json={"image_path": str(inside / "a.png")}))
    )
    ask.start()
    assert pool.arrived.wait(30)
    swap("../../outside" if relative else outside)
    pool.go()
    ask.join(30)
    assert error(answers[0]) == (404, "not_found")
    assert names(outside) == ["a.png"]
    assert names(outside.parent / "moved") == ["a.png"]


def test_a_foreign_mask_is_a_conflict_before_and_after_the_work(make, tmp_path):
    request = {"json": {"image_path": str(tmp_path / "root" / "a.png")}}
    pool = InlinePool(segmenter())
    client = make(pool)
    assert client.post("/seg_mask", **request).status_code == 200
    assert client.post("/seg_mask", **request).status_code == 200  # its own
    mask = tmp_path / "root" / "a_mask.png"
    mask.write_bytes(b"by hand")
    answer = client.post("/seg_mask", **request)
    assert error(answer) == (409, "foreign_mask")
    assert str(tmp_path) not in answer.text
    assert len(pool.jobs) == 2  # no work was begun
    mask.unlink()

    def handler(jobs):
        mask.write_bytes(b"by hand")  # in the meantime
        return segmenter()(jobs)

    assert error(make(InlinePool(handler)).post("/seg_mask", **request)) == (409, "foreign_mask")
    assert mask.read_bytes() == b"by hand"
    assert make(replace_foreign=True).post("/seg_mask", **request).status_code == 200
    assert own(mask.read_bytes())
