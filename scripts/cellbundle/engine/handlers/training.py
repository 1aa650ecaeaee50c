"""Handlers that MONAI and ignite do not have in this form."""

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping, ProgressBar
from monai.engines import Evaluator
from monai.handlers import ValidationHandler
from torch import nn

from ...distributed import broadcast_buffers, gather, rank
from ...errors import TrainingError
from ...flags import as_bool
from ...io.table import write_rows
from ..schedule import is_validation_epoch

logger = logging.getLogger(__name__)

Handler = TypeVar("Handler")


def register_handler(engine: Engine, handler: Any) -> None:
    """Let other handlers of the same engine find this one with ``find_handler``; called when it is attached."""
    vars(engine.state).setdefault("handlers", []).append(handler)


def find_handler(engine: Engine, kind: type[Handler]) -> Handler | None:
    """Return the handler of class ``kind`` that was attached to an engine last, or None.

    Handlers find each other here and not by their position in the configuration: MONAI Label inserts one of its own.
    """
    handlers = getattr(engine.state, "handlers", [])
    return next((handler for handler in reversed(handlers) if isinstance(handler, kind)), None)


class ScheduledValidation(ValidationHandler):
    """Validates after the epochs that ``is_validation_epoch`` names.

    Args:
        validator: the evaluator.
        interval: epochs between validations at the start.
        max_epochs: epochs of the run.
        network: its buffers are made equal in all processes first.
    """

    def __init__(self, validator: Evaluator, interval: int, max_epochs: int, network: nn.Module) -> None:
        super().__init__(interval=interval, validator=validator)
        self.max_epochs, self.network = max_epochs, network

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        due = Events.EPOCH_COMPLETED(
            event_filter=lambda _, epoch: is_validation_epoch(epoch, self.max_epochs, self.interval)
        )
        engine.add_event_handler(due, self)

    def __call__(self, engine: Engine) -> None:
        """Validate once."""
        broadcast_buffers(self.network)
        super().__call__(engine)


class EarlyStop:
    """Stops the trainer after ``patience`` validations without a better key metric; 0 never stops.

    Args:
        validator: the evaluator whose key metric counts.
        patience: number of validations.
        min_epochs: validations before the end of this epoch do not count against the patience.
    """

    def __init__(self, validator: Evaluator, patience: int, min_epochs: int = 0) -> None:
        self.validator, self.patience, self.min_epochs = validator, patience, min_epochs
        self.stopper: EarlyStopping | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        register_handler(engine, self)
        if self.patience > 0:
            self.stopper = EarlyStopping(self.patience, self._score, engine)
            self.validator.add_event_handler(Events.COMPLETED, self._judge, self.stopper)

    def _score(self, validator: Any) -> float:
        return float(validator.state.metrics[validator.state.key_metric_name])

    def _judge(self, validator: Engine, stopper: EarlyStopping) -> None:
        if stopper.trainer.state.epoch >= self.min_epochs:
            stopper(validator)
        else:  # too early to stop, but a better score counts
            best, score = stopper.best_score, self._score(validator)
            stopper.best_score = score if best is None else max(best, score)


class LowAccuracyGuard:
    """Stops a training that learns nothing: an error if the best key metric is still below ``lowest``.

    It looks after max(``epochs``, ``share`` of all epochs) epochs and, without a validation until then, later.

    Args:
        validator: the evaluator whose best key metric counts.
        max_epochs: epochs of the run.
        enabled: False never stops.
        lowest: best key metric that is taken for a sign of life.
        epochs: so many epochs are always allowed.
        share: share of all epochs that is always allowed.
    """

    def __init__(
        self,
        validator: Evaluator,
        max_epochs: int,
        enabled: bool = True,
        lowest: float = 0.01,
        epochs: int = 20,
        share: float = 0.25,
    ) -> None:
        self.validator, self.enabled, self.lowest = validator, as_bool(enabled), lowest
        self.allowed = max(epochs, share * max_epochs)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates."""
        if self.enabled:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Raise ``TrainingError`` if the accuracy is too low."""
        state = self.validator.state
        if engine.state.epoch >= self.allowed and state.best_metric_epoch >= 0 and state.best_metric < self.lowest:
            raise TrainingError(
                f"after {engine.state.epoch} epochs the best {state.key_metric_name} is {state.best_metric:.4f}, "
                f"expected at least {self.lowest}; lower learning_rate and check the labels, or set stop_on_lowacc to "
                "False"
            )


