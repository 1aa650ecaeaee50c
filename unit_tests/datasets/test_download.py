import hashlib
import re
import shutil
import socket
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cellbundle.datasets import download
from cellbundle.datasets.download import fetch
from cellbundle.errors import DatasetError

CONTENT = bytes(range(256)) * 2000  # 512000 bytes, several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as the attributes of its server say, and keeps the headers of all requests in ``server.requests``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers)
        server.answers.wait(5)
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = self.start()
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        for key, value in {"ETag": server.etag, "Last-Modified": server.date}.items():
            if value:
                self.send_header(key, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.tells_length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        # Without a number of bytes to stop after, all of it.
        self.wfile.write(server.content[start : start + server.drops.pop(0) if server.drops else None])
        return None

    def start(self):
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in (None, self.server.etag or self.server.date)
        return int(found[1]) if found and self.server.ranges and (unchanged or self.server.careless) else 0

    def log_message(self, *_args):
        pass


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


def ranges(server):
    return [headers.get("Range") for headers in server.requests]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_early(server, target, size=200_000):
    """Leave a part of that size."""
    server.drops = [size]
    with pytest.raises(DatasetError, match=f"the connection ended after {size} of {len(server.content)} bytes"):
        fetch(server.url, target, attempts=1)
    assert target.with_name("data.zip.incomplete").stat().st_size == size


def test_download(server, tmp_path):
    calls = []
    target = tmp_path / "new" / "data.zip"
    assert fetch(server.url, target, sha256=SHA256.upper(), progress=lambda *call: calls.append(call)) == target
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["data.zip"]
    assert calls[0] == (65536, 512000)
    assert calls[-1] == (512000, 512000)


def test_unknown_length(server, tmp_path):
    server.tells_length = False
    calls = []
    fetch(server.url, tmp_path / "data.zip", progress=lambda *call: calls.append(call))
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert calls[-1] == (512000, None)


def test_empty_file(server, tmp_path):
    server.statuses = [200]
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == b""


def test_dropped_connection_goes_on(server, tmp_path):
    server.drops = [100_000, 150_000]
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=250000-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_killed_download_goes_on(server, tmp_path):
    def kill(done, _total):
        if done >= 131072:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "data.zip", progress=kill)
    assert names(tmp_path) == ["data.zip.incomplete", "data.zip.incomplete.json"]
    calls = []
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256, progress=lambda *call: calls.append(call))
    assert ranges(server) == [None, "bytes=131072-"]
    assert calls[0] == (131072 + 65536, 512000)
    assert names(tmp_path) == ["data.zip"]


def test_complete_part_is_not_fetched_again(server, tmp_path):
    def kill(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "data.zip", progress=kill)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert len(server.requests) == 1


def test_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges = False
    server.drops = [100_000]
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None, "bytes=100000-"]


@pytest.mark.parametrize("validators", [('"two"', None), (None, "Tue, 02 Jan 2024 00:00:00 GMT")])
@pytest.mark.parametrize("careless", [False, True])
def test_changed_file_is_not_glued_to_an_old_part(server, tmp_path, validators, careless):
    server.date = "Mon, 01 Jan 2024 00:00:00 GMT"
    stop_early(server, tmp_path / "data.zip")
    server.etag, server.date = validators
    server.content = CONTENT[::-1]
    server.careless = careless  # a server that does not know If-Range
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == CONTENT[::-1]


def test_date_where_the_tag_is_weak(server, tmp_path):
    server.etag, server.date = 'W/"one"', "Mon, 01 Jan 2024 00:00:00 GMT"
    stop_early(server, tmp_path / "data.zip")
    server.careless = True
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert server.requests[1]["If-Range"] == server.date
    assert ranges(server)[1] == "bytes=200000-"


def test_size_tells_a_changed_file_without_tag_and_date(server, tmp_path):
    server.etag = None
    stop_early(server, tmp_path / "data.zip")
    server.content = CONTENT[:-1]
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == CONTENT[:-1]
    assert ranges(server) == [None, "bytes=200000-", None]


def test_part_of_another_address_is_not_used(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    fetch(server.url + "?version=2", tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None, None]


@pytest.mark.parametrize("notes", [None, b"{", b"[]", b'{"url": "x"}'])
def test_part_without_sound_notes_is_not_used(server, tmp_path, notes):
    (tmp_path / "data.zip.incomplete").write_bytes(b"something else")
    if notes is not None:
        (tmp_path / "data.zip.incomplete.json").write_bytes(notes)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None]


