"""Upload size, time and type limits."""

import asyncio
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from starlette.datastructures import FormData, Headers, MutableHeaders, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...io.images.read import SIGNATURES
from ..paths import SUFFIXES
from .errors import ServiceError

IMAGE_TYPES = {"image/png", "image/x-png", "image/jpeg", "image/jpg", "image/pjpeg", "image/bmp", "image/x-ms-bmp"}
IMAGE_TYPES |= {"image/x-bmp", "image/tiff", "image/tif", "image/x-tiff"}
UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}
FORM = "multipart/form-data"
READABLE = "PNG, JPEG, BMP and TIFF images are read"
LONGEST_SIGNATURE = max(map(len, SIGNATURES))
PIECE = 2**20  # bytes copied at once
MAX_JSON_BYTES = 2**16
LINGER_S = 2.0
PREFIX = "cellbundle-serve-"  # of the folders for uploads
LOCK = "lock"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class BodyLimits:
    """ASGI middleware: a body that is too large or too slow ends the request as soon as that is known.

    Args:
        app: what it stands in front of.
        max_bytes: of a body; of one that is JSON, 64 KiB at most.
        max_stored: bytes of all bodies together, from their arrival until their requests are answered.
        read_timeout_s: from the head of the request to the end of its body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_stored: int, read_timeout_s: float) -> None:
        self.app, self.max_bytes, self.max_stored, self.read_timeout_s = app, max_bytes, max_stored, read_timeout_s
        self.stored = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose body is watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(self, Headers(scope=scope), receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.stored -= body.got


class _Body:
    """The body of one request: what arrives of it is counted, and the rest of one that is of no use is dropped."""

    def __init__(self, limits: BodyLimits, headers: Headers, receive: Receive, send: Send) -> None:
        self.limits, self._receive, self._send = limits, receive, send
        is_json = _kind(headers) == "application/json"
        self.most = min(limits.max_bytes, MAX_JSON_BYTES) if is_json else limits.max_bytes
        self.deadline = time.monotonic() + limits.read_timeout_s
        self.announced = int(headers.get("content-length", "0"))
        self.got = 0
        self.complete = not self.announced and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        """The next part, or an error if the limits do not allow it."""
        if self.complete:  # what comes now is only that the client has gone
            return await self._receive()
        self._check_size(self.announced)
        try:
            message = await asyncio.wait_for(self._receive(), self.deadline - time.monotonic())
        except TimeoutError:
            raise ServiceError(408, "too_slow", "the request did not arrive in time") from None
        size = len(message.get("body", b""))
        self.got += size
        self.limits.stored += size
        self.complete = not message.get("more_body", False)
        self._check_size(self.got)
        if self.limits.stored > self.limits.max_stored:
            raise no_room()
        return message

    def _check_size(self, size: int) -> None:
        if size > self.most:
            raise ServiceError(413, "too_large", f"the body is larger than {self.most} bytes")

    async def send(self, message: Message) -> None:
        """Send a part of the answer; one to a body that is not complete closes the connection."""
        if message["type"] == "http.response.start" and not self.complete:
            # Else the server would read the rest of the body, to find the next request behind it.
            MutableHeaders(scope=message)["connection"] = "close"
        elif message["type"] == "http.response.body" and not self.complete and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await _drain(self._receive, self.most)
            message = {"type": message["type"]}
        await self._send(message)


def no_room() -> ServiceError:
    """The answer to an upload for which there is no room now."""
    return ServiceError(503, "busy", "too many uploads at once; try again later", retry_after=1)


async def _drain(receive: Receive, most: int) -> None:
    """Throw away what still arrives of a body, ``most`` bytes and for ``LINGER_S`` at most.

    A socket that is closed before all that it was sent is read resets the connection, and the client, which may still
    be sending, loses the answer (RFC 9112, section 9.6).
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while most > 0 and (message := await receive()).get("more_body", False):
                most -= len(message["body"])


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for uploads as long as the block lasts. Those of services that were killed are removed.

    Each has a file that its service keeps locked; the system unlocks it when the process ends, however it ends.
    """
    remove_left_folders()
    hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with FileLock(hidden / LOCK):
        folder = hidden.rename(hidden.with_name(hidden.name[1:]))  # others see it only now that it is locked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_left_folders() -> None:
    """Remove the folders for uploads whose service was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            if _is_own(folder) and (folder / LOCK).is_file():
                with FileLock(folder / LOCK, blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, and this user's: anybody may make one in the system's temporary folder."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and (os.name != "posix" or status.st_uid == os.getuid())


async def save_upload(request: Request, target: Path) -> None:
    """Save the image of a request: the field ``image`` of a form, or a body that is an image.

    Args:
        request: its body has not been read.
        target: the file to write.

    Raises:
        ServiceError: 400 for a form that cannot be read or junk that is called an image, 415 for other types, 422 if
            the field is missing, 503 if the disk is full.
    """
    kind = _kind(request.headers)
    try:
        if kind == FORM:
            async with request.form(max_files=1, max_fields=8) as form:
                named = await _copy(form, target)
        elif kind in IMAGE_TYPES | UNTYPED:
            named = kind in IMAGE_TYPES
            with target.open("wb") as file:
                async for piece in request.stream():
                    file.write(piece)
        else:
            raise ServiceError(415, "wrong_type", f"the body is {kind or 'untyped'}, expected an image; {READABLE}")
    except ClientDisconnect:
        raise ServiceError(400, "disconnected", "the request ended early") from None
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise no_room() from None
    _check_signature(target, named)


async def _copy(form: FormData, target: Path) -> bool:
    """Save the field ``image``; whether it is called an image that can be read."""
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise ServiceError(422, "no_image", "the form has no file in its field 'image'")
    kind = _essence(image.content_type or "")
    named = kind in IMAGE_TYPES or (kind in UNTYPED and Path(image.filename or "").suffix.lower() in SUFFIXES)
    if not named and kind not in UNTYPED:
        raise ServiceError(415, "wrong_type", f"the field 'image' is {kind}, expected an image; {READABLE}")
    with target.open("wb") as file:
        while piece := await image.read(PIECE):
            file.write(piece)
    return named


def _check_signature(path: Path, named: bool) -> None:
    """Refuse what does not begin as an image; the decoders decide about the rest."""
    with path.open("rb") as file:
        head = file.read(LONGEST_SIGNATURE)
    if not head.startswith(tuple(SIGNATURES)):
        status, code = (400, "unreadable_image") if named else (415, "wrong_type")
        raise ServiceError(status, code, f"what was sent is no image by its content; {READABLE}")


def _kind(headers: Headers) -> str:
    return _essence(headers.get("content-type", ""))


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
