"""Progress of long steps: a bar where a person looks, nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Step = Callable[[int, int | None], None]
"""Called with what is done and, where it is known, how much there is."""
Progress = Callable[[str, str], AbstractContextManager[Step]]
"""Starts a step: its name and the unit it is counted in."""


@contextmanager
def silent(name: str, unit: str) -> Iterator[Step]:
    """Show nothing."""
    del name, unit
    yield lambda done, total: None


@contextmanager
def bar(name: str, unit: str) -> Iterator[Step]:
    """Show a bar on stderr, if that is a terminal."""
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(desc=name, unit=unit, unit_scale=unit == "B", disable=None) as shown:

        def update(done: int, total: int | None) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield update
