"""Published and prepared data sets that are small, folders in any order, a full disk, and a server to download from."""

import os
import random
import shutil
import threading
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cellbundle.datasets import download

from .downloading import CONTENT, Handler
from .running import run


@pytest.fixture
def shuffled_listing(monkeypatch):
    """Call it with a seed: from then on folders list their content in another order."""
    listdir, scandir = os.listdir, os.scandir

    def shuffle(seed):
        rng = random.Random(seed)

        class MixedScan:
            """Entries of a folder, as ``os.walk`` and ``pathlib`` read them."""

            def __init__(self, *args):
                with scandir(*args) as entries:
                    found = list(entries)
                self.entries = iter(rng.sample(found, len(found)))

            def __enter__(self):
                return self

            def __exit__(self, *error):
                return None

            def __iter__(self):
                return self

            def __next__(self):
                return next(self.entries)

            def close(self):
                self.entries = iter(())

        monkeypatch.setattr(os, "listdir", lambda *args: rng.sample(found := listdir(*args), len(found)))
        monkeypatch.setattr(os, "scandir", MixedScan)

    return shuffle


@pytest.fixture
def leave_free(monkeypatch):
    """Call it with the number of bytes that are free on every disk from then on."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


@pytest.fixture
def stage1(tmp_path):
    """A function that writes ``stage1_train`` of the 2018 Data Science Bowl, and its default folder with 12 images."""

    def write(folder, masks_of):
        """``masks_of``: lists of (H, W) bool masks by id; the masks' file names do not sort in their order."""
        for number, (name, masks) in enumerate(masks_of.items()):
            for part in ("images", "masks"):
                (folder / "stage1_train" / name / part).mkdir(parents=True)
            rgba = np.full((*masks[0].shape, 4), 255, np.uint8)
            rgba[..., :3] = np.random.default_rng(number).integers(0, 255, (*masks[0].shape, 3))
            Image.fromarray(rgba).save(folder / "stage1_train" / name / "images" / f"{name}.png")
            for position, mask in enumerate(masks):
                path = folder / "stage1_train" / name / "masks" / f"{(7 * position) % 1009:064x}.png"
                Image.fromarray((mask * 255).astype(np.uint8)).save(path)
        return folder

    return write


@pytest.fixture
def twelve(stage1, tmp_path):
    """A published folder of 12 images with 1 to 12 nuclei of 2 x 2 pixels."""
    y, x = np.indices((20, 30))
    squares = [(y // 2 == 2 * (i // 5)) & (x // 2 == 2 * (i % 5)) for i in range(12)]
    return stage1(tmp_path / "raw", {f"{n:02d}aa": squares[: n + 1] for n in range(12)})


@pytest.fixture
def out(twelve, tmp_path):
    """The folder of the prepared twelve images."""
    return run(twelve, tmp_path / "out").folder


@pytest.fixture
def raw(tmp_path):
    """An empty folder for published files."""
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.etag, server.date = CONTENT, '"one"', None
    server.ranges, server.careless, server.tells_length = True, False, True
    server.drops, server.statuses, server.requests = [], [], []
    server.answers = threading.Event()
    server.answers.set()
    server.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.answers.set()
    server.shutdown()
    thread.join()
    server.server_close()
