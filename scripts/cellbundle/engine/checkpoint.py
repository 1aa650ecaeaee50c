"""Checkpoints: the best and the last weights, and the full state that training resumes from."""

import errno
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import CheckpointError, ConfigError
from ..flags import as_bool
from ..io.ownership import STATE
from ..io.write import TEMPORARY, atomic_path
from ..record import BEST, FINAL, LATEST, PREVIOUS

logger = logging.getLogger(__name__)

WEIGHTS_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves either the old file or the complete new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(path, sync=True) as temporary:
            torch.save(content, temporary)
            if path.name == LATEST and path.is_file():
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())  # before the good one gets another name
                path.replace(path.with_name(PREVIOUS))
    except (OSError, RuntimeError) as error:  # torch has errors of its own for a full disk
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CheckpointError(
            f"{path} cannot be written ({error}); the checkpoint before is kept, so make room and give --resume True"
        ) from error


def can_resume(folder: Path) -> bool:
    """Whether a folder has a checkpoint to go on from."""
    return (folder / LATEST).is_file() or (folder / PREVIOUS).is_file()


def read_state(folder: Path) -> tuple[dict[str, Any], Path]:
    """State of a training and its file: ``latest.pt``, or ``previous.pt`` if that is missing or damaged.

    Raises:
        CheckpointError: if neither is there or can be read.
    """
    problems = []
    for path in (folder / LATEST, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - a damaged file raises anything
            problems.append(f"{path} is damaged ({type(error).__name__})")
            continue
        if problems:
            logger.warning("%s; going on from %s, the checkpoint before", problems[0], path)
        return state, path
    reason = "; ".join(problems) or f"{folder / LATEST} does not exist"
    raise CheckpointError(f"{reason}, so there is nothing to resume; start without --resume")


def remove_temporary(folder: Path) -> None:
    """Remove files that a killed training was writing."""
    for path in [*folder.glob(".*"), *(folder / STATE).glob(".*")]:
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def remove_weights(folder: Path) -> None:
    """Remove the weights of another training, which a new one replaces: none of them may be taken for its own."""
    for name in (BEST, FINAL, LATEST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


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
    if not can_resume(Path(folder)):
        return None
    return int(read_state(Path(folder))[0].get("phase", 0))


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
