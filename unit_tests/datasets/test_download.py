"""Downloads: whole files, refusals, full disks, no network."""

import socket

import pytest

from cellbundle.datasets.download import fetch
from cellbundle.errors import DatasetError

from .downloading import CONTENT, SHA256, names, stop_early


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


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "log-in.*401"),
        (403, "permission.*403"),
        (404, "404 Not Found"),
        (405, "405 Method"),
    ],
)
def test_refused(server, tmp_path, status, message):
    server.statuses = [status]
    with pytest.raises(DatasetError, match=message) as caught:
        fetch(server.url, tmp_path / "data.zip")
    assert all(word in str(caught.value) for word in ("browser", str(tmp_path / "data.zip")))
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_web_page_instead_of_the_file(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    server.content, server.etag = b"<!DOCTYPE html><title>Sign in</title>", '"page"'
    with pytest.raises(DatasetError, match=r"web page.*data\.zip"):
        fetch(server.url, tmp_path / "data.zip")
    assert (tmp_path / "data.zip.incomplete").read_bytes() == CONTENT[:200_000]
    assert fetch(server.url, tmp_path / "page.html").read_bytes() == server.content


def test_wrong_hash(server, tmp_path):
    with pytest.raises(DatasetError, match=f"SHA-256 {SHA256}.* {'0' * 64}.*removed"):
        fetch(server.url, tmp_path / "data.zip", sha256="0" * 64)
    assert names(tmp_path) == []


def test_existing_file_is_checked_only(server, tmp_path):
    target = tmp_path / "data.zip"
    target.write_bytes(CONTENT)
    assert fetch(server.url, target, sha256=SHA256) == target
    with pytest.raises(DatasetError, match=f"data.zip.* {'0' * 64}.*delete"):
        fetch(server.url, target, sha256="0" * 64)
    assert target.read_bytes() == CONTENT
    assert server.requests == []


def test_too_little_space(server, tmp_path, leave_free):
    leave_free(2**20)
    with pytest.raises(DatasetError, match=r"64\.5 MiB.*1\.0 MiB"):
        fetch(server.url, tmp_path / "data.zip")
    assert names(tmp_path) == []


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "data.zip.incomplete").mkdir()
    with pytest.raises(DatasetError, match=r"data\.zip\.incomplete.*same command"):
        fetch(server.url, tmp_path / "data.zip")


def test_no_network(server, tmp_path, monkeypatch):
    def fail(*_args):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DatasetError, match=r"Name or service not known.*connection"):
        fetch("http://localhost/data.zip", tmp_path / "data.zip")


def test_nobody_listens(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match=r"data\.zip.*Connection refused"):
        fetch(server.url, tmp_path / "data.zip")


def test_server_that_falls_silent(server, tmp_path):
    server.answers.clear()
    with pytest.raises(DatasetError, match=r"data\.zip.*timed out"):
        fetch(server.url, tmp_path / "data.zip", timeout=0.1, attempts=2)
    assert len(server.requests) == 2


@pytest.mark.parametrize("url", ["ftp://host/data.zip", "file:///etc/passwd", "data.zip"])
def test_other_schemes(tmp_path, url):
    with pytest.raises(DatasetError, match="https:// or http://"):
        fetch(url, tmp_path / "data.zip")
