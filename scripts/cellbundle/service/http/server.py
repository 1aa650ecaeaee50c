"""uvicorn with time-outs for slow clients, and a stop that finishes what runs."""

import asyncio
import logging
import math
import socket
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...kernels.parallel import n_threads
from ..settings import ServiceSettings
from ..workers.pool import WorkerPool
from ..workers.segmenter import Segmenter, load_bundle

logger = logging.getLogger(__name__)

PACKAGE = __name__.removesuffix(".service.http.server")  # another one inside a packaged bundle
MOST_CONNECTIONS = 512


def make_pool(settings: ServiceSettings) -> WorkerPool:
    """The workers of a service, not started yet."""
    handler = partial(
        Segmenter,
        dict(zip(settings.names, settings.bundles, strict=True)),
        partial(load_bundle, settings.device, settings.weights),
        settings.max_pixels,
        settings.threads or max(1, n_threads() // settings.workers),
        settings.batch,
    )
    return WorkerPool(
        handler,
        workers=settings.workers,
        queue_size=settings.queue_size,
        timeout_s=settings.timeout_s,
        preload=tuple(f"{PACKAGE}.{name}" for name in ("inference.predictor", "service.workers.segmenter")),
    )


def make_server(app: FastAPI, pool: WorkerPool, settings: ServiceSettings) -> "Server":
    """A server that runs until SIGTERM or SIGINT; then it finishes what runs, as long as ``drain_s`` allows."""
    config = uvicorn.Config(
        app,
        http=type("Protocol", (ImpatientProtocol,), {"patience_s": settings.read_timeout_s, "unfinished": {}}),
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=4
        * MOST_CONNECTIONS,  # also of those that wait for an answer, do not read theirs, or just ended
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
    return Server(config, pool)


class Server(uvicorn.Server):
    """A server that takes no more jobs from the moment it is told to stop."""

    def __init__(self, config: uvicorn.Config, pool: WorkerPool) -> None:
        super().__init__(config)
        self.pool = pool

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say where."""
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            logger.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal."""
        self.pool.refuse()
        super().handle_exit(sig, frame)


class ImpatientProtocol(H11Protocol):
    """HTTP that gives up on slow clients, which uvicorn waits for without end.

    Where connections are many, the one that has waited longest for its request to be complete makes room: idle clients
    and slow uploads keep nobody out.

    Attributes:
        patience_s: for the head of a request to be complete, and for any of an answer to be read. The body of a request
            has a time-out of its own.
        unfinished: connections of this server whose request is not complete, the oldest first.
    """

    patience_s = 30.0
    unfinished: "dict[ImpatientProtocol, None]"
    reading: asyncio.TimerHandle | None = None
    writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first head."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS and self.unfinished:
            oldest = next(iter(self.unfinished))
            del self.unfinished[oldest]
            oldest.transport.abort()
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch_request()

    def _watch_request(self) -> None:
        waits_for = None if self.transport.is_closing() else self.conn.their_state
        if waits_for in (h11.IDLE, h11.SEND_BODY):
            self.unfinished.setdefault(self)
        else:
            self.unfinished.pop(self, None)
        if waits_for is not h11.IDLE and self.reading is not None:
            self.reading.cancel()
            self.reading = None
        elif waits_for is h11.IDLE and self.reading is None:
            self.reading = self.loop.call_later(self.patience_s, self.transport.abort)

    def pause_writing(self) -> None:
        """Watch whether the client reads, now that much is waiting for it."""
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop watching."""
        super().resume_writing()
        if self.writing is not None:
            self.writing.cancel()

    def _watch_reader(self, unread: int) -> None:
        self.writing = self.loop.call_later(self.patience_s, self._check_reader, unread)

    def _check_reader(self, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < unread:
            self._watch_reader(left)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        super().connection_lost(exc)
        self.unfinished.pop(self, None)
        for timer in (self.reading, self.writing):
            if timer is not None:
                timer.cancel()
