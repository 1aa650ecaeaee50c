"""Checkpoints: the best and the last weights, and the full state that training resumes from."""

import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from ..errors import CheckpointError, ConfigError
from ..io.write import atomic_path
from .distributed import gather, rank, world_size
from .handlers import EarlyStop, History

if TYPE_CHECKING:
    from .tracking import Tracker

logger = logging.getLogger(__name__)

WEIGHTS_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BEST, FINAL, LATEST = "model.pt", "model_final.pt", "latest.pt"
RUN_KEYS = ("run_id", "run_key", "run_folder")  # of latest.pt, see Tracker.state_dict


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves either the old file or the complete new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, sync=True) as temporary:
        torch.save(content, temporary)


def find_weights_dtype(name: str) -> torch.dtype:
    """The type called ``name``; ``ConfigError`` unless weights can be kept in it."""
    if name not in WEIGHTS_DTYPES:
        raise ConfigError(f"weights_dtype is {name}, expected {', '.join(WEIGHTS_DTYPES)}")
    return WEIGHTS_DTYPES[name]


def flat_weights(network: nn.Module, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """State dict on the CPU in plain memory order, floating tensors in ``dtype`` if one is given.

    A network with adapters has a method ``merged_state_dict``, which gives the keys that it has without them.
    """
    weights = {}
    for key, value in getattr(network, "merged_state_dict", network.state_dict)().items():
        wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
        weights[key] = value.detach().to("cpu", wanted).contiguous()
    return weights


def random_state() -> dict[str, Any]:
    """State of the global random generators, in types that ``torch.load(weights_only=True)`` accepts."""
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002  (libraries use the global generator)
    name, keys, position, has_gauss, cached = legacy
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, Any]) -> None:
    """Inverse of ``random_state``."""
    name, keys, position, has_gauss, cached = state["numpy"]
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class TrainingCheckpoint:
    """Writes the best weights (``model.pt``), the last (``model_final.pt``) and all to resume from (``latest.pt``).

    Args:
        folder: where the files go.
        network: the plain network, without the wrappers of DDP or ``torch.compile``.
        optimizer: of the training.
        scheduler: of the learning rate, stepped each iteration.
        validator: evaluator whose best key metric chooses ``model.pt``.
        step: the training step, for its gradient scaler.
        early_stop: its patience is kept.
        history: its rows are kept.
        resume: go on from ``latest.pt``.
        weights_dtype: "float32", or "float16" or "bfloat16" for files of half the size.
        phase: of a training of several phases; ``latest.pt`` belongs to one of them. 0 for one phase.

    Attributes:
        tracker: set by the workflow; ``latest.pt`` says which run it belongs to.
        tracked: what the ``latest.pt`` that was loaded says of its run; empty without one.
    """

    def __init__(
        self,
        folder: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        validator: Any,
        step: Any,
        early_stop: EarlyStop,
        history: History,
        resume: bool = False,
        weights_dtype: str = "float32",
        phase: int = 0,
    ) -> None:
        self.folder, self.phase = Path(folder), phase
        self.parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
        self.network, self.validator, self.step, self.early_stop, self.history = (
            network,
            validator,
            step,
            early_stop,
            history,
        )
        self.resume, self.weights_dtype = resume, find_weights_dtype(weights_dtype)
        self.tracker: Tracker | None = None
        self.tracked: dict[str, str | None] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handlers that validate and keep the history."""
        if self.resume:
            self.load(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_epoch)
        engine.add_event_handler(Events.COMPLETED, self.save_final)

    def save_epoch(self, engine: Engine) -> None:
        """Write ``latest.pt`` and, after the best validation so far, ``model.pt``."""
        random_states = gather(random_state())
        if rank() != 0:
            return
        if self.validator.state.best_metric_epoch == engine.state.epoch:
            save_atomically(flat_weights(self.network, self.weights_dtype), self.folder / BEST)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {
            "phase": self.phase,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "best_metric": self.validator.state.best_metric,
            "best_metric_epoch": self.validator.state.best_metric_epoch,
            "scaler": self.step.scaler.state_dict() if self.step.scaler else {},
            "patience": self.early_stop.stopper.state_dict() if self.early_stop.stopper else {},
            "history": self.history.rows,
            "random": random_states,
        }
        state |= self.tracked | (self.tracker.state_dict() if self.tracker else {})
        save_atomically(state, self.folder / LATEST)

    def save_final(self, engine: Engine) -> None:
        """Write ``model_final.pt``; also ``model.pt`` if no validation ever chose one in this run."""
        if rank() == 0:
            weights = flat_weights(self.network, self.weights_dtype)
            save_atomically(weights, self.folder / FINAL)
            if self.validator.state.best_metric_epoch < 0:
                save_atomically(weights, self.folder / BEST)

    def load(self, engine: Any) -> None:
        """Bring everything back to the end of the last complete epoch.

        Raises:
            CheckpointError: if there is no ``latest.pt``, or it belongs to another run.
        """
        path = self.folder / LATEST
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist, so there is nothing to resume; start without --resume")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("phase", 0) != self.phase:
            raise CheckpointError(f"{path} was written in phase {state['phase']}, this is phase {self.phase}")
        if state["epoch_length"] != engine.state.epoch_length:
            raise CheckpointError(
                f"{path} was written with {state['epoch_length']} iterations an epoch, this run has "
                f"{engine.state.epoch_length}; "
                "resume with the same data, batch size and number of processes"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        self.validator.state.best_metric = state["best_metric"]
        self.validator.state.best_metric_epoch = state["best_metric_epoch"]
        self.step.restore_scaler(engine.state.device, state["scaler"])
        if self.early_stop.stopper and state["patience"]:
            self.early_stop.stopper.load_state_dict(state["patience"])
        self.history.rows = state["history"]
        self.tracked = {name: state[name] for name in RUN_KEYS if name in state}
        if len(state["random"]) == world_size():
            set_random_state(state["random"][rank()])
        logger.info("resuming after epoch %d from %s", state["epoch"], path)
