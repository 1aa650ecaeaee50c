"""Images and labels from files, and results into files."""

from .overlay import draw_outlines, write_overlay
from .read import DEFAULT_MAX_PIXELS, Image, read_image, read_labels
from .write import atomic_path, stem, write_labels

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "Image",
    "atomic_path",
    "draw_outlines",
    "read_image",
    "read_labels",
    "stem",
    "write_labels",
    "write_overlay",
]
