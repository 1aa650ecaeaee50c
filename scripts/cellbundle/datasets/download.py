"""Fetches a file over http, on from where an earlier try was stopped."""

import base64
import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..addresses import redact
from ..errors import DatasetError
from .archive_members import is_web_page, size_text
from .archives import check_free_space

SCHEMES = {"http", "https"}
CHUNK = 2**16  # bytes: what a broken connection loses of those that arrived
PAUSE = 2.0  # seconds before the second attempt, twice as much before the third, and so on
PAGE_SUFFIXES = {".html", ".htm", ".xml", ".svg"}  # files that may well start like a web page

PARTIAL = 206  # status of an answer: only the range that was asked for
NO_SUCH_RANGE = 416
PASSING = {408, NO_SUCH_RANGE, 429, 500, 502, 503, 504}  # another attempt may succeed
MEANINGS = {
    401: "needs a log-in",
    403: "needs a log-in or a permission",
    404: "is not there any more",
    410: "is not there any more",
}
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Progress = Callable[[int, int | None], None]


class _BrokenOffError(Exception):
    """A request failed in a way that another one may not."""


class _RefusedError(Exception):
    """A request failed, and another one would too."""


@dataclass(frozen=True)
class _Source:
    """Where a file is, and how it is fetched: ``login`` is the header ``Authorization``, ``limit`` is in bytes."""

    url: str
    login: str | None
    timeout: float
    limit: int | None

    def __str__(self) -> str:
        return redact(self.url)

    @property
    def digest(self) -> str:
        """Hash of the address, whose query may hold a key and is therefore not kept."""
        return hashlib.sha256(self.url.encode()).hexdigest()


@dataclass(frozen=True)
class _Version:
    """Which file a part belongs to: hash of its address, ETag or date, and size, as far as the server tells."""

    source: str
    validator: str | None
    total: int | None


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30,
    attempts: int = 3,
    limit: int | None = None,
    advice: str | None = None,
) -> Path:
    """Download a file, going on with what an earlier call has left in ``<target>.incomplete``.

    What is left is used only if the server still has the same file (ETag, or date, and size).

    Args:
        url: http or https. A user name and password in it are sent to this server only; no message shows them, nor the
            query, which may hold a key.
        target: the file to make; it is there only when it is complete. If it exists, it is only checked.
        sha256: hash of the whole file, in hexadecimal digits.
        progress: called as ``progress(done, total)`` in bytes; ``total`` is None if the server does not tell.
        timeout: seconds without an answer after which a connection counts as broken.
        attempts: how often to ask, at least once.
        limit: most bytes that are taken.
        advice: what to do if nothing helps, for the messages; by default, to save ``target`` by hand.

    Returns:
        ``target``.

    Raises:
        DatasetError: if the file cannot be fetched, is a web page instead, is too large, or has another hash; if space
            is short, or the file cannot be written.
    """
    source = _Source(*split_login(url), timeout, limit)
    try:
        if target.exists():
            _check_hash(target, sha256, "delete it, and the same command fetches it again")
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch_part(source, target, progress, attempts, advice)
        _finish(target, sha256)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or target}: {error.strerror or error}; put that right, and the same command goes on"
        ) from error
    return target


