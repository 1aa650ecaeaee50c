"""Checkpoints: the best and the last weights, and the full state that training resumes from."""

import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from torch import nn

from ..errors import CheckpointError, ConfigError
from ..flags import as_bool
from ..io.write import atomic_path
from .distributed import gather, rank, world_size
from .handlers import EarlyStop, History, find_handler, register_handler

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


def check_overwrite(
    folder: str | Path, resume: Any = False, overwrite: Any = False, phase: int = 0, shown: str | None = None
) -> None:
    """Raise unless a training may write its weights to a folder, so that it never replaces those of another one.

    Args:
        folder: where the checkpoints go.
        resume: the training continues from ``latest.pt``.
        overwrite: weights may be replaced.
        phase: of a training of several phases; phase 2 continues where phase 1 ended in the same folder.
        shown: name of the folder in the message, where that is a copy of a remote one.

    Raises:
        CheckpointError: if the folder holds weights.
    """
    files = [name for name in (BEST, FINAL, LATEST) if (Path(folder) / name).is_file()]
    if not files or as_bool(resume) or as_bool(overwrite):
        return
    if phase > 1 and stored_phase(folder) == phase - 1:
        return
    raise CheckpointError(
        f"{shown or folder} holds the weights of another training ({', '.join(files)}); give another --ckpt_path, "
        "continue from latest.pt with --resume True, or replace the weights with --overwrite True"
    )


def stored_phase(folder: str | Path) -> int | None:
    """Return the phase that ``latest.pt`` of a folder is of: 0 for a training of one phase, None without a file."""
    path = Path(folder) / LATEST
    if not path.is_file():
        return None
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("phase", 0))


def best_weights(folder: str | Path) -> str | None:
    """Return the name of the best weights in a folder, or None if there are none yet."""
    return BEST if (Path(folder) / BEST).is_file() else None


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


def find_stopper(engine: Engine) -> EarlyStopping | None:
    """Return the counter of validations without a better score of a trainer that stops early, else None."""
    early_stop = find_handler(engine, EarlyStop)
    return early_stop.stopper if early_stop else None


class TrainingCheckpoint:
    """Writes the best weights (``model.pt``), the last (``model_final.pt``) and all to resume from (``latest.pt``).

    The rows of the trainer's ``History`` and the patience of its ``EarlyStop`` are kept too, if it has them.

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
        resume: bool = False,
        weights_dtype: str = "float32",
        phase: int = 0,
    ) -> None:
        self.folder, self.phase = Path(folder), phase
        self.parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
        self.network, self.validator, self.step = network, validator, step
        self.resume, self.weights_dtype = as_bool(resume), find_weights_dtype(weights_dtype)
        self.tracker: Tracker | None = None
        self.tracked: dict[str, str | None] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handlers that validate, stop early and keep the history."""
        register_handler(engine, self)
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
        history, stopper = find_handler(engine, History), find_stopper(engine)
        state |= {
            "phase": self.phase,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "best_metric": self.validator.state.best_metric,
            "best_metric_epoch": self.validator.state.best_metric_epoch,
            "scaler": self.step.scaler.state_dict() if self.step.scaler else {},
            "patience": stopper.state_dict() if stopper else {},
            "history": history.rows if history else [],
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
        history, stopper = find_handler(engine, History), find_stopper(engine)
        if stopper and state["patience"]:
            stopper.load_state_dict(state["patience"])
        if history:
            history.rows = state["history"]
        self.tracked = {name: state[name] for name in RUN_KEYS if name in state}
        if len(state["random"]) == world_size():
            set_random_state(state["random"][rank()])
        logger.info("resuming after epoch %d from %s", state["epoch"], path)
