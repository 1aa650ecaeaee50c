"""Write the checkpoints of a training, and resume from them."""

import logging
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from torch import nn

from ...distributed import agree, gather, rank, world_size
from ...errors import CheckpointError, ConfigError, PreemptedError
from ...flags import as_bool
from ...record import BEST, FINAL, LATEST, PREVIOUS, RECORD
from ..checkpoint import (
    find_weights_dtype,
    flat_weights,
    random_state,
    read_state,
    save_atomically,
    set_random_state,
)
from ..preemption import asked
from ..steps import accumulation_window
from .training import EarlyStop, History, find_handler, register_handler

if TYPE_CHECKING:
    from ...tracking import Tracker

logger = logging.getLogger(__name__)

SAVE, STOP = 1, 2  # the processes agree on one of these, or on 0
RUN_KEYS = ("run_id", "run_key", "run_folder")  # of latest.pt, see Tracker.state_dict


def find_stopper(engine: Engine) -> EarlyStopping | None:
    """Return the counter of validations without a better score of a trainer that stops early, else None."""
    early_stop = find_handler(engine, EarlyStop)
    return early_stop.stopper if early_stop else None


class TrainingCheckpoint:
    """Writes the best weights (``model.pt``), the last (``model_final.pt``) and all to resume from (``latest.pt``).

    The state is written at the end of each epoch, within it every so many minutes, and when the process is asked to
    stop. The rows of the trainer's ``History`` and the patience of its ``EarlyStop`` are kept too, if it has them.

    Args:
        folder: where the files go.
        network: the plain network, without the wrappers of DDP or ``torch.compile``.
        optimizer: of the training.
        scheduler: of the learning rate, stepped each iteration.
        validator: evaluator whose best key metric chooses ``model.pt``.
        step: the training step, for its gradient scaler.
        resume: go on from ``latest.pt``.
        weights_dtype: "float32", or "float16" or "bfloat16" for files of half the size.
        phase: of a training of several phases; ``latest.pt`` belongs to one of them. 0 for one phase.
        minutes: between two checkpoints within an epoch; 0 for none.

    Attributes:
        tracker: set by the workflow; ``latest.pt`` says which run it belongs to.
        tracked: what the ``latest.pt`` that was loaded says of its run; empty without one.
        described: set by the workflow; there is a ``run.yaml`` of this training.
        has_stopped: the training that was loaded had stopped early.
    """

    def __init__(
        self,
        folder: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        validator: Any,
        step: Any,
        resume: bool = False,
        weights_dtype: str = "float32",
        phase: int = 0,
        minutes: float = 0,
    ) -> None:
        self.folder, self.phase = Path(folder), phase
        self.parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
        self.network, self.validator, self.step = network, validator, step
        self.resume, self.weights_dtype = as_bool(resume), find_weights_dtype(weights_dtype)
        if minutes < 0:
            raise ConfigError(f"checkpoint_minutes is {minutes}, expected a number of minutes, or 0 for none")
        self.seconds, self._saved = 60 * minutes, time.monotonic()
        self.tracker: Tracker | None = None
        self.tracked: dict[str, str | None] = {}
        self.described = False
        self._loaded: dict[str, Any] | None = None
        self.has_stopped = False
        self._before: dict[str, Any] = {}  # what a validation and the handlers behind it change

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handlers that validate, stop early and keep the history."""
        register_handler(engine, self)
        if history := find_handler(engine, History):
            history.writes = False  # after latest.pt, so that a kill between the two loses no row
        if self.resume:
            self.load(engine)
        engine.add_event_handler(Events.STARTED, self.start)
        self.validator.add_event_handler(Events.ITERATION_COMPLETED, self.check_validation, engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_epoch)
        engine.add_event_handler(Events.COMPLETED, self.save_final)

    def start(self, engine: Engine) -> None:
        """Bring back the random numbers, and end an epoch that was interrupted in its validation."""
        self._saved = time.monotonic()
        if not engine.has_event_handler(self.check_iteration):  # behind those that log the iteration
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.check_iteration)
        state, self._loaded = self._loaded, None
        if state is None:
            return
        if len(state["random"]) == world_size():
            set_random_state(state["random"][rank()])
        else:
            logger.warning(
                "%d processes go on with a training of %d: equal up to rounding and random layers",
                world_size(),
                len(state["random"]),
            )
        if state.get("validating"):
            self._note_state()
            engine.state.iteration += 1
            engine.state.epoch += 1
            engine.fire_event(Events.EPOCH_COMPLETED)

    def check_iteration(self, engine: Engine) -> None:
        """Write a checkpoint if it is time, and stop if a process was asked to."""
        last = engine.state.iteration % (engine.state.epoch_length or 1) == 0
        if last:
            self._note_state()
        wanted = self._agreed(engine, may_save=not last)
        if wanted and accumulation_window(engine)[1]:
            self.save_state(engine, engine.state.epoch - 1, validating=last)
            self._stop_if(wanted, engine)

    def _note_state(self) -> None:
        rates = [group["lr"] for group in self.parts["optimizer"].param_groups]
        self._before = {
            "random": random_state(),
            "scheduler": deepcopy(self.parts["scheduler"].state_dict()),
            "rates": rates,
        }

    def check_validation(self, validator: Engine, engine: Engine) -> None:
        """Stop in the middle of a validation, with a checkpoint from before it."""
        del validator
        if engine.state.epoch and self._agreed(engine, may_save=False) == STOP:
            self.save_state(engine, engine.state.epoch - 1, validating=True)
            self._stop_if(STOP, engine)

    def _agreed(self, engine: Any, may_save: bool) -> int:
        due = may_save and 0 < self.seconds <= time.monotonic() - self._saved
        return agree(STOP if asked() else SAVE if due and rank() == 0 else 0, engine.state.device)

    def _stop_if(self, wanted: int, engine: Engine) -> None:
        if wanted == STOP:
            raise PreemptedError(f"stopped in epoch {engine.state.epoch}, after iteration {engine.state.iteration}")

    def save_epoch(self, engine: Engine) -> None:
        """Write ``latest.pt``, before it ``model.pt`` after the best validation so far, and then the history."""
        if rank() == 0 and self.validator.state.best_metric_epoch == engine.state.epoch:
            self._save_weights(BEST)
        self.save_state(engine, engine.state.epoch)
        history = find_handler(engine, History)
        if rank() == 0 and history:
            history.write()
        if engine.state.epoch < (engine.state.max_epochs or 0) and not _has_stopped(find_stopper(engine)):
            self._stop_if(self._agreed(engine, may_save=False), engine)

    def save_state(self, engine: Any, epoch: int, *, validating: bool = False) -> None:
        """Write ``latest.pt``; called in all processes.

        Args:
            engine: the trainer.
            epoch: the last one that is complete.
            validating: all iterations of the epoch behind it are done, and only its validation is missing.
        """
        history, stopper = find_handler(engine, History), find_stopper(engine)
        own = {"random": self._before["random"] if validating else random_state()}
        own["losses"] = history.losses if history else []
        parts = gather(own)
        if rank() != 0:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        if validating:
            state["scheduler"] = self._before["scheduler"]
            for group, rate in zip(state["optimizer"]["param_groups"], self._before["rates"], strict=True):
                group["lr"] = rate
        state |= {
            "phase": self.phase,
            "epoch": epoch,
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "global_batch": _global_batch(engine),
            "validating": validating,
            "best_metric": self.validator.state.best_metric,
            "best_metric_epoch": self.validator.state.best_metric_epoch,
            "scaler": self.step.scaler.state_dict() if self.step.scaler else {},
            "bad_losses": self.step.bad_losses,
            "patience": stopper.state_dict() if stopper else {},
            "history": history.state_dict() if history else {},
            "losses": [part["losses"] for part in parts],
            "random": [part["random"] for part in parts],
        }
        state |= self.tracked | (self.tracker.state_dict() if self.tracker else {})
        save_atomically(state, self.folder / LATEST)
        self._saved = time.monotonic()

    def save_final(self, engine: Engine) -> None:
        """Write ``model_final.pt``; also ``model.pt`` if no validation ever chose one in this run."""
        del engine
        if rank() == 0:
            self._save_weights(FINAL)
            if self.validator.state.best_metric_epoch < 0:
                self._save_weights(BEST)

    def _save_weights(self, name: str) -> None:
        if not self.described:  # as in MONAI Label: what describes the weights of another training would be wrong
            (self.folder / RECORD).unlink(missing_ok=True)
        save_atomically(flat_weights(self.network, self.weights_dtype), self.folder / name)

    def load(self, engine: Any) -> None:
        """Bring everything back to where the last checkpoint was written.

        Raises:
            CheckpointError: if there is no checkpoint, or it belongs to another run.
        """
        state, path = read_state(self.folder)
        if state.get("phase", 0) != self.phase:
            raise CheckpointError(f"{path} was written in phase {state['phase']}, this is phase {self.phase}")
        here = {"epoch_length": engine.state.epoch_length, "global_batch": _global_batch(engine)}
        for name, what in (("epoch_length", "iterations an epoch"), ("global_batch", "crops a step")):
            if state.get(name, here[name]) != here[name]:
                raise CheckpointError(
                    f"{path} was written with {state[name]} {what}, this run has {here[name]}; resume with the same "
                    "data, batch size and number of processes, or with a batch size that makes up for their number"
                )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self.validator.state.best_metric = state["best_metric"]
        self.validator.state.best_metric_epoch = state["best_metric_epoch"]
        self.step.restore_scaler(engine.state.device, state["scaler"])
        self.step.bad_losses = state.get("bad_losses", 0)
        history, stopper = find_handler(engine, History), find_stopper(engine)
        if stopper and state["patience"]:
            stopper.load_state_dict(state["patience"])
        if history:
            history.load_state_dict(state["history"], _own_part(state.get("losses", [])))
        self.tracked = {name: state[name] for name in RUN_KEYS if name in state}
        done = state["iteration"] - state["epoch"] * state["epoch_length"]
        if state.get("validating"):
            engine.state.iteration -= 1  # ignite would take the epoch for complete; see ``start``
        elif done:
            engine.data_loader.sampler.skip(done * engine.data_loader.batch_size)
        self._loaded, self.has_stopped = state, _has_stopped(stopper)
        if path.name == PREVIOUS and rank() == 0:
            (self.folder / LATEST).unlink(missing_ok=True)  # damaged: it must not take the place of the good one
        where = f"epoch {state['epoch']}" + (f" and {done} of {state['epoch_length']} iterations" if done else "")
        logger.info("resuming after %s from %s", where, path)


def _has_stopped(stopper: EarlyStopping | None) -> bool:
    return stopper is not None and stopper.counter >= stopper.patience


def stop_if_asked(engine: Any) -> None:
    """Handler of an evaluation: stop behind an image if a process was asked to."""
    if agree(int(asked()), engine.state.device):
        raise PreemptedError("stopped in the final test")


def _global_batch(engine: Any) -> int:
    """Crops of a step in all processes; 0 where the loader does not say."""
    return int(getattr(engine.data_loader, "batch_size", 0) or 0) * world_size()


def _own_part(losses: list[list[Any]]) -> list[Any]:
    """What this process noted of an epoch; with another number of processes, the first one takes all."""
    if len(losses) == world_size():
        return losses[rank()]
    return [loss for part in losses for loss in part] if rank() == 0 else []
