"""From the path in a request to a file below a root. Every refusal is the same, so that it tells nothing."""

from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from ..errors import CellBundleError, ConfigError
from ..io import IMAGE_SUFFIXES

SUFFIXES = IMAGE_SUFFIXES - {".zarr"}  # that of a folder
MASK = "_mask.png"


class OutsideError(CellBundleError):
    """A path that is no image below a root; the message is the same for every reason."""

    def __init__(self) -> None:
        super().__init__("there is no such image")


@dataclass(frozen=True)
class Root:
    """A folder that requests may name files of.

    Attributes:
        given: absolute, as requests write it.
        real: the same without links.
    """

    given: Path
    real: Path

    @classmethod
    def of(cls, folder: str | Path) -> "Root":
        """A root; ``ConfigError`` if it is no folder."""
        given = Path(folder).absolute()
        if not given.is_dir():
            raise ConfigError(f"{folder} is not a folder; give one with images as --root")
        return cls(given, given.resolve(strict=True))


@dataclass(frozen=True)
class PathMap:
    """How a folder is called by callers and here.

    Attributes:
        caller: absolute path on the caller's machine, which may be one with Windows.
        here: the same folder on this machine.
    """

    caller: PurePath
    here: Path

    @classmethod
    def of(cls, text: str) -> "PathMap":
        """From ``HOST=CONTAINER``; ``ConfigError`` if it is not two absolute paths."""
        host, _, container = text.rpartition("=")
        caller = pure(host)
        if not (caller.is_absolute() and Path(container).is_absolute()):
            raise ConfigError(f"--path-map is {text!r}, expected HOST=CONTAINER with two absolute paths")
        return cls(caller, Path(container))


@dataclass(frozen=True)
class Located:
    """An image below a root, and where its mask goes.

    Attributes:
        image: the file, without links.
        mask: the file to write.
        answer: the path of the mask as the caller writes paths.
    """

    image: Path
    mask: Path
    answer: str


def pure(text: str) -> PurePath:
    """A path of Windows if it has a drive, else one with forward slashes."""
    windows = PureWindowsPath(text)
    return windows if windows.drive else PurePosixPath(text)


def locate(text: str, roots: tuple[Root, ...], maps: tuple[PathMap, ...]) -> Located:
    """Find the image that a request names.

    The path is taken as it is: nothing is decoded, ``..`` is refused, and what is not written as a path below a root is
    never looked up. Links are followed, but must stay below a root.

    Args:
        text: absolute path, as the caller writes it.
        roots: folders that may be read and written.
        maps: translations of paths; the longest that fits is applied.

    Raises:
        OutsideError: for anything but an image file below a root, beside which a mask can be written.
    """
    caller = pure(text)
    path = _translated(caller, maps)
    if (
        "\0" in text
        or ".." in caller.parts
        or not any(path.is_relative_to(r) for o in roots for r in (o.given, o.real))
    ):
        raise OutsideError
    try:
        image, folder = path.resolve(strict=True), path.parent.resolve(strict=True)
        mask = folder / (path.stem + MASK)
        below = all(any(one.is_relative_to(root.real) for root in roots) for one in (image, folder))
        if not (below and image.is_file() and image.suffix.lower() in SUFFIXES):
            raise OutsideError
        if mask.is_symlink() or mask.is_dir():
            raise OutsideError
    except (OSError, ValueError, RuntimeError) as error:  # not there, too long, not decodable, a loop of links
        raise OutsideError from error
    return Located(image, mask, str(caller.with_name(path.stem + MASK)))


def _translated(caller: PurePath, maps: tuple[PathMap, ...]) -> Path:
    fitting = [one for one in maps if caller.is_relative_to(one.caller)]
    if not fitting:
        return Path(caller)
    best = max(fitting, key=lambda one: len(one.caller.parts))
    return best.here.joinpath(*caller.relative_to(best.caller).parts)
