"""The errors that users see. Every message says what was got, what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class CellBundleError(Exception):
    """Base of all errors that this package raises on purpose."""


class ArrayError(CellBundleError, ValueError):
    """An array has a shape, dtype or content that a function cannot work with."""


class ImageReadError(CellBundleError):
    """An image file cannot be read, or its axes are unclear."""


class ImageTooLargeError(ImageReadError):
    """An image has more pixels than may be decoded."""


class LabelReadError(CellBundleError):
    """A label file cannot be read, or does not hold one id per instance."""


class DatalistError(CellBundleError):
    """A datalist is malformed, names missing files, or leaks between splits."""


class DatasetError(CellBundleError):
    """A public or own data set is incomplete, damaged, another one than expected, or cannot be fetched."""


class ConfigError(CellBundleError):
    """A configuration key or value is not known or not valid."""


class CheckpointError(CellBundleError):
    """A checkpoint is missing, damaged, or belongs to another network."""


class DependencyError(CellBundleError, ImportError):
    """An optional package is needed and not installed."""


class TrainingError(CellBundleError):
    """Training cannot go on (for example, the loss is not finite any more)."""


@contextmanager
def original_errors() -> Iterator[None]:
    """Raise the errors of this package and of the file system themselves; MONAI wraps what a transform raises."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, CellBundleError | OSError):
                raise cause from None
            cause = cause.__cause__
        raise
