"""What a service is told when it starts."""

import ipaddress
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import ConfigError
from .handles import SUPPORTED
from .paths import PathMap, Root

TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "CELLBUNDLE_TOKEN", "CELLBUNDLE_TOKEN_FILE"
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")  # what RFC 6750 allows in a header, long enough not to be guessed
ANY_HOST = "*"
HOST = re.compile(r"[\w.-]+|\[?[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.%]*\]?")  # a name, or an address of IPv4 or IPv6
MIB = 2**20


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of a service.

    Attributes:
        bundles: names or folders; the first one is used where a request names none.
        weights: checkpoint of the only bundle in place of its own, configured as the ``run.yaml`` beside it says.
        roots: folders below which ``/seg_mask`` reads images and writes masks; without any it does not exist.
        path_maps: how paths of callers are translated.
        workers: processes; each holds all bundles.
        threads: of each worker; 0 shares the processors among the workers.
        queue_size: requests that wait at most; further ones are refused.
        wait_s: how long a request waits at most.
        timeout_s: how long a worker works on a request at most; then it is stopped.
        read_timeout_s: how long a request may take to arrive.
        drain_s: how long requests may go on when the service is stopped.
        max_upload_bytes: largest body of a request.
        max_pixels: largest image, see ``cellbundle.io.read_image``.
        batch: images in one call of the network; 0 chooses, 1 on a CPU.
        token: that every request but those for the page and for health must carry; None asks for none.
        allowed_hosts: names other than loopback ones that requests without a token may be meant for; ``"*"``: any.
        host: address that the service listens on, which requests may name as well.
        replace_foreign: ``/seg_mask`` may replace masks that the service did not write.
        device: see ``cellbundle.device.choose_device``.

    Raises:
        ConfigError: for values that cannot be.
    """

    bundles: tuple[str, ...] = ("cell_unet",)
    weights: Path | None = None
    roots: tuple[Root, ...] = ()
    path_maps: tuple[PathMap, ...] = ()
    workers: int = 1
    threads: int = 0
    queue_size: int = 32
    wait_s: float = 60
    timeout_s: float = 60
    read_timeout_s: float = 30
    drain_s: float = 30
    max_upload_bytes: int = 64 * MIB
    max_pixels: int = 2**26
    batch: int = 0
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    host: str = ""
    replace_foreign: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) < len(names) or not all(names):
            raise ConfigError(f"bundles are {', '.join(names) or 'none'}, expected at least one, each name once")
        self._check_weights()
        for one in fields(self):
            value = getattr(self, one.name)
            smallest = 0 if one.name in ("threads", "queue_size", "batch") else 1 if one.type is int else 0.001
            if one.type in (int, float) and not smallest <= value < float("inf"):
                raise ConfigError(f"{one.name} is {value}, expected a number from {smallest} on")
        if self.roots and not SUPPORTED:
            raise ConfigError("--root needs a system that opens files relative to folders, such as Linux or macOS")
        for host in self.allowed_hosts:
            if host != ANY_HOST and not HOST.fullmatch(host):
                raise ConfigError(f"--allowed-host is {host!r}, expected a name or an address without scheme and port")
        if self.token is not None and not TOKEN.fullmatch(self.token):
            raise ConfigError("the token must have at least 16 letters, digits or the characters . _ ~ + / - in it")

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        if len(self.bundles) > 1:
            raise ConfigError(f"--weights goes with one --bundle, got {len(self.bundles)}; start a service for each")
        if not self.weights.is_file():
            raise ConfigError(f"--weights is {self.weights}, which is not a file; give a checkpoint, or train first")

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which requests choose a bundle."""
        return tuple(Path(bundle).resolve().name if os.sep in bundle else bundle for bundle in self.bundles)


def shown_weights(path: str | Path) -> str:
    """The last folder and the name of a file of weights, such as ``1/model.pt``: responses do not tell the path."""
    return "/".join(Path(path).parts[-2:])


def is_loopback(host: str) -> bool:
    """Whether a host name or address stands for this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(file: Path | None) -> str | None:
    """The token; never from the command line, which every user of the machine sees.

    Args:
        file: with the token; else that which ``$CELLBUNDLE_TOKEN_FILE`` names, else ``$CELLBUNDLE_TOKEN`` is the token.

    Returns:
        None if nothing gives a token.

    Raises:
        OSError: if the file cannot be read.
        ConfigError: if it is empty.
    """
    named = Path(os.environ.get(TOKEN_FILE_VARIABLE) or os.devnull)
    if file is None and not named.is_char_device():  # /dev/null stands for no token: compose.yaml always mounts a file
        file = named
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = file.read_text().strip()
    if not token:
        raise ConfigError(f"{file} is empty, expected a token; for example from `openssl rand -hex 32`")
    return token
