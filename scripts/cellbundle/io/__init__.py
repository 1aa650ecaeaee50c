"""Images and labels from files, and results into files."""

from ..errors import first_few, printable
from .images.ome_set import find_ome_set
from .images.read import DEFAULT_MAX_PIXELS, IMAGE_SUFFIXES, Exif, Image, as_image, read_image, read_labels
from .overlay import draw_outlines, write_overlay, write_preview
from .write import atomic_path, stem, write_image, write_labels

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "Exif",
    "Image",
    "as_image",
    "atomic_path",
    "draw_outlines",
    "find_ome_set",
    "first_few",
    "printable",
    "read_image",
    "read_labels",
    "stem",
    "write_image",
    "write_labels",
    "write_overlay",
    "write_preview",
]