def split_login(url: str) -> tuple[str, str | None]:
    """Split an address into one without user name and password, and the header ``Authorization`` that they stand for.

    Raises:
        DatasetError: if it is not an address of http or https; the message shows the scheme only.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # for example, a character of the password ends the host, and the rest is no port
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise DatasetError(
            f"{url.partition(':')[0]}: cannot be fetched; expected an address that starts with https:// or http:// "
            "and a host, with special characters written as %XX"
        )
    login, _, server = parts.netloc.rpartition("@")
    header = f"Basic {base64.b64encode(unquote(login).encode()).decode()}" if login else None
    return parts._replace(netloc=server).geturl(), header


def _fetch_part(source: _Source, target: Path, progress: Progress | None, attempts: int, advice: str | None) -> None:
    again = "try again" if advice else "the same command goes on where this one stopped"
    advice = advice or f"download it with a browser and save it as {target}"
    for attempt in range(1, attempts + 1):
        try:
            _request(source, target, progress)
        except _RefusedError as error:
            raise DatasetError(f"{source}: {error}; {advice}") from error
        except _BrokenOffError as error:
            if attempt == attempts:
                raise DatasetError(
                    f"{source}: could not be fetched ({error}); check the connection, and {again}, or {advice}"
                ) from error
            time.sleep(PAUSE * attempt)
        else:
            break


def _request(source: _Source, target: Path, progress: Progress | None) -> None:
    """Ask once for all that is missing."""
    part = _part(target)
    known = _read_notes(source, target)
    have = part.stat().st_size if known else 0
    if known and have == known.total:
        return
    with _ask(source, target, have, known.validator if known else None) as response:
        start, version = _describe(source, response)
        _check_size(source, version.total or 0)
        chunks = _chunks(response)
        if start == 0:
            first = next(chunks, b"")
            if is_web_page(first) and target.suffix.lower() not in PAGE_SUFFIXES:
                raise _RefusedError(f"the server sent a web page instead of {target.name}")
            chunks = chain([first], chunks)
            _discard(target)
        elif (start, version) != (have, known):
            _discard(target)
            raise _BrokenOffError("the file on the server is not the one that the first part is from")
        check_free_space(part, (version.total or 0) - start)
        _notes(target).write_text(json.dumps(asdict(version)), encoding="utf-8")
        done = _append(source, part, start, chunks, version.total, progress)
    if version.total not in {None, done}:
        raise _BrokenOffError(f"the connection ended after {done} of {version.total} bytes")


def _check_size(source: _Source, size: int) -> None:
    if source.limit is not None and size > source.limit:
        raise _RefusedError(f"it has {size_text(size)} or more, expected at most {size_text(source.limit)}")


def _ask(source: _Source, target: Path, have: int, validator: str | None) -> HTTPResponse:
    headers = {"User-Agent": "cellbundle", "Accept-Encoding": "identity"}  # a range is of the bytes as they are stored
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and validator:
        headers["If-Range"] = validator
    request = urllib.request.Request(source.url, headers=headers)
    if source.login:
        request.add_unredirected_header("Authorization", source.login)
    try:
        return urllib.request.urlopen(request, timeout=source.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == NO_SUCH_RANGE:
            _discard(target)
        if error.code in PASSING:
            raise _BrokenOffError(answer) from error
        raise _RefusedError(f"{MEANINGS.get(error.code, 'cannot be fetched')} ({answer})") from error
    except (OSError, HTTPException) as error:
        raise _BrokenOffError(str(getattr(error, "reason", error))) from error


def _describe(source: _Source, response: HTTPResponse) -> tuple[int, _Version]:
    """Position of the first byte of an answer, -1 if it is not clear, and what it is part of."""
    tag = response.headers.get("ETag", "W/")
    validator = response.headers.get("Last-Modified") if tag.startswith("W/") else tag  # W/: not equal byte for byte
    if response.status == PARTIAL:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        start, total = (int(found[1]), int(found[2])) if found else (-1, None)
    else:
        length = response.headers.get("Content-Length", "")
        start, total = 0, int(length) if length.isdecimal() else None
    return start, _Version(source.digest, validator, total)


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from error


def _append(
    source: _Source, part: Path, start: int, chunks: Iterable[bytes], total: int | None, progress: Progress | None
) -> int:
    done = start
    with part.open("ab") as file:
        for chunk in chunks:
            file.write(chunk)
            done += len(chunk)
            _check_size(source, done)
            if progress is not None:
                progress(done, total)
    return done


def _finish(target: Path, sha256: str | None) -> None:
    try:
        _check_hash(_part(target), sha256, "it was removed; try again, or look whether the publisher has changed it")
    except DatasetError:
        _discard(target)
        raise
    _part(target).replace(target)
    _notes(target).unlink()


def _check_hash(path: Path, sha256: str | None, remedy: str) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise DatasetError(f"{path}: has the SHA-256 {found}, expected {sha256.lower()}; {remedy}")


def _read_notes(source: _Source, target: Path) -> _Version | None:
    """What the part that is there belongs to; None if there is none that can be used."""
    try:
        version = _Version(**json.loads(_notes(target).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    is_known = version.source == source.digest and version.total is not None and _part(target).exists()
    return version if is_known else None


def _discard(target: Path) -> None:
    _notes(target).unlink(missing_ok=True)
    _part(target).unlink(missing_ok=True)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.incomplete")


def _notes(target: Path) -> Path:
    return target.with_name(f"{target.name}.incomplete.json")
