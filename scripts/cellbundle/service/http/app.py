"""The HTTP application in front of a pool of workers."""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, create_model
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from ...version import __version__
from ..masks import ForeignMaskError, check_mask
from ..paths import OutsideError, locate
from ..settings import ServiceSettings
from ..workers.answers import MEDIA_TYPES, Answer, Job, Refusal
from ..workers.pool import WorkerPool
from ..workers.tasks import CrashedError, FullError, NotReadyError, PoolError, TimedOutError
from . import documentation as text
from . import page
from .errors import ServiceError
from .guard import Guard, Measures, error_answer
from .uploads import BodyLimits, save_upload, upload_folder

logger = logging.getLogger(__name__)

REFUSAL_S = 0.05  # every refused path is answered after this time, whatever was found out in it
START_RETRY_S = 10
CODES = {404: "not_found", 405: "wrong_method"}
POOL_ERRORS = {
    TimedOutError: (504, "timed_out", "the image took too long; crop it, or give a larger diameter"),
    CrashedError: (500, "crashed", "the worker ended while it worked on the image"),
    NotReadyError: (503, "not_ready", "no worker can work now"),
    FullError: (503, "busy", "too many requests wait; try again later"),
}


class MaskRequest(BaseModel):
    """What ``/seg_mask`` takes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"image_path": "/data/a.png"}]})
    image_path: str


class MaskAnswer(BaseModel):
    """What ``/seg_mask`` gives."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"mask_path": "/data/a_mask.png"}]})
    mask_path: str


