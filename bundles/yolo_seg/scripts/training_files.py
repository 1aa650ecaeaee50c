# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a training writes: history, weights, and the state to go on from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from cellbundle.engine.checkpoint import (
    find_weights_dtype,
    flat_weights,
    random_state,
    read_state,
    save_atomically,
    set_random_state,
)
from cellbundle.engine.handlers.checkpoint import RUN_KEYS
from cellbundle.errors import CheckpointError
from cellbundle.io.table import write_csv
from cellbundle.record import BEST, FINAL, LATEST
from cellbundle.tracking import Tracker

from .tracking import YoloLog

logger = logging.getLogger(__name__)

HISTORY = "history.csv"
FIRST = "model_first.pt"  # weights after the first epoch
EPOCH = "model_epoch_{:04d}.pt"


class TrainingFiles:
    """The files of one training; only the first process writes.

    Each is complete or not there, so that a training can be killed at any time. The history is written after the state
    that knows it, and again when a training is resumed.

    Args:
        folder: where the files go.
        network: gives the weights the names that ``network_def`` loads; its own weights are replaced.
        settings: what must be the same to go on; plain values.
        checkpoint_interval: epochs between the files ``model_epoch_NNNN.pt``; 0 writes none.
        weights_dtype: "float32", or "float16" for weights of half the size.

    Attributes:
        path: of the history.
        rows: of the history.
        log: gets what is tracked; by default nothing is.
        tracked: what the ``latest.pt`` that was read says of its run; empty without one.
    """

    def __init__(
        self,
        folder: str | Path,
        network: nn.Module,
        settings: Mapping[str, Any],
        checkpoint_interval: int = 0,
        weights_dtype: str = "float32",
    ) -> None:
        self.folder, self.network, self.settings = Path(folder), network, dict(settings)
        self.checkpoint_interval, self.weights_dtype = checkpoint_interval, find_weights_dtype(weights_dtype)
        self.path = self.folder / HISTORY
        self.rows: list[dict[str, float]] = []
        self.log = YoloLog(Tracker(None), self)
        self.tracked: dict[str, str | None] = {}

    def read_state(self) -> dict[str, Any]:
        """The state in ``latest.pt``, after its settings were compared; the history is brought back too.

        Raises:
            CheckpointError: if there is none, or it belongs to another run; the message names what differs.
        """
        state, path = read_state(self.folder)
        if "settings" not in state:
            raise CheckpointError(f"{path} is not the state of a training of yolo_seg; start without --resume")
        stored = state["settings"]
        differences = [
            f"{name} {stored.get(name)!r} instead of {value!r}"
            for name, value in self.settings.items()
            if stored.get(name) != value
        ]
        if differences:
            raise CheckpointError(
                f"{path} was written with {', '.join(differences)}; resume with the same data and options, or start "
                f"anew from its weights with --pretrained_ckpt_path {self.folder / BEST}"
            )
        self.rows = state["history"]
        self.tracked = {name: state[name] for name in RUN_KEYS if name in state}
        return dict(state)

    def restore_random(self, state: Mapping[str, Any], generator: torch.Generator) -> None:
        """Let augmentation and the order of the images go on where they were."""
        set_random_state(state["random"])
        generator.set_state(state["generator"])

    def write_history(self) -> None:
        """Write ``history.csv``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_csv(self.path, pd.DataFrame(self.rows))

    def add_row(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch, in place of those from that epoch on."""
        self.rows = [old for old in self.rows if old["epoch"] < row["epoch"]] + [dict(row)]
        logger.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        self.log.log_epoch()

    def save_weights(self, model: nn.Module, epoch: int, *, best: bool, final: bool) -> None:
        """Write the weights of an epoch to as many files as they belong in.

        Args:
            model: the inner model of the network, averaged over the steps.
            epoch: that has ended, from 1.
            best: whether none was better so far.
            final: whether none follows.
        """
        interval = self.checkpoint_interval
        wanted = {
            FIRST: epoch == 1,
            EPOCH.format(epoch): interval > 0 and epoch % interval == 0,
            BEST: best,
            FINAL: final,
        }
        self.network.model.load_state_dict(model.state_dict())
        weights = flat_weights(self.network, self.weights_dtype)
        for name in (name for name, is_wanted in wanted.items() if is_wanted):
            save_atomically(weights, self.folder / name)
        if wanted[EPOCH.format(epoch)]:
            self.log.log_checkpoint(self.folder / EPOCH.format(epoch))

    def save_state(self, state: Mapping[str, Any], generator: torch.Generator) -> None:
        """Write ``latest.pt`` and then ``history.csv``.

        Args:
            state: of the training.
            generator: draws the order of the images.
        """
        common = {"settings": self.settings, "history": self.rows, "random": random_state()}
        run = self.tracked | self.log.tracker.state_dict()
        save_atomically({**state, **common, **run, "generator": generator.get_state()}, self.folder / LATEST)
        self.write_history()
