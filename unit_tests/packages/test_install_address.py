"""Bundle packages, installed from addresses."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from unit_tests.packages.installing import names

from cellbundle.packages.archive import PackageError
from cellbundle.packages.install import install_bundle

from ..cli.conftest import call


class OddHandler(BaseHTTPRequestHandler):
    """Sends one part after another, or to another address."""

    def do_GET(self):
        self.server.requests.append(self.headers)
        self.send_response(302 if "moved" in self.path else 200)
        self.send_header("Location", self.server.target)
        self.end_headers()
        if "endless" in self.path:
            self.wfile.write(bytes(2**20))

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(server, archive):
    """Sends the package, whatever the path."""
    server.content = archive.read_bytes()
    server.address = f"127.0.0.1:{server.server_port}"
    return server


@pytest.fixture
def odd_server(server):
    with ThreadingHTTPServer(("127.0.0.1", 0), OddHandler) as odd:
        odd.requests = []
        odd.address = f"127.0.0.1:{odd.server_port}"
        odd.target = f"http://{server.address}/tiny.zip"
        threading.Thread(target=odd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield odd
        odd.shutdown()


def test_install_from_an_address(server, home):
    digest = hashlib.sha256(server.content).hexdigest()
    assert install_bundle(f"http://{server.address}/tiny.zip?download=1", sha256=digest).is_new
    assert names(home) == ["tiny"]
    assert server.requests[0]["Authorization"] is None


def test_a_broken_connection_is_continued(server):
    server.drops = [1000]
    assert install_bundle(f"http://{server.address}/tiny.zip").is_new
    assert [headers["Range"] for headers in server.requests] == [None, "bytes=1000-"]


def test_the_login_reaches_its_server_only(server, odd_server):
    assert install_bundle(f"http://me:s%23cret@{odd_server.address}/moved.zip").is_new
    assert odd_server.requests[0]["Authorization"] == "Basic bWU6cyNjcmV0"  # me:s#cret
    assert server.requests[0]["Authorization"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statuses": [404, 404]}, "404 Not Found.*install from a file"),
        ({"statuses": [401, 401]}, "log-in.*401"),
        ({"statuses": [503] * 6}, "503.*connection.*try again"),
        ({"drops": [9] * 6, "etag": None}, r"27 of \d+ bytes.*try again"),
        ({"content": b"<html>Sign in"}, r"web page.*package\.zip"),
        ({"content": b"text"}, "is damaged.*not a zip"),
    ],
)
def test_answers_that_are_refused(server, home, changes, message, capsys):
    """No message shows a login or a key."""
    vars(server).update(changes)
    address = f"http://me:secret@{server.address}/tiny.zip?key=secret"
    assert call("install", address) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: http://{server.address}/tiny.zip: ")
    assert len(printed.splitlines()) == 1
    with pytest.raises(PackageError, match=message) as caught:
        install_bundle(address)
    for text in (printed, str(caught.value)):
        assert "secret" not in text
        assert ".install-" not in text
    assert names(home) == []


def test_no_server(home, server, monkeypatch):
    server.shutdown()
    server.server_close()
    with pytest.raises(PackageError, match=r"tiny\.zip.*refused.*connection.*try again"):
        install_bundle(f"http://{server.address}/tiny.zip")
    assert names(home) == []


@pytest.mark.parametrize("tells_length", [True, False])
def test_downloads_that_are_too_large(server, odd_server, home, monkeypatch, tells_length):
    monkeypatch.setattr("cellbundle.packages.install.MAX_ARCHIVE", 1000)
    address = server.address if tells_length else f"{odd_server.address}/endless"
    with pytest.raises(PackageError, match=r" or more.* 1\.0 KiB.*install from a file"):
        install_bundle(f"http://{address}/tiny.zip")
    assert names(home) == []
