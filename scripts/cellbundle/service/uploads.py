"""Bodies of requests: never larger, slower or of another kind than agreed."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import FormData, Headers, MutableHeaders, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..io.read import SIGNATURES
from .errors import ServiceError
from .paths import SUFFIXES

IMAGE_TYPES = {"image/png", "image/x-png", "image/jpeg", "image/jpg", "image/pjpeg", "image/bmp", "image/x-ms-bmp"}
IMAGE_TYPES |= {"image/x-bmp", "image/tiff", "image/tif", "image/x-tiff"}
UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}
FORM = "multipart/form-data"
READABLE = "PNG, JPEG, BMP and TIFF images are read"
LONGEST_SIGNATURE = max(map(len, SIGNATURES))
PIECE = 2**20  # bytes copied at once
MAX_JSON_BYTES = 2**16
LINGER_S = 2.0


class BodyLimits:
    """ASGI middleware: a body that is too large or too slow ends the request as soon as that is known.

    Args:
        app: what it stands in front of.
        max_bytes: of a body; of one that is JSON, 64 KiB at most.
        read_timeout_s: from the head of the request to the end of its body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, read_timeout_s: float) -> None:
        self.app, self.max_bytes, self.read_timeout_s = app, max_bytes, read_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose body is watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = min(self.max_bytes, MAX_JSON_BYTES) if _kind(headers) == "application/json" else self.max_bytes
        deadline = time.monotonic() + self.read_timeout_s
        announced = int(headers.get("content-length", "0"))
        got, complete = 0, not announced and "transfer-encoding" not in headers

        async def limited() -> Message:
            nonlocal got, complete
            if complete:  # what comes now is only that the client has gone
                return await receive()
            if announced > most:
                raise ServiceError(413, "too_large", f"the body is larger than {most} bytes")
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError:
                raise ServiceError(408, "too_slow", "the request did not arrive in time") from None
            got += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if got > most:
                raise ServiceError(413, "too_large", f"the body is larger than {most} bytes")
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not complete:
                # Else the server would read the rest of the body, to find the next request behind it.
                MutableHeaders(scope=message)["connection"] = "close"
            elif message["type"] == "http.response.body" and not complete and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drain(receive, most)
                message = {"type": message["type"]}
            await send(message)

        await self.app(scope, limited, closing)


async def _drain(receive: Receive, most: int) -> None:
    """Throw away what still arrives of a body, ``most`` bytes and for ``LINGER_S`` at most.

    A socket that is closed before all that it was sent is read resets the connection, and the client, which may still
    be sending, loses the answer (RFC 9112, section 9.6).
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while most > 0 and (message := await receive()).get("more_body", False):
                most -= len(message["body"])


async def save_upload(request: Request, target: Path) -> None:
    """Save the image of a request: the field ``image`` of a form, or a body that is an image.

    Args:
        request: its body has not been read.
        target: the file to write.

    Raises:
        ServiceError: 400 for a form that cannot be read or junk that is called an image, 415 for other types, 422 if
            the field is missing.
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
