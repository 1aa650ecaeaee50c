"""Training in two phases that follow each other in one command, each with its own epochs, rates and batch size.

The configuration says ``phase`` (both, 1 or 2) and derives all that differs from ``phase_now`` (1, 2, or 0 outside of
training); each phase parses it anew.
"""

import gc
import logging
import shutil
from pathlib import Path
from typing import Any

from .. import distributed
from ..errors import CheckpointError, ConfigError
from ..flags import as_bool
from ..io import atomic_path
from ..record import BEST, LATEST
from .checkpoint import stored_phase
from .handlers import History
from .network import find_weights
from .runs import AUTO
from .workflow import CellWorkflow

logger = logging.getLogger(__name__)

PHASES = {"both": (1, 2), "1": (1,), "2": (2,)}
FIRST = "model_phase1.pt"  # the best weights of phase 1, which phase 2 starts from


def first_phase(phase: str | int, mode: str, ckpt_path: str, resume: bool = False) -> int:
    """Phase that a command begins with.

    Args:
        phase: both, 1 or 2.
        mode: train, eval or infer.
        ckpt_path: folder of the checkpoints.
        resume: continue from ``latest.pt``, which names its phase.

    Returns:
        1 or 2; 0 if nothing is trained.

    Raises:
        ConfigError: for another phase.
        CheckpointError: if the phase of ``latest.pt`` is not wanted.
    """
    if str(phase) not in PHASES:
        raise ConfigError(f"phase is {phase!r}; choose one of {', '.join(PHASES)}")
    if mode != "train":
        return 0
    wanted = PHASES[str(phase)]
    stored = stored_phase(ckpt_path) if as_bool(resume) else None
    if stored is None:
        return wanted[0]
    if stored not in wanted:
        raise CheckpointError(
            f"{Path(ckpt_path) / LATEST} was written in phase {stored}; resume with --phase both or --phase {stored}"
        )
    return stored


def phase_weights(
    phase_now: int, mode: str, ckpt_path: str, name: str | None = None, path: str | None = None, resume: bool = False
) -> str | None:
    """``find_weights``, but that phase 2 starts from the best weights of phase 1 if no others are named.

    Raises:
        CheckpointError: if the file does not exist.
    """
    if phase_now == 2 and not as_bool(resume) and name is None and path is None:
        file = Path(ckpt_path) / FIRST
        if not file.is_file():
            raise CheckpointError(
                f"{file} does not exist, and phase 2 starts from the weights of phase 1; train with --phase both, or "
                "name a file with --pretrained_ckpt_path"
            )
        return str(file)
    return find_weights(mode, ckpt_path, name, path, resume)


class PhasedWorkflow(CellWorkflow):
    """A workflow whose training has phases; ``model.pt`` is the best of all of them."""

    def training_files(self) -> list[Path]:
        """Also the best weights of phase 1, which stay when phase 2 goes on."""
        first = [Path(self.content("ckpt_path")) / FIRST] if self.content("phase_now") == 1 else []
        return [*super().training_files(), *first]

    def _decide_resume(self) -> None:
        if self.content("resume") == AUTO:  # the second phase of a folder begins where the first one ended
            stored, phase = stored_phase(self.content("ckpt_path")), str(self.content("phase"))
            if stored is not None and phase in PHASES and stored < min(PHASES[phase]):
                self.parser["resume"] = False
        super()._decide_resume()

    def _train(self) -> None:
        first = self.content("phase_now")
        for phase in (p for p in PHASES[str(self.content("phase"))] if p >= first):
            if phase != first:
                self._go_on(phase)
            logger.info("phase %d", phase)
            self._fit()
            if phase == 1:
                self._keep_first()
        if self.content("final_test"):
            self._parse(phase_now=0)
            self._final_test()

    def _keep_first(self) -> None:
        """Copy the best weights so far to where phase 2 finds them, whatever it does to ``model.pt``."""
        if distributed.rank() == 0:
            folder = Path(self.content("ckpt_path"))
            with atomic_path(folder / FIRST) as temporary:
                shutil.copyfile(folder / BEST, temporary)
        distributed.barrier()

    def _go_on(self, phase: int) -> None:
        """Build everything for the next phase; the history and the best score of the last one are carried over."""
        best, rows = self.content("validate#evaluator").state.best_metric, self.handler(History).rows
        self._parse(phase_now=phase, resume=False, pretrained_ckpt_path=None, pretrained_ckpt_name=None)
        state = self.content("validate#evaluator").state
        state.best_metric, state.best_metric_epoch = best, 0  # epoch 0: before the first, whose weights model.pt holds
        self.handler(History).rows = rows

    def _parse(self, **values: Any) -> None:
        """Parse the configuration again with other values."""
        for name, value in values.items():
            self.parser[name] = value
        gc.collect()
        self.initialize()
