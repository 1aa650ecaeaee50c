"""A server of one file that answers as a test wants, and what a stopped download leaves."""

import hashlib
import re
from http.server import BaseHTTPRequestHandler

import pytest

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


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_early(server, target, size=200_000):
    """Leave a part of that size."""
    server.drops = [size]
    with pytest.raises(DatasetError, match=f"{size} of {len(server.content)} bytes"):
        fetch(server.url, target, attempts=1)
    assert target.with_name("data.zip.incomplete").stat().st_size == size
