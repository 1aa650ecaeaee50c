"""What handlers that look at every decoded image of an evaluation have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ...flags import as_bool


class ItemHandler(ABC):
    """Base of handlers that keep something of each image of an evaluator and use all of it when the run is complete.

    Images that failed are left out.

    Args:
        enabled: False does nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = as_bool(enabled)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, lambda _: self.start())
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_all)
            engine.add_event_handler(Events.COMPLETED, lambda _: self.finish())

    def output_files(self, images: Sequence[str]) -> list[Path]:
        """Files that a run over some images may write."""
        del images
        return self.files() if self.enabled else []

    def files(self) -> list[Path]:
        """Files that an enabled handler writes."""
        return []

    @abstractmethod
    def start(self) -> None:
        """Forget an earlier run."""

    @abstractmethod
    def add(self, index: int, item: Mapping[str, Any]) -> None:
        """Keep what is needed of an image.

        Args:
            index: its number in the data set.
            item: entries of ``engine.state.output``, and those of ``engine.state.batch`` that are not there.
        """

    @abstractmethod
    def finish(self) -> None:
        """Use what was kept; called in all processes."""

    def _add_all(self, engine: Any) -> None:
        if not engine.state.output:  # the image failed
            return
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            item = {**batch, **output}
            self.add(int(item["index"]), item)
