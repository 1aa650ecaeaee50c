"""Images and label maps from files; ``_axes`` has the axis rules, ``_raster``, ``_tiff``, ``_zarr`` open formats."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ImageReadError, ImageTooLargeError, LabelReadError
from ...instances.labels import label_components, renumber
from ..regular import open_regular
from .axes import channels_first, resolve_axes
from .errors import named
from .header import Stored, n_pixels
from .no_data import NoData, clipped_channels, replace_no_data, replace_not_finite, sentences
from .ome_set import open_ome_set
from .orientation import FIRST_TRANSPOSED, UPRIGHT, turn
from .raster import open_bmp, open_jpeg, open_png
from .tiff import open_tiff
from .zarr import is_zarr, open_zarr

logger = logging.getLogger(__name__)

Exif = Literal["ignore", "apply"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".zarr"}  # of files that folders are searched for
DEFAULT_MAX_PIXELS = 2**30  # about a gigapixel: larger ones do not fit into memory, or are decompression bombs
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": open_png,
    b"\xff\xd8\xff": open_jpeg,
    b"BM": open_bmp,
    b"II*\0": open_tiff,
    b"MM\0*": open_tiff,
    b"II+\0": open_tiff,
    b"MM\0+": open_tiff,
}


@dataclass(frozen=True, eq=False)
class Image:
    """An image as a file holds it.

    Attributes:
        data: (C, H, W) float32, finite, in the units of the file (bool is 0 and 1), not rescaled.
        path: the file.
        axes: one letter for each dimension of the file's array, such as ``"YXS"`` (S: colour sample) or ``"CYX"``.
        axes_source: ``"metadata"``, ``"guess"`` (the only possible reading) or ``"option"``.
        pixel_size_um: (y, x) in µm, or None if the file does not tell.
        dtype: type of the values in the file.
        no_data: values that stood for no data, and were replaced by others.
        orientation: of EXIF, by which the pixels are not turned yet; 1: upright.
    """

    data: NDArray[np.float32]
    path: Path
    axes: str
    axes_source: str
    pixel_size_um: tuple[float, float] | None
    dtype: np.dtype
    no_data: tuple[NoData, ...] = ()
    orientation: int = UPRIGHT


def read_image(
    path: str | Path,
    *,
    axes: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    join: bool = False,
    as_stored: bool = False,
    exif: Exif = "ignore",
) -> Image:
    """Read one 2-D image: PNG, JPEG, BMP, TIFF, OME-TIFF or OME-Zarr, known by content and not by suffix.

    Palettes and CMYK become RGB; colour tables of ImageJ and OME files are for display only and are not applied. A
    channel that the file calls transparency is dropped, unless ``axes`` is given. Multi-resolution files give their
    full resolution. Values that stand for no data, as NaN does, are replaced, with a warning (``io.images.no_data``).

    Args:
        path: an image file, or the folder of an OME-Zarr image.
        axes: one letter for each dimension of the array in a TIFF or Zarr file (Y, X, C channel), where the file
            does not say or says wrong; dimensions of other letters must have length 1.
        max_pixels: largest number of pixels to decode; each started group of four channels counts once.
        join: read an OME-TIFF together with the other files of its folder that hold planes of the same image; by
            default, no other file is opened.
        exif: whether to turn the image as its EXIF orientation says. Label files are mostly drawn on one of both.
        as_stored: keep fill values and frames, as in pictures of masks; NaN and infinite values are replaced.

    Returns:
        The image, (C, H, W) float32.

    Raises:
        ImageReadError: if the file cannot be read, has no finite pixel, is a stack, or its axes are unclear; with
            ``join``, also if a file of the set is missing or not the one that the metadata name.
        DependencyError: if the file is OME-Zarr and zarr is not installed.
    """
    path = Path(path)
    with named(path, ImageReadError), _open(path, join) as stored:
        array, letters, source = _decode(path, stored, axes, max_pixels)
        data = _colours(array, stored)
        del array  # of a large image, it takes as much memory as the float32 one
        if as_stored:
            data, no_data = replace_not_finite(data)
        else:
            data, no_data = replace_no_data(data, stored.dtype, stored.no_data)
        _warn(path, no_data, data)
        if not as_stored:
            _warn_of_clipping(path, data)
        size, orientation = stored.pixel_size_um, stored.orientation
        if exif == "apply" and orientation != UPRIGHT:
            turned = np.ascontiguousarray(turn(data, orientation))
            size = size[::-1] if size and orientation >= FIRST_TRANSPOSED else size
            data, orientation = turned, UPRIGHT
        return Image(data, path, letters, source, size, stored.dtype, tuple(no_data), orientation)


def read_labels(
    path: str | Path,
    *,
    binary: Literal["refuse", "components"] = "refuse",
    axes: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> NDArray[np.int32]:
    """Read an instance label map from PNG, BMP, TIFF or OME-Zarr.

    Accepted are integers of any width and floats with whole numbers; RGB(A) with equal channels; palettes, whose
    index is the id (the grey value, if all their colours are grey). Ids are kept if they fit into int32, and numbered
    anew in the same order otherwise.

    Args:
        path: a label file.
        binary: what to do with a mask that does not tell cells apart: a 1-bit image, or one with the values 0 and
            the largest of its type (or 255). ``"refuse"`` it, or number its 8-connected ``"components"``; the
            latter also applies to every other map with a single id.
        axes: as in ``read_image``.
        max_pixels: as in ``read_image``.

    Returns:
        (H, W) int32, 0 background, one positive id for each instance, not necessarily consecutive.

    Raises:
        LabelReadError: if the file cannot be read, or does not hold one id for each instance.
        DependencyError: if the file is OME-Zarr and zarr is not installed.
    """
    path = Path(path)
    with named(path, LabelReadError), _open(path) as stored:
        if stored.lossy:
            raise LabelReadError("is compressed as JPEG, which changes ids; save labels as PNG or TIFF")
        array, _, _ = _decode(path, stored, axes, max_pixels)
        return _instances(_single_channel(array, stored), binary)


def as_image(array: NDArray, axes: str | None = None) -> NDArray[np.float32]:
    """An image in memory as ``read_image`` gives those in files.

    Args:
        array: (H, W), or (C, H, W) or (H, W, C) where only one reading is possible; bool, integer or floating.
        axes: one letter for each dimension, where it is not.

    Returns:
        (C, H, W) float32, finite.

    Raises:
        ImageReadError: if the axes are unclear, there is no pixel, or no finite one.
    """
    with named(Path("array"), ImageReadError):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
            raise ImageReadError(
                f"is {getattr(array, 'dtype', type(array).__name__)}, expected a NumPy array of real numbers"
            )
        if 0 in array.shape:
            raise ImageReadError(f"has no pixels (shape {array.shape})")
        letters, _ = resolve_axes(array.shape, _stated_by_shape(array.shape), axes)
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(channels_first(array, letters), np.float32)
        data, no_data = replace_no_data(data, array.dtype)
        _warn(Path("array"), no_data, data)
        return data


def _stated_by_shape(shape: tuple[int, ...]) -> str:
    """Letters that need no guess: of two dimensions, and of three if just the first or the last has length 1."""
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3 and (shape[0] == 1) != (shape[2] == 1):
        return "CYX" if shape[0] == 1 else "YXC"
    return "Q" * len(shape)


def _open(path: Path, join: bool = False) -> AbstractContextManager[Stored]:
    """Open a file by its first bytes."""
    if is_zarr(path):
        return open_zarr(path)
    with open_regular(path) as file:
        head = file.read(8)
    if not head:
        raise ImageReadError("is empty (0 bytes); copy or export it again")
    for signature, opener in SIGNATURES.items():
        if head.startswith(signature):
            return open_ome_set(path) if join and opener is open_tiff else opener(path)
    raise ImageReadError("is not a PNG, JPEG, BMP or TIFF image by its content; convert it to one of these")


def _decode(path: Path, stored: Stored, option: str | None, max_pixels: int) -> tuple[NDArray, str, str]:
    """Check axes and size before decoding; then (C, H, W) without alpha, letters of the axes, their source."""
    if 0 in stored.shape:
        raise ImageReadError(f"has no pixels (shape {stored.shape}); export it again")
    letters, source = resolve_axes(stored.shape, stored.axes, None if stored.fixed_axes else option)
    pixels = max(n_pixels(stored.shape, letters), stored.tile_pixels)
    if pixels > max_pixels:
        raise ImageTooLargeError(
            f"has {pixels} pixels (shape {stored.shape}), more than max_pixels={max_pixels}; "
            "raise max_pixels if the file is trusted and memory suffices, or crop the image"
        )
    array = channels_first(stored.decode(), letters)
    if not stored.alpha or source == "option":
        return array, letters, source
    *colours, alpha = array
    if all(colour.min() == colour.max() for colour in colours) and alpha.min() < alpha.max():
        logger.warning("%s: all channels are constant; the picture is in the transparency, which is left out", path)
    return array[:-1], letters, source


def _colours(array: NDArray, stored: Stored) -> NDArray[np.float32]:
    """(C, H, W) float32 intensities: palette and CMYK as RGB."""
    if stored.palette is not None:
        array = stored.palette[:, array[0].astype(np.intp)]
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is treated as such
        data = np.ascontiguousarray(array, np.float32)
    if stored.cmyk:
        full = np.float32(np.iinfo(stored.dtype).max)
        data = np.rint((full - data[:3]) * ((full - data[3:]) / full))
    return data


def _warn(path: Path, no_data: Sequence[NoData], data: NDArray[np.float32]) -> None:
    for sentence in sentences(no_data, data):
        logger.warning("%s: %s", path, sentence)


def _warn_of_clipping(path: Path, data: NDArray[np.float32]) -> None:
    for channel, one in clipped_channels(data).items():
        logger.warning("%s: channel %d is clipped: %s, its largest; intensities are too low there", path, channel, one)


def _single_channel(array: NDArray, stored: Stored) -> NDArray:
    """(H, W) ids, any dtype."""
    grey: NDArray = array[0]
    if len(array) == 3 and (array[1:] == grey).all():
        array = array[:1]
    if len(array) in (3, 4):
        raise LabelReadError(
            f"holds colours ({len(array)} channels that differ), expected one id for each instance; "
            "give each instance an integer id and save one channel"
        )
    if len(array) != 1:
        raise LabelReadError(f"has {len(array)} channels, expected 1; save the label channel as a file of its own")
    if stored.palette is not None and (stored.palette[1:] == stored.palette[0]).all():
        grey = stored.palette[0][grey.astype(np.intp)]
    return grey


def _instances(values: NDArray, binary: Literal["refuse", "components"]) -> NDArray[np.int32]:
    """(H, W) int32 ids from values of any dtype."""
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise LabelReadError(
            f"holds {values.dtype} values that are not whole numbers; give each instance an integer id"
        )
    low, high = values.min(), values.max()
    if low < 0:
        raise LabelReadError(f"holds negative ids (down to {low}), expected 0 for background and positive ids")
    single = high > 0 and ((values == 0) | (values == high)).all()
    if single and binary == "components":
        return label_components(values > 0)[0]
    largest = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 255
    if single and (values.dtype.kind == "b" or high in (255, largest)):
        raise LabelReadError(
            f"this looks like a binary mask (values 0 and {high}), expected one id for each instance; "
            "give instance labels, or set binary='components' to number its connected components"
        )
    if high > np.iinfo(np.int32).max:
        return renumber(values.astype(np.uint64))[0]
    return values.astype(np.int32)
