"""Points of curves, and which of them are still missing somewhere."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Point(NamedTuple):
    """One value of a metric.

    Attributes:
        key: name of the metric.
        value: a number; may be NaN or infinite.
        time: when it was logged, in milliseconds since 1970. It never changes, so that sending it twice is sending it
            once.
        step: whole number.
    """

    key: str
    value: float
    time: int
    step: int


class Steps:
    """A set of whole numbers that takes little memory where they follow each other."""

    def __init__(self, steps: Iterable[int] = ()) -> None:
        self.starts: list[int] = []  # of runs of numbers, ascending
        self.ends: list[int] = []
        for step in sorted(steps):
            self.add(step)

    def __contains__(self, step: int) -> bool:
        run = bisect_right(self.starts, step) - 1
        return run >= 0 and step <= self.ends[run]

    def add(self, step: int) -> None:
        """Add a number."""
        if step in self:
            return
        run = bisect_right(self.starts, step)
        follows = run > 0 and self.ends[run - 1] == step - 1
        precedes = run < len(self.starts) and self.starts[run] == step + 1
        if follows and precedes:
            self.ends[run - 1] = self.ends.pop(run)
            del self.starts[run]
        elif follows:
            self.ends[run - 1] = step
        elif precedes:
            self.starts[run] = step
        else:
            self.starts.insert(run, step)
            self.ends.insert(run, step)


def missing(points: Iterable[Point], known: Mapping[str, Steps]) -> list[Point]:
    """The first point of each metric and step that is not known."""
    first: dict[tuple[str, int], Point] = {}
    for point in points:
        if point.key not in known or point.step not in known[point.key]:
            first.setdefault((point.key, point.step), point)
    return list(first.values())
