"""Pictures to look at: the image with the outline of every instance."""

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ..errors import ArrayError
from ..instances.labels import check_labels
from .write import atomic_path

CONTRAST_PERCENTILES = (0.5, 99.8)
CONTRAST_SAMPLES = 100_000  # pixels a channel that the percentiles are taken from
# Measured on H&E at 1024²: Paeth and run lengths give the size of level 6 in a third of the time.
PNG_OPTIONS = {"level": 1, "filter": imagecodecs.PNG.FILTER.PAETH, "strategy": imagecodecs.PNG.STRATEGY.RLE}

PREVIEW_SIDE = 1024  # pixels
JPEG_QUALITY = 88

# Okabe and Ito's colours for every kind of colour vision, without black; then lighter tints of them.
OKABE_ITO = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
)
TINTS = (0.0, 0.22, 0.44)  # share of white; 7 colours and 3 tints repeat together only after 21 ids


def _outline_colours() -> NDArray[np.uint8]:
    """(21, 3) colours: two ids that follow each other differ in hue and in lightness."""
    ids = np.arange(len(OKABE_ITO) * len(TINTS))
    colours = OKABE_ITO[ids % len(OKABE_ITO)]
    tints = np.array(TINTS)[ids % len(TINTS), None]
    tinted: NDArray[np.float64] = colours + (255 - colours) * tints
    return np.rint(tinted).astype(np.uint8)


OUTLINE_COLOURS = _outline_colours()


def draw_outlines(image: NDArray, labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Draw the outline of every instance onto an image.

    An outline is the pixels of an instance that touch something else or the edge of the image, so every instance has
    one, touching ones have one each, and its colour depends on the id alone.

    Args:
        image: (C, H, W) finite, any range and dtype. One channel is shown grey, two as green and magenta, three as
            RGB with one common contrast; of more, the first three are shown, each with a contrast of its own.
        labels: (H, W) integers, 0 background.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ArrayError: if the shapes do not belong together, or ``labels`` is not a map of non-negative integers.
    """
    check_labels(labels)
    if image.ndim != 3 or 0 in image.shape or labels.shape != image.shape[1:]:
        raise ArrayError(f"expected an image (C, H, W) and labels (H, W), got shapes {image.shape} and {labels.shape}")
    picture = to_picture(image)
    outlines = np.nonzero(_inner_boundary(labels))
    picture[outlines] = OUTLINE_COLOURS[labels[outlines] % len(OUTLINE_COLOURS)]
    return picture


def write_overlay(path: str | Path, image: NDArray, labels: NDArray[np.integer]) -> None:
    """Write ``draw_outlines`` as a PNG file.

    Args:
        path: the file to write; its folder must exist.
        image: as for ``draw_outlines``.
        labels: as for ``draw_outlines``.

    Raises:
        ArrayError: as ``draw_outlines``.
        OSError: if the file cannot be written.
    """
    data = imagecodecs.png_encode(draw_outlines(image, labels), **PNG_OPTIONS)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_preview(path: str | Path, outlines_path: str | Path, image: NDArray, labels: NDArray[np.integer]) -> None:
    """Write a small picture (JPEG) and its outlines (transparent PNG of the same size), to be laid over each other.

    Args:
        path: JPEG file to write; its folder must exist.
        outlines_path: PNG file to write.
        image: as for ``draw_outlines``.
        labels: as for ``draw_outlines``.

    Raises:
        OSError: if a file cannot be written.
    """
    step = max(1, -(-max(labels.shape) // PREVIEW_SIDE))
    if step > 1:
        from skimage.transform import downscale_local_mean  # noqa: PLC0415  (slow import, only large images need it)

        image = downscale_local_mean(image, (1, step, step))
        top, left = (min(step // 2, side - 1) for side in labels.shape)
        labels = np.ascontiguousarray(labels[top::step, left::step])
        height, width = (min(a, b) for a, b in zip(image.shape[1:], labels.shape, strict=True))
        image, labels = image[:, :height, :width], labels[:height, :width]
    inside = _inner_boundary(labels)
    outlines = np.zeros((*labels.shape, 4), np.uint8)
    outlines[inside, :3] = OUTLINE_COLOURS[labels[inside] % len(OUTLINE_COLOURS)]
    outlines[inside, 3] = 255
    with atomic_path(path) as temporary:
        temporary.write_bytes(imagecodecs.jpeg8_encode(to_picture(image), level=JPEG_QUALITY))
    with atomic_path(outlines_path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(outlines, **PNG_OPTIONS))


def to_picture(image: NDArray) -> NDArray[np.uint8]:
    """(H, W, 3) picture of an image (C, H, W) with the channels and contrast of ``draw_outlines``."""
    groups = [image] if len(image) == 3 else [channel[None] for channel in image[:3]]
    shown = np.concatenate([_stretch(group) for group in groups])
    order = {1: [0, 0, 0], 2: [1, 0, 1]}.get(len(image), [0, 1, 2])
    return np.stack([shown[index] for index in order], axis=-1)


def _stretch(channels: NDArray) -> NDArray[np.uint8]:
    """Stretch (C, H, W) to 0..255 by its percentiles; by its extremes where these are equal, and a constant to 0."""
    pixels = channels[0].size
    sample = channels.reshape(len(channels), -1)[:, :: max(1, pixels // CONTRAST_SAMPLES)]
    low, high = np.percentile(sample, CONTRAST_PERCENTILES)
    if high <= low:
        low, high = float(channels.min()), float(channels.max())
    gain = 255 / (high - low) if high > low else 0.0
    stretched = (channels.astype(np.float32) - np.float32(low)) * np.float32(gain)
    return np.clip(stretched, 0, 255, out=stretched).astype(np.uint8)


def _inner_boundary(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(H, W) bool: pixels of an instance with another value, or nothing, above, below, left or right of them."""
    boundary = np.zeros(labels.shape, bool)
    boundary[[0, -1]] = boundary[:, [0, -1]] = True
    for ahead, behind in (((slice(1, None),), (slice(None, -1),)), ((..., slice(1, None)), (..., slice(None, -1)))):
        differs = labels[ahead] != labels[behind]
        boundary[ahead] |= differs
        boundary[behind] |= differs
    boundary &= labels > 0
    return boundary
