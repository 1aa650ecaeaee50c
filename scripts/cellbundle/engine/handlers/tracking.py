"""Feeds a tracker from a training."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ignite.engine import Engine, Events

from ...record import BEST
from ...report.curves import write_curves
from ...tracking.tracker import Tracker
from .training import History

logger = logging.getLogger(__name__)

CURVES, SAMPLES = "curves.png", "samples.png"  # beside history.csv
CHECKPOINTS = "checkpoints"  # folder of the run
SMALL = 100_000_000  # bytes of a model that is uploaded while the training runs
MINUTES = 10.0  # between two uploads of files
STEP = "step"  # what the names of series by step begin with; those by epoch are called as in history.csv


class Rows(Protocol):
    """What an ``EpochLog`` reads: rows of a history, and the CSV file that they are kept in."""

    path: Path
    rows: list[dict[str, float]]


class EpochLog:
    """Logs the row of each epoch, and now and then the files of a training.

    Args:
        tracker: with an open run.
        history: of the training; its rows are logged, and the files that stand beside it.
        minutes: files are logged after validations, at most once in so many minutes.
    """

    def __init__(self, tracker: Tracker, history: Rows, minutes: float = MINUTES) -> None:
        self.tracker, self.rows, self.minutes = tracker, history, minutes
        self._uploaded = time.monotonic()
        self._model_time = 0.0

    def log_rows(self) -> None:
        """Log what a process that ended before the last row arrived left in the checkpoint."""
        for row in self.rows.rows:
            self.tracker.log(*epoch_values(row))

    def log_epoch(self) -> None:
        """Log the last row."""
        row = self.rows.rows[-1]
        self.tracker.log(*epoch_values(row))
        validated = any(name.startswith("val_") for name in row)
        if validated and time.monotonic() - self._uploaded >= 60 * self.minutes:
            self.log_files(largest=SMALL)
            self._uploaded = time.monotonic()

    def log_files(self, largest: float = float("inf")) -> None:
        """Log the files of the training; the best model if it changed and has at most ``largest`` bytes."""
        if not self.tracker.is_open:
            return
        folder = self.rows.path.parent
        try:
            write_curves(self.rows.rows, folder / CURVES)
        except Exception as error:  # noqa: BLE001  (a picture is not worth a training)
            logger.warning("tracking: no %s: %s: %s", CURVES, type(error).__name__, error)
        for path in (self.rows.path, folder / CURVES, folder / SAMPLES):
            if path.is_file():
                self.tracker.log_file(path)
        model = folder / BEST
        if model.is_file() and model.stat().st_size <= largest and model.stat().st_mtime > self._model_time:
            self._model_time = model.stat().st_mtime
            self.tracker.log_file(model, CHECKPOINTS)


class TrackingHandler(EpochLog):
    """Logs a training of MONAI: besides what ``EpochLog`` does, losses and learning rates of each step.

    Args:
        tracker: with an open run.
        history: of the training.
        minutes: see ``EpochLog``.
    """

    def __init__(self, tracker: Tracker, history: History, minutes: float = MINUTES) -> None:
        super().__init__(tracker, history, minutes)
        self.history = history
        self._rates: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the history."""
        self.log_rows()
        engine.add_event_handler(Events.ITERATION_STARTED, self._note_rates)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._log_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self.log_epoch())

    def _note_rates(self, engine: Engine) -> None:
        groups = self.history.optimizer.param_groups
        self._rates = {f"learning_rate_{i}" if i else "learning_rate": group["lr"] for i, group in enumerate(groups)}

    def _log_step(self, engine: Any) -> None:
        terms = getattr(engine.loss_function, "terms", {})
        values = {"loss": engine.state.output["loss"].item(), **terms, **self._rates}
        prefix = f"{phase_prefix(self.history.phase)}{STEP}/"
        self.tracker.log({prefix + name: value for name, value in values.items()}, engine.state.iteration)


def phase_prefix(phase: int) -> str:
    """What names begin with in a training of several phases, each of which counts from 1; phase 0 is no phase."""
    return f"phase{phase}/" if phase else ""


def epoch_values(row: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """Values and step of a row of a history: its epoch."""
    prefix = phase_prefix(int(row.get("phase", 0)))
    return {prefix + name: value for name, value in row.items() if name not in ("phase", "epoch")}, int(row["epoch"])
