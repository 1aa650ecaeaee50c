"""``cellbundle serve``: the HTTP service."""

import logging
import os
import signal
import socket
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, DependencyError

logger = logging.getLogger(__name__)

MIB = 2**20
EVERY_ADDRESS = ("0.0.0.0", "::", "")


def serve(
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle to serve; repeat it for more. cell_unet.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint to use instead of the bundle's own, as its run.yaml says.")
    ] = None,
    root: Annotated[list[Path] | None, typer.Option(help="Folder of images for /seg_mask; may be repeated.")] = None,
    path_map: Annotated[
        list[str] | None, typer.Option(help="HOST=CONTAINER: what callers call a folder, and what it is called here.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 5050,
    workers: Annotated[int, typer.Option(help="Worker processes; each holds all bundles.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each worker; 0 shares the processors.")] = 0,
    queue_size: Annotated[int, typer.Option(help="Requests that wait at most.")] = 32,
    wait: Annotated[float, typer.Option(help="Seconds that a request waits at most.")] = 60,
    timeout: Annotated[float, typer.Option(help="Seconds of work on a request at most.")] = 60,
    read_timeout: Annotated[float, typer.Option(help="Seconds that a request may take to arrive.")] = 30,
    drain: Annotated[float, typer.Option(help="Seconds for running requests when the service is stopped.")] = 30,
    max_upload_mb: Annotated[int, typer.Option(help="Largest upload in MiB.")] = 64,
    max_pixels: Annotated[int, typer.Option(help="Largest image.")] = 2**26,
    batch: Annotated[int, typer.Option(help="Images in one call of the network; 0: 8 on a GPU, else 1.")] = 0,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Name of this service that requests without a token may use; * for any.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token; else $CELLBUNDLE_TOKEN_FILE or $CELLBUNDLE_TOKEN.")
    ] = None,
    replace_foreign: Annotated[
        bool, typer.Option("--replace-foreign", help="Let /seg_mask replace masks that it did not write.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
) -> int:
    """Answer requests over HTTP until Ctrl-C or SIGTERM. A page to try it is at /, the API at /openapi.json."""
    try:
        from ..service.http.app import create_app  # noqa: PLC0415
        from ..service.http.server import make_pool, make_server  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DependencyError(f'the service needs {error.name}; pip install "cellbundle[serve]"') from error
    from ..service.paths import PathMap, Root  # noqa: PLC0415
    from ..service.settings import ServiceSettings, is_loopback, read_token  # noqa: PLC0415

    settings = ServiceSettings(
        bundles=tuple(bundle or ["cell_unet"]),
        weights=weights.resolve() if weights else None,
        roots=tuple(map(Root.of, root or [])),
        path_maps=tuple(map(PathMap.of, path_map or [])),
        workers=workers,
        threads=threads,
        queue_size=queue_size,
        wait_s=wait,
        timeout_s=timeout,
        read_timeout_s=read_timeout,
        drain_s=drain,
        max_upload_bytes=max_upload_mb * MIB,
        max_pixels=max_pixels,
        batch=batch,
        token=read_token(token_file),
        allowed_hosts=tuple(allowed_host or ()),
        host="" if host in EVERY_ADDRESS else host,
        replace_foreign=replace_foreign,
        device=device,
    )
    if settings.token is None and not is_loopback(host):
        logger.warning("anybody who reaches %s can use this service; set a token, see --token-file", host)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = make_pool(settings)
    with listen(host, port) as listening, suppress(KeyboardInterrupt), closing(pool):
        pool.start()
        if not pool.wait_until_ready():
            raise ConfigError(f"no worker can start: {pool.error}")
        for one in pool.about:
            logger.info("%s %s, weights %s, on %s", one["name"], one["version"], one["weights"]["file"], one["device"])
        make_server(create_app(settings, pool), pool, settings).run(sockets=[listening])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound; ``OSError`` if the address is taken."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        with ExitStack() as undo:
            undo.callback(listening.close)
            if os.name == "posix":  # elsewhere a second service could listen at the same port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            undo.pop_all()
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from error
    return listening
