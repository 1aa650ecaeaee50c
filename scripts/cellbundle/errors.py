"""Errors and text of messages that users see. A message says what was got, what was expected and what to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .addresses import redact_text

OUT_OF_MEMORY = ("out of memory", "allocate memory")


class CellBundleError(Exception):
    """Base of all errors that this package raises on purpose. Addresses in their messages are redacted."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact_text(arg) if isinstance(arg, str) else arg for arg in args))


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


class PreemptedError(BaseException):
    """A training was asked to stop and has written its checkpoint; no error, so nothing on the way takes it for one."""


def redact_error(error: Exception, *addresses: str) -> Exception:
    """Redact the messages of an error and of its causes, which a traceback shows too.

    Args:
        error: changed in place.
        addresses: see ``cellbundle.addresses.redact_text``.

    Returns:
        The error, or a ``CellBundleError`` in its place if its message cannot be changed. Such causes are dropped.
    """
    seen: dict[int, bool] = {id(error): True}  # causes may refer to each other
    todo: list[BaseException] = [error]
    while todo:
        link = todo.pop()
        for name in ("__cause__", "__context__"):
            cause = getattr(link, name)
            if cause is not None and id(cause) not in seen:
                seen[id(cause)] = _redacted(cause, addresses)
                todo.append(cause)
            if cause is not None and not seen[id(cause)]:
                setattr(link, name, None)
    if _redacted(error, addresses):
        return error
    return CellBundleError(redact_text(f"{type(error).__name__}: {error}", *addresses))


def _redacted(error: BaseException, addresses: tuple[str, ...]) -> bool:
    """Redact the message of an error; False if it does not come from what can be changed."""
    if redact_text(str(error), *addresses) == str(error):
        return True
    error.args = tuple(redact_text(arg, *addresses) if isinstance(arg, str) else arg for arg in error.args)
    if isinstance(error, OSError):
        for name in ("filename", "filename2"):
            if isinstance(value := getattr(error, name), str):
                setattr(error, name, redact_text(value, *addresses))
    return redact_text(str(error), *addresses) == str(error)


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Raise errors with all addresses in their messages redacted, also those of other libraries."""
    try:
        yield
    except Exception as error:
        shown = redact_error(error)
        if shown is error:
            raise
        raise shown from None


@contextmanager
def original_errors() -> Iterator[None]:
    """Raise the errors of this package and of the file system themselves; MONAI wraps those of transforms and imports.

    Errors of a copy of this package, which packaged bundles contain, are raised as the same errors of this package.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            own = _as_own(cause)
            if own is error:
                break
            if own is not None:
                raise own from None
            cause = _cause(cause) if isinstance(error, RuntimeError) or _is_import_error(error) else None
        raise


def _cause(error: BaseException) -> BaseException | None:
    """The error that led to another one."""
    return getattr(error, "value", None) if _is_import_error(error) else error.__cause__


def _is_import_error(error: BaseException) -> bool:
    """Whether MONAI could not import a class of a configuration: it uses pydoc, which wraps the error."""
    return type(error).__name__ == "ErrorDuringImport"


def _as_own(error: BaseException) -> CellBundleError | OSError | None:
    """An error of this package or of the file system itself, that of a copy of this package as its own, else None."""
    if isinstance(error, CellBundleError | OSError):
        return error
    names = [base.__name__ for base in type(error).__mro__]
    if CellBundleError.__name__ not in names:
        return None
    own: CellBundleError = next(globals()[name] for name in names if name in globals())(*error.args)
    return own.with_traceback(error.__traceback__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; PyTorch raises plain ``RuntimeError`` for it on CPU and MPS."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def printable(text: str) -> str:
    """Text that can be written as UTF-8; a byte of a file name that is not becomes a backslash and its number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_few(names: Sequence[str], most: int) -> str:
    """List the first of some names, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
