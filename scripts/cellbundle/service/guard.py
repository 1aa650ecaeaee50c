"""What every request passes first and every answer last: token, security headers, counts, and the last resort."""

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import place
from .pool import WorkerPool

logger = logging.getLogger(__name__)

SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
PROTECTED = ("/seg_mask", "/v1/", "/metrics")
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Measures:
    """Counts for Prometheus, each service its own."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cellbundle_requests", "Answers by route and status.", ["route", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "cellbundle_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The state of the pool now."""
        for name, help_text, value in (
            ("queue_length", "Requests that wait.", self.pool.waiting),
            ("workers_alive", "Workers that can work.", self.pool.alive),
            ("worker_restarts", "Workers started again since the service started.", self.pool.restarts),
        ):
            family = GaugeMetricFamily(f"cellbundle_{name}", help_text)
            family.add_metric([], value)
            yield family

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class Guard:
    """ASGI middleware around all others.

    Args:
        app: what it stands in front of.
        token: that requests to ``PROTECTED`` must carry, or None.
        measures: where requests are counted.
    """

    def __init__(self, app: ASGIApp, token: str | None, measures: Measures) -> None:
        self.app, self.measures = app, measures
        self.expected = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            if self._allowed(scope):
                await self.app(scope, receive, guarded)
            else:
                answer = error_answer(401, "unauthorised", "a valid token is needed: Authorization: Bearer TOKEN")
                answer.headers["WWW-Authenticate"] = "Bearer"
                await answer(scope, receive, guarded)
        except Exception as error:  # the last resort: no trace may reach the client or the log
            logger.warning("a request failed: %s", place(error))
            logger.debug("details", exc_info=error)
            if not status:
                await error_answer(500, "failed", "something went wrong here")(scope, receive, guarded)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self.measures.requests.labels(route, status).inc()
            self.measures.seconds.labels(route).observe(seconds)
            logger.info("%s %s %d %.3f s", scope["method"], route, status, seconds)

    def _allowed(self, scope: Scope) -> bool:
        if self.expected is None or not scope["path"].startswith(PROTECTED):
            return True
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        return hmac.compare_digest(_digest(token.strip().encode()), self.expected) and scheme.lower() == "bearer"


def error_answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one form of all errors."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _digest(token: bytes) -> bytes:
    """Of one length, so that a comparison does not even tell the length of the token."""
    return hashlib.sha256(token).digest()
