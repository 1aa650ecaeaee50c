"""Images in requests, label maps in answers: texts on both sides, since JSON holds no bytes."""

import base64
import binascii
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ArrayError, ConfigError, ImageReadError
from ..io import read_image

FORMATS = ("png", "list")
LARGEST_ID = 65535  # that a 16-bit PNG holds


def read_encoded(text: Any, max_pixels: int) -> NDArray[np.float32]:
    """Image of a base64 text.

    Args:
        text: the bytes of a PNG, JPEG, BMP or TIFF file in base64, with or without ``data:image/png;base64,`` in front.
        max_pixels: as in ``cellbundle.io.read_image``; more are refused before they are decoded.

    Returns:
        (C, H, W) float32, in the units of the file.

    Raises:
        ImageReadError: if it is no such image. The message names no file or folder of this machine.
    """
    if not isinstance(text, str):
        raise ImageReadError(f"is {type(text).__name__}, expected the bytes of an image file as a base64 text")
    _, _, encoded = text.rpartition(",")
    try:
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageReadError(f"is not base64 ({error}); encode the bytes of an image file") from None
    with tempfile.TemporaryDirectory() as folder:  # the readers of TIFF files want to seek in a file
        path = Path(folder) / "image"
        path.write_bytes(content)
        try:
            return read_image(path, max_pixels=max_pixels).data
        except ImageReadError as error:
            raise ImageReadError(str(error).removeprefix(f"{path}: ").replace(str(path), "the image")) from None


def describe_labels(labels: NDArray[np.int32], form: str) -> dict[str, Any]:
    """A label map as JSON can hold it.

    Args:
        labels: (H, W) ids, 0 background, 1..N.
        form: ``"png"`` for a 16-bit greyscale PNG in base64, ``"list"`` for rows of numbers.

    Returns:
        ``labels`` in that form, ``shape`` [H, W] and ``n``, the number of instances.

    Raises:
        ConfigError: for another form.
        ArrayError: if there are more instances than a PNG holds.
    """
    if form not in FORMATS:
        raise ConfigError(f"format is {form!r}; choose one of {', '.join(FORMATS)}")
    n = int(labels.max(initial=0))
    if form == "list":
        return {"labels": labels.tolist(), "shape": list(labels.shape), "n": n}
    if n > LARGEST_ID:
        raise ArrayError(f"{n} instances are more than a 16-bit PNG holds; ask for the format list")
    buffer = BytesIO()
    Image.fromarray(labels.astype(np.uint16)).save(buffer, "PNG")
    return {"labels": base64.b64encode(buffer.getvalue()).decode(), "shape": list(labels.shape), "n": n}