def test_part_with_too_many_bytes_is_dropped(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    (tmp_path / "data.zip.incomplete").write_bytes(bytes(len(CONTENT) + 1))
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)


def test_file_that_became_shorter_than_the_part(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    server.content = CONTENT[:1000]
    server.careless = True
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == CONTENT[:1000]
    assert ranges(server) == [None, "bytes=200000-", None]


@pytest.mark.parametrize("statuses", [[503], [500, 429]])
def test_passing_errors_are_tried_again(server, tmp_path, statuses):
    server.statuses = list(statuses)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert len(server.requests) == len(statuses) + 1


def test_gives_up_after_all_attempts_and_keeps_the_part(server, tmp_path):
    server.drops = [1000, 2000, 3000]
    with pytest.raises(DatasetError, match=r"after 6000 of 512000 bytes.*goes on where this one stopped"):
        fetch(server.url, tmp_path / "data.zip")
    assert (tmp_path / "data.zip.incomplete").read_bytes() == CONTENT[:6000]
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server)[3] == "bytes=6000-"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "needs a log-in .the server answers 401"),
        (403, "needs a log-in or a permission .the server answers 403"),
        (404, "is not there any more .the server answers 404 Not Found"),
        (405, "cannot be fetched .the server answers 405"),
    ],
)
def test_refused(server, tmp_path, status, message):
    server.statuses = [status]
    with pytest.raises(DatasetError, match=message) as caught:
        fetch(server.url, tmp_path / "data.zip")
    assert f"download it with a browser and save it as {tmp_path / 'data.zip'}" in str(caught.value)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_web_page_instead_of_the_file(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    server.content, server.etag = b"<!DOCTYPE html><title>Sign in</title>", '"page"'
    with pytest.raises(DatasetError, match=r"the server sent a web page instead of data\.zip"):
        fetch(server.url, tmp_path / "data.zip")
    assert (tmp_path / "data.zip.incomplete").read_bytes() == CONTENT[:200_000]
    assert fetch(server.url, tmp_path / "page.html").read_bytes() == server.content


def test_wrong_hash(server, tmp_path):
    with pytest.raises(DatasetError, match=f"SHA-256 {SHA256}, expected {'0' * 64}; it was removed"):
        fetch(server.url, tmp_path / "data.zip", sha256="0" * 64)
    assert names(tmp_path) == []


def test_existing_file_is_checked_only(server, tmp_path):
    target = tmp_path / "data.zip"
    target.write_bytes(CONTENT)
    assert fetch(server.url, target, sha256=SHA256) == target
    with pytest.raises(DatasetError, match=f"expected {'0' * 64}; delete it"):
        fetch(server.url, target, sha256="0" * 64)
    assert target.read_bytes() == CONTENT
    assert server.requests == []


def test_too_little_space(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(2**20))
    with pytest.raises(DatasetError, match=r"needs 64\.5 MiB, but only 1\.0 MiB are free there"):
        fetch(server.url, tmp_path / "data.zip")
    assert names(tmp_path) == []


def test_part_that_is_there_needs_no_more_space(server, tmp_path, monkeypatch):
    stop_early(server, tmp_path / "data.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(2**26 + 312_000))
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "data.zip.incomplete").mkdir()
    with pytest.raises(DatasetError, match=r"data\.zip\.incomplete: .*; put that right, and the same command goes on"):
        fetch(server.url, tmp_path / "data.zip")


def test_no_network(server, tmp_path, monkeypatch):
    def fail(*_args):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(
        DatasetError, match=r"could not be fetched \(.*Name or service not known\); check the connection"
    ):
        fetch("http://localhost/data.zip", tmp_path / "data.zip")


def test_nobody_listens(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match=r"could not be fetched \(.*Connection refused\)"):
        fetch(server.url, tmp_path / "data.zip")


def test_server_that_falls_silent(server, tmp_path):
    server.answers.clear()
    with pytest.raises(DatasetError, match=r"could not be fetched \(.*timed out\)"):
        fetch(server.url, tmp_path / "data.zip", timeout=0.1, attempts=2)
    assert len(server.requests) == 2


@pytest.mark.parametrize("url", ["ftp://host/data.zip", "file:///etc/passwd", "data.zip"])
def test_other_schemes(tmp_path, url):
    with pytest.raises(DatasetError, match="expected an address that starts with https:// or http://"):
        fetch(url, tmp_path / "data.zip")
