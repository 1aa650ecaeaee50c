"""The axis rules, all of them: the option, else what the file says, else a guess where only one reading holds."""

from typing import NamedTuple

from numpy.typing import NDArray

from ...errors import ImageReadError
from .header import CHANNELS

UNKNOWN = "QI"  # tifffile's letters for dimensions that a file does not name
UNDESCRIBED = "P"  # planes that the OME metadata of a file do not describe: they may be a z-stack
MAX_GUESSED_CHANNELS = 4
STACKS = {"Z": "a z-stack", "T": "a time series", UNDESCRIBED: "a set of planes that its metadata do not describe,"}


class Axes(NamedTuple):
    """One letter for each stored dimension, and where they come from: ``"option"``, ``"metadata"`` or ``"guess"``."""

    letters: str
    source: str


def resolve_axes(shape: tuple[int, ...], stated: str, option: str | None = None) -> Axes:
    """Say which stored dimension is which.

    Args:
        shape: stored shape.
        stated: letters that the file gives, one for each dimension; Q or I where it does not say.
        option: letters that the user gives; they win.

    Returns:
        The letters: Y and X once, at most one of C and S longer than 1, everything else of length 1.

    Raises:
        ImageReadError: if the letters do not fit the shape, if the array is a stack, or if no single reading holds.
    """
    if option is not None:
        axes = Axes(option.upper(), "option")
    elif any(letter in UNKNOWN and size > 1 for letter, size in zip(stated, shape, strict=True)):
        axes = Axes(_guess(shape, stated), "guess")
    else:
        axes = Axes(stated, "metadata")
    _check(shape, axes.letters)
    return axes


def channels_first(array: NDArray, letters: str) -> NDArray:
    """Bring an array into the order (C, H, W).

    Args:
        array: array of any dtype whose dimensions are named by ``letters``.
        letters: as ``resolve_axes`` returns them.

    Returns:
        (C, H, W) view, same dtype.
    """
    taken = [
        letter in "YX" or (letter in CHANNELS and size > 1) for letter, size in zip(letters, array.shape, strict=True)
    ]
    plane = array[tuple(slice(None) if take else 0 for take in taken)]
    kept = "".join(letter for letter, take in zip(letters, taken, strict=True) if take)
    chw = plane.transpose([kept.index(letter) for letter in CHANNELS + "YX" if letter in kept])
    return chw if chw.ndim == 3 else chw[None]


def _guess(shape: tuple[int, ...], stated: str) -> str:
    """Letters of an array whose dimensions the file does not name; length-1 ones are set aside."""
    kept = [index for index, letter in enumerate(stated) if letter not in UNKNOWN or shape[index] > 1]
    sizes = [shape[index] for index in kept]
    readings = []
    if len(sizes) == 3:
        first_is_small = sizes[0] <= MAX_GUESSED_CHANNELS < min(sizes[1:])
        last_is_small = sizes[-1] <= MAX_GUESSED_CHANNELS < min(sizes[:-1])
        readings = ["CYX"] * first_is_small + ["YXC"] * last_is_small
    if len(readings) != 1:
        raise ImageReadError(_unclear(shape))
    letters = list(UNKNOWN[0] * len(shape))
    for index, letter in zip(kept, readings[0], strict=True):
        letters[index] = letter
    return "".join(letters)


def _check(shape: tuple[int, ...], letters: str) -> None:
    """Refuse letters that do not fit the shape, and arrays that are more than one image."""
    if len(letters) != len(shape):
        raise ImageReadError(
            f"axes={letters!r} names {len(letters)} dimensions, but the array has shape {shape}; "
            "give one letter for each dimension"
        )
    if letters.count("Y") != 1 or letters.count("X") != 1 or any(letters.count(letter) > 1 for letter in CHANNELS):
        raise ImageReadError(_unclear(shape))
    long = [letter for letter, size in zip(letters, shape, strict=True) if size > 1 and letter not in "YX"]
    for letter in long:
        if letter not in CHANNELS:
            name = STACKS.get(letter, f"a stack along axis {letter}")
            raise ImageReadError(
                f"is {name} of shape {shape} (axes {letters}), expected one 2-D image; choose a plane and save it "
                f"as a file of its own, or set axes={letters.replace(letter, 'C')!r} to read the planes as channels"
            )
    if len(long) > 1:
        raise ImageReadError(
            f"has {len(long)} channel dimensions, shape {shape} (axes {letters}), expected at most one; "
            "choose a channel and save it as a file of its own"
        )


def _unclear(shape: tuple[int, ...]) -> str:
    return (
        f"axes of the array of shape {shape} are unclear; set axes= to one letter for each dimension, "
        "for example axes='CYX' or axes='YXC'"
    )