class History:
    """One row an epoch: loss, learning rate, seconds and, where it ran, the validation; logged and kept in a CSV file.

    Args:
        path: the CSV file, rewritten after each epoch; by ``TrainingCheckpoint``, if the trainer has one.
        validator: the evaluator whose metrics are kept.
        optimizer: whose learning rate is kept; the groups beyond the first as ``learning_rate_1`` and so on.
        loss_function: its attribute ``terms``, the parts of the last loss by name, is kept too if it has one.
        phase: of a training of several phases, each of which counts its epochs from 1; 0 for one phase.

    Attributes:
        rows: of the epochs that are complete.
        losses: of this process in the current epoch.
        writes: whether it writes the file itself.
    """

    def __init__(
        self,
        path: str,
        validator: Evaluator,
        optimizer: torch.optim.Optimizer,
        loss_function: nn.Module | None = None,
        phase: int = 0,
    ) -> None:
        self.path, self.validator, self.optimizer = Path(path), validator, optimizer
        self.loss_function, self.phase = loss_function, phase
        self.rows: list[dict[str, float]] = []
        self.writes = True
        self.losses: list[dict[str, float]] = []
        self._is_resumed = False
        self._rates: dict[str, float] = {}
        self._started = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates."""
        register_handler(engine, self)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._note_rate)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def state_dict(self) -> dict[str, Any]:
        """All rows, and what is known of an epoch that is not complete; the losses of each process come on top."""
        return {"rows": self.rows, "rates": self._rates, "seconds": time.monotonic() - self._started}

    def load_state_dict(self, state: Any, losses: list[dict[str, float]]) -> None:
        """Go on with rows, and with an epoch that was interrupted.

        Args:
            state: of ``state_dict``; rows alone in checkpoints of former versions.
            losses: of this process in that epoch.
        """
        state = {"rows": state} if isinstance(state, list) else state
        self.rows, self._rates = state.get("rows", []), state.get("rates", {})
        self.losses, self._is_resumed = losses, bool(losses)
        self._started = time.monotonic() - state.get("seconds", 0.0)
        if rank() == 0 and self.rows:
            self.write()  # the process may have ended before it came to this

    def _start(self, engine: Engine) -> None:
        if not self._is_resumed:
            self.losses, self._started = [], time.monotonic()
        self._is_resumed = False

    def _note_rate(self, engine: Engine) -> None:
        groups = self.optimizer.param_groups
        self._rates = {f"learning_rate_{i}" if i else "learning_rate": group["lr"] for i, group in enumerate(groups)}

    def _note_loss(self, engine: Engine) -> None:
        terms = getattr(self.loss_function, "terms", {})
        loss = engine.state.output["loss"]  # type: ignore[index, call-overload]
        self.losses.append({"loss": loss.item(), **{name: float(value) for name, value in terms.items()}})

    def _finish(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        losses = [loss for part in gather(self.losses) for loss in part if math.isfinite(loss["loss"])]
        names = losses[0] if losses else {"loss": math.nan}
        row: dict[str, float] = {"phase": self.phase} if self.phase else {}
        row["epoch"] = epoch
        row |= {name: sum(loss[name] for loss in losses) / len(losses) if losses else math.nan for name in names}
        row |= {**self._rates, "seconds": round(time.monotonic() - self._started, 2)}
        if self.validator.state.epoch == epoch:
            row |= {f"val_{name}": value for name, value in self.validator.state.metrics.items()}
        self.rows = [r for r in self.rows if (r.get("phase", 0), r["epoch"]) < (self.phase, epoch)] + [row]
        logger.info("%s", ", ".join(f"{k} {v:.4g}" for k, v in row.items()))
        self.losses, self._is_resumed = [], False
        if rank() == 0 and self.writes:
            self.write()

    def write(self) -> None:
        """Write the CSV file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        write_rows(self.path, columns, ([row.get(name) for name in columns] for row in self.rows))


class Progress:
    """A progress bar on stderr, in process 0 and only where somebody looks at a terminal.

    Args:
        name: what the bar says.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Attach to any engine."""
        if rank() == 0 and sys.stderr.isatty():
            ProgressBar(desc=self.name).attach(engine, output_transform=_loss_of)


def _loss_of(output: Any) -> dict[str, float]:
    return {"loss": float(output["loss"])} if isinstance(output, dict) and "loss" in output else {}