class SegmentOptions(BaseModel):
    """Options of ``/v1/segment``."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["json", "geojson", "tiff", "png", "preview"] = "json"
    bundle: str  # one of those that are served, see ``create_app``
    diameter: Annotated[float, Query(ge=1, le=10000, allow_inf_nan=False)] | Literal["auto", "none"] = "auto"
    timeout: Annotated[float | None, Query(ge=0.01, le=86400, allow_inf_nan=False)] = None


class Service:
    """What the routes do.

    Args:
        settings: of the service.
        pool: started and closed by whoever made it.
    """

    def __init__(self, settings: ServiceSettings, pool: WorkerPool) -> None:
        self.settings, self.pool = settings, pool
        self.measures = Measures(pool)
        self.folder = Path()

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """A folder for uploads, as long as the application runs."""
        with upload_folder() as self.folder:
            yield

    async def segment(self, request: Request, options: SegmentOptions) -> Response:
        """Segment an image that is sent."""
        if not self.pool.accepting:
            raise _not_ready()
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            await save_upload(request, folder / "image")
            job = Job(folder / "image", options.bundle, options.format, folder / "answer", options.diameter)
            answer = await self._outcome(request, job, options.timeout)
        finally:
            await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)
        height, width = answer.size
        headers = {
            "X-Cell-Count": str(answer.cells),
            "X-Seconds": f"{answer.seconds:.3f}",
            "X-Image-Width": str(width),
            "X-Image-Height": str(height),
            "X-Magnification": f"{answer.magnification:.4g}",
        }
        if answer.diameter is not None:
            headers["X-Cell-Diameter"] = f"{answer.diameter:.4g}"
        return Response(answer.body, media_type=MEDIA_TYPES[options.format], headers=headers)

    async def seg_mask(self, request: Request, body: MaskRequest) -> MaskAnswer:
        """Segment a file below a root, and write its mask beside it."""
        started = time.monotonic()
        settings = self.settings
        try:
            found = await run_in_threadpool(locate, body.image_path, settings.roots, settings.path_maps)
            if not settings.replace_foreign:
                await run_in_threadpool(check_mask, found.mask)
        except OutsideError as error:
            await asyncio.sleep(started + REFUSAL_S - time.monotonic())
            raise ServiceError(404, "not_found", str(error)) from None
        except ForeignMaskError as error:
            raise ServiceError(409, "foreign_mask", str(error)) from None
        job = Job(found.image, settings.names[0], "mask", found.mask, replace_foreign=settings.replace_foreign)
        await self._outcome(request, job, None)
        return MaskAnswer(mask_path=found.answer)

    async def bundles(self) -> list[dict[str, Any]]:
        """The bundles that are served."""
        if self.pool.about is None:
            raise _not_ready()
        return list(self.pool.about)

    async def healthz(self) -> dict[str, str]:
        """Whether the service lives."""
        return {"status": "alive"}

    async def readyz(self) -> dict[str, str]:
        """Whether a worker can work."""
        if not self.pool.ready:
            raise _not_ready()
        return {"status": "ready"}

    async def metrics(self) -> Response:
        """Counts for Prometheus."""
        return Response(self.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _outcome(self, request: Request, job: Job, timeout_s: float | None) -> Answer:
        """What becomes of a job. It is taken out of the queue if it waits too long, or the client goes away."""
        try:
            task = self.pool.submit(job, timeout_s)
            outcome: Answer | Refusal = await self._done(request, task)
        except NotReadyError:
            raise _not_ready() from None
        except PoolError as error:
            retry_after = error.retry_after if isinstance(error, FullError) else None
            raise ServiceError(*POOL_ERRORS[type(error)], retry_after=retry_after) from None
        if isinstance(outcome, Refusal):
            if outcome.note:
                logger.warning("a job failed: %s", outcome.note)
            raise ServiceError(outcome.status, outcome.code, outcome.message)
        return outcome

    async def _done(self, request: Request, task: "Future[Any]") -> Any:
        """The outcome of a task, when it is there."""
        done, gone = asyncio.wrap_future(task), asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({done, gone}, timeout=self.settings.wait_s, return_when=asyncio.FIRST_COMPLETED)
            if not done.done() and not gone.done():
                if task.cancel():
                    raise FullError(self.pool.retry_after)
                await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            task.cancel()
            raise ServiceError(400, "disconnected", "the client has gone")
        finally:
            gone.cancel()
            done.cancel()


def _not_ready() -> ServiceError:
    return ServiceError(*POOL_ERRORS[NotReadyError], retry_after=START_RETRY_S)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(settings: ServiceSettings, pool: WorkerPool) -> FastAPI:
    """The application.

    Args:
        settings: of the service.
        pool: of workers; whoever made it starts and closes it.
    """
    service = Service(settings, pool)
    app = FastAPI(
        title="cellbundle",
        version=__version__,
        description=text.DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=service.lifespan,
        separate_input_output_schemas=False,
    )
    token = [Depends(HTTPBearer(auto_error=False))] if settings.token is not None else []
    app.get("/healthz", responses=text.HEALTH)(service.healthz)
    app.get("/readyz", responses=text.READY)(service.readyz)
    app.get("/metrics", responses=text.METRICS, response_class=Response, dependencies=token)(service.metrics)
    app.get("/v1/bundles", responses=text.BUNDLES, dependencies=token)(service.bundles)
    served = settings.names
    names: Any = Literal[served]
    Options = create_model("Options", __base__=SegmentOptions, bundle=(names, served[0]))  # noqa: N806

    @app.post(
        "/v1/segment",
        responses=text.SEGMENT,
        response_class=Response,
        openapi_extra=text.SEGMENT_BODY,
        dependencies=token,
    )
    async def segment(request: Request, options: Annotated[Options, Query()]) -> Response:  # type: ignore[valid-type]
        """Segment an image that is sent."""
        return await service.segment(request, options)

    if settings.roots:
        app.post("/seg_mask", responses=text.SEG_MASK, dependencies=token)(service.seg_mask)
    for url, (media_type, content) in page.FILES.items():
        app.get(url, include_in_schema=False)(_file(media_type, content))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Guard, settings=settings, measures=service.measures)
    app.add_middleware(
        BodyLimits,
        max_bytes=settings.max_upload_bytes,
        max_stored=settings.max_upload_bytes * (settings.workers + settings.queue_size),
        read_timeout_s=settings.read_timeout_s,
    )
    return app


def _file(media_type: str, content: bytes) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=media_type)

    return answer


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = error.code if isinstance(error, ServiceError) else CODES.get(error.status_code, "bad_request")
    return error_answer(error.status_code, code, error.detail, dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What is wrong with the parameters, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return error_answer(422, "invalid", problems)
