# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' training loop, with our fitness, history and checkpoints. Import it after ``require_ultralytics``."""

import logging
import math
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils.torch_utils import unwrap_model

from cellbundle import distributed
from cellbundle.engine.preemption import asked
from cellbundle.errors import TrainingError

from .training_files import TrainingFiles

logger = logging.getLogger(__name__)

MAP50_SHARE = 0.1  # of the fitness; the rest is the AP over the IoU 0.5 to 0.95
MAX_RETRIES = 3  # of an epoch whose loss is not finite
SCORES = {
    "val_box_map50": "metrics/mAP50(B)",
    "val_box_map": "metrics/mAP50-95(B)",
    "val_box_precision": "metrics/precision(B)",
    "val_box_recall": "metrics/recall(B)",
    "val_mask_map50": "metrics/mAP50(M)",
    "val_mask_map": "metrics/mAP50-95(M)",
    "val_mask_precision": "metrics/precision(M)",
    "val_mask_recall": "metrics/recall(M)",
}


def mask_fitness(metrics: Mapping[str, float]) -> float:
    """What chooses the best weights: 0.1 of the mAP50 and 0.9 of the mAP50-95 of the masks."""
    return MAP50_SHARE * metrics["metrics/mAP50(M)"] + (1 - MAP50_SHARE) * metrics["metrics/mAP50-95(M)"]


class SegmentationRun(SegmentationTrainer):
    """One training.

    The name has no "Trainer" in it on purpose: ultralytics gives its trackers, which log without being asked, to all
    classes that have.

    Args:
        arguments: of ultralytics, by its names.
        model: a ``SegmentationModel``, which is copied and not changed.
        files: where the results go.
        state: of ``latest.pt``, to go on from; None starts anew.
    """

    def __init__(
        self, arguments: Mapping[str, Any], model: nn.Module, files: TrainingFiles, state: Mapping[str, Any] | None
    ) -> None:
        self.files, self.state = files, state
        super().__init__(overrides=dict(arguments))
        self.model = deepcopy(model)
        self.improved = False
        self.epoch_started, self.batches = time.monotonic(), 0

    # what ultralytics calls

    def check_resume(self, overrides: Mapping[str, Any]) -> None:
        """Resume from our state only, never from a pickle."""
        self.resume = self.state is not None

    def get_dataset(self) -> dict[str, Any]:
        """The content of ``data.yaml`` with whole paths; ultralytics' own reader would download a font."""
        file = Path(self.args.data)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        folders = {split: str(file.parent / content[split]) for split in ("train", "val")}
        return {**content, **folders, "path": file.parent, "nc": len(content["names"]), "channels": 3}

    def run_callbacks(self, event: str) -> None:
        """Time the epochs and log the steps; none of ultralytics' own callbacks, which track and report, is run."""
        if event == "on_train_epoch_start":
            self.epoch_started, self.batches = time.monotonic(), 0
        elif event == "on_train_batch_end":
            self.batches += 1
            step = self.epoch * len(self.train_loader) + self.batches
            self.files.log.log_step(self.loss_items, self.optimizer.param_groups[0]["lr"], step)

    def resume_training(self, ckpt: Any) -> None:
        """Bring everything back to the end of the last complete epoch; ``ckpt`` is of ultralytics, and None here."""
        if self.state is not None:
            self._load(self.state)
            if distributed.rank() == 0:  # whose random numbers they are; the others must draw others
                self.files.restore_random(self.state, self.train_loader.generator)

    def validate(self) -> tuple[Any, Any]:
        """Validate with the fitness of masks alone; among equals, the later epoch is the best one."""
        before = self.best_fitness
        metrics, _ = super().validate()
        if metrics is None:  # another process than the first
            return None, None
        fitness = mask_fitness(metrics)
        self.improved = before is None or fitness >= before
        self.best_fitness = fitness if self.improved else before
        return metrics, fitness

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add the row of an epoch to ``history.csv``, instead of to a file of ultralytics."""
        # Only networks with a branch for semantic segmentation (yolo26) have a sem_loss.
        losses = {name: float(value) for name, value in self.tloss.items() if name != "sem_loss" or float(value)}
        row = {"epoch": self.epoch + 1, "loss": sum(losses.values()), **losses}
        row |= {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        row |= {"seconds": round(time.monotonic() - self.epoch_started, 2)}
        row |= {ours: float(metrics[theirs]) for ours, theirs in SCORES.items()}
        row |= {"val_fitness": float(self.fitness)}
        row |= {f"val_{name}": float(metrics[f"val/{name}"]) for name in losses if f"val/{name}" in metrics}
        self.files.add_row(row)
        self.files.log.log_theirs(metrics, self.epoch + 1)

    def save_model(self) -> bool:
        """Write ultralytics' two files and all of ours; called in the first process only."""
        super().save_model()
        self.files.save_weights(self.ema.ema, self.epoch + 1, best=self.improved, final=bool(self.stop))
        stopper = {"best_fitness": float(self.stopper.best_fitness), "best_epoch": self.stopper.best_epoch}
        self.files.save_state(
            {
                "epoch": self.epoch + 1,
                "model": unwrap_model(self.model).state_dict(),
                "ema": self.ema.ema.state_dict(),
                "updates": self.ema.updates,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best_fitness": float(self.best_fitness),
                "stopper": stopper,
            },
            self.train_loader.generator,
        )
        self.stop |= asked()  # ultralytics tells the other processes
        return True

    def final_eval(self) -> None:
        """Nothing: the shared scores of the testing images follow."""

    def _load(self, state: Mapping[str, Any]) -> None:
        average = deepcopy(self.ema.ema)
        average.load_state_dict(state["ema"])
        unwrap_model(self.model).load_state_dict(state["model"])
        super().resume_training({**state, "ema": average, "epoch": state["epoch"] - 1})

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Repeat an epoch whose loss is not finite from the end of the one before, with other random numbers.

        Raises:
            TrainingError: if that does not help.
        """
        values = [self.loss.item()] + ([] if self.fitness is None else [self.fitness])
        if distributed.all_true(all(map(math.isfinite, values)), self.device):
            return False
        self.nan_recovery_attempts += 1
        if self.nan_recovery_attempts > MAX_RETRIES:
            raise TrainingError(
                f"the loss or the scores of epoch {epoch + 1} are not finite, for {self.nan_recovery_attempts} times; "
                "lower learning_rate, set amp to False, or check the images, and start anew"
            )
        start, resume = self.start_epoch, self.resume
        if epoch == start and self.state is None:
            logger.warning("the loss of the first epoch is not finite; there is nothing to go back to")
            return False
        logger.warning("the loss of epoch %d is not finite; it is repeated", epoch + 1)
        self._model_train()
        self.resume = True  # the method that loads a state does so only then
        self._load(self.files.read_state())
        self.start_epoch, self.resume, self.scheduler.last_epoch = start, resume, epoch - 1
        return True

    def _setup_train(self) -> None:
        """Prepare all, but without ultralytics' check of float16, which downloads a network."""
        check = engine.check_amp
        engine.check_amp = lambda model: True
        try:
            super()._setup_train()
        finally:
            engine.check_amp = check

    def _setup_ddp(self) -> None:
        """Take the process group that torchrun announced and the workflow has joined."""
        self.device, self.accelerator = torch.device("cuda", torch.cuda.current_device()), torch.cuda
