"""Middleware for authentication, origins, headers, metrics and unexpected errors."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..settings import ANY_HOST, ServiceSettings, is_loopback
from ..workers.answers import place
from ..workers.pool import WorkerPool

logger = logging.getLogger(__name__)

SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
PROTECTED = ("/seg_mask", "/v1/", "/metrics")
MAX_SHOWN = 80  # letters of a header in a message
OWN_SITES = ("same-origin", "none")  # values of Sec-Fetch-Site; none: a person typed the address
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
    """ASGI middleware around the routes.

    Args:
        app: what it stands in front of.
        settings: of the service; its token, and without one the hosts that requests may be meant for.
        measures: where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, measures: Measures) -> None:
        self.app, self.measures = app, measures
        self.expected = None if settings.token is None else _digest(settings.token.encode())
        self.allowed = frozenset(host.lower().strip("[]") for host in settings.allowed_hosts)
        self.hosts = self.allowed | ({settings.host.lower()} if settings.host else frozenset())

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
            await (self._refusal(scope) or self.app)(scope, receive, guarded)
        except asyncio.CancelledError:  # the service stops, and the time for running requests is over
            if not status:
                await error_answer(503, "stopping", "the service stops; try again later")(scope, receive, guarded)
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

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that may not pass, else None."""
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front may believe the other one, and take a part of the body for a request of somebody else.
            return error_answer(400, "two_lengths", "the request has Content-Length and Transfer-Encoding; send one")
        if self.expected is None:
            return self._foreign(scope["method"], headers)
        if not scope["path"].startswith(PROTECTED) or self._knows_token(headers):
            return None
        answer = error_answer(401, "unauthorised", "a valid token is needed: Authorization: Bearer TOKEN")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _knows_token(self, headers: Headers) -> bool:
        assert self.expected is not None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(_digest(token.strip().encode()), self.expected) and scheme.lower() == "bearer"

    def _foreign(self, method: str, headers: Headers) -> JSONResponse | None:
        """The answer to a request that a page of another site may have sent through somebody's browser.

        Such a page reaches this machine's loopback interface. The name in ``Host`` gives away one that points a name of
        its own there (DNS rebinding); ``Origin`` and ``Sec-Fetch-Site`` give away all others.
        """
        host = headers.get("host", "localhost")  # only HTTP 1.0 has none, which no browser speaks
        if self._is_foreign_host(_host_name(host)):
            return error_answer(
                403,
                "foreign_host",
                f"the header Host is {host[:MAX_SHOWN]!r}, which is not allowed; allow its name with --allowed-host, "
                "or set a token",
            )
        origin = headers.get("origin")
        # A link of another site may be followed: its page does not see what it leads to.
        followed = (method, headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
            "GET",
            "navigate",
            "document",
        )
        own = headers.get("sec-fetch-site", "none") in OWN_SITES or followed
        if not own or (origin is not None and not self._is_own(origin, host)):
            return error_answer(
                403, "cross_site", "pages of other sites may not use this service unless it has a token"
            )
        return None

    def _is_foreign_host(self, name: str) -> bool:
        return not (ANY_HOST in self.hosts or name in self.hosts or is_loopback(name))

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an origin is that of our page: by its address here, or by its name in front of a proxy."""
        try:
            address = urlsplit(origin)
            return address.netloc.lower() == host.lower() or address.hostname in self.allowed
        except ValueError:
            return False


def error_answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one form of all errors."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _host_name(host: str) -> str:
    """The name in a ``Host`` header, without its port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _digest(token: bytes) -> bytes:
    """Of one length, so that a comparison does not even tell the length of the token."""
    return hashlib.sha256(token).digest()
