"""Remarks on instances that are not in a label map as they were given."""

from ...errors import ArrayError, LabelReadError
from ...instances.painting import Painted
from ..model import Item


def remarks_on(item: Item, painted: Painted, noun: str) -> list[str]:
    """Sentences about lost and cut instances.

    Args:
        item: whose labels were painted.
        painted: the result.
        noun: what the instances are.

    Raises:
        LabelReadError: if the outlines do not belong to the image.
    """
    try:
        painted.check_frame()
    except ArrayError as error:
        raise LabelReadError(f"{item.labels[0]}: {error}") from error
    return painted.remarks(noun)
