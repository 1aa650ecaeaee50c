# SPDX-License-Identifier: AGPL-3.0-or-later
"""Training: our options become ultralytics' arguments, and its loop runs with our files."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from cellbundle import distributed
from cellbundle.device import autocast_dtype
from cellbundle.engine.preemption import asked
from cellbundle.errors import ConfigError, PreemptedError
from cellbundle.flags import as_bool
from cellbundle.tracking import Tracker

from .dataset import DatasetInfo
from .network import YoloNetwork
from .summary import write_training_summary
from .tracking import YoloLog
from .training_files import TrainingFiles
from .ultralytics_access import require_ultralytics

logger = logging.getLogger(__name__)

SMALLEST = 64  # pixels of a training image
OWN_FOLDER = "ultralytics"  # below ckpt_path: what ultralytics writes
OPTIMISERS = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD", "MuSGD")
PRECISIONS: dict[torch.dtype | None, str | bool] = {None: False, torch.float16: True, torch.bfloat16: "bf16"}
# What a resumed training may not change; all else, such as workers, may.
FIXED = ("batch", "imgsz", "lr0", "optimizer", "nbs", "cos_lr", "lrf", "warmup_epochs", "fraction")


class YoloTraining:
    """Trains a network with ultralytics.

    Args:
        network: gives its weights to the training, and is given those of the last epoch.
        dataset: what ``prepare_dataset`` gives.
        device: as chosen by ``cellbundle.device.choose_device``.
        ckpt_path: where checkpoints and the history go; what ultralytics writes goes to ``ultralytics`` in it.
        max_epochs: passes over the training images.
        batch_size: images of a step, in all processes.
        imgsz: side of the images that the network sees, in pixels; a multiple of its largest stride, mostly 32.
        learning_rate: highest one.
        seed: of order and augmentation.
        num_workers: processes that load and augment; ultralytics takes none where it computes on a CPU.
        amp: mixed precision, on CUDA.
        amp_dtype: see ``cellbundle.device.autocast_dtype``.
        compile: ``torch.compile`` the network.
        patience: epochs without a better fitness until training stops; 0 never stops.
        val_interval: must be 1: ultralytics validates after each epoch.
        checkpoint_interval: epochs between the files ``model_epoch_NNNN.pt``; 0 writes none.
        resume: go on from ``latest.pt``.
        weights_dtype: "float32", or "float16" for weights of half the size.
        arguments: groups of further arguments, by ultralytics' names.

    Attributes:
        state: ``epoch``, the last one that is complete, and ``max_epochs``.

    Raises:
        ConfigError: if an option has no meaning for ultralytics, or a value is not valid.
    """

    def __init__(
        self,
        network: YoloNetwork,
        dataset: DatasetInfo,
        device: torch.device,
        ckpt_path: str,
        max_epochs: int,
        batch_size: int = 8,
        imgsz: int = 512,
        learning_rate: float = 0.001,
        seed: int = 0,
        num_workers: int = 0,
        amp: bool = True,
        amp_dtype: str = "auto",
        compile: bool = False,  # noqa: A002  (the name of the option)
        patience: int = 0,
        val_interval: int = 1,
        checkpoint_interval: int = 10,
        resume: bool = False,
        weights_dtype: str = "float32",
        arguments: tuple[Mapping[str, Any], ...] | list[Mapping[str, Any]] = (),
    ) -> None:
        device = torch.device(device)  # MONAI Label gives a name
        check_options(max_epochs, batch_size, imgsz, val_interval, max(network.strides))
        self.network, self.dataset, self.max_epochs, self.resume = network, dataset, max_epochs, as_bool(resume)
        self.folder, self.state = Path(ckpt_path), SimpleNamespace(epoch=0, max_epochs=max_epochs)
        self.checkpoint: dict[str, Any] | None = None
        own = {
            "task": "segment",
            "mode": "train",
            "model": f"{network.architecture}.yaml",  # only its name: the network is ours
            "data": str(dataset.data_yaml),
            "save_dir": str(self.folder / OWN_FOLDER),
            "device": device_names(device),
            "epochs": max_epochs,
            "batch": batch_size,
            "imgsz": imgsz,
            "lr0": learning_rate,
            "seed": seed,
            "workers": num_workers,
            "amp": precision(device, as_bool(amp), amp_dtype),
            "compile": as_bool(compile),
            "patience": patience,
            "plots": False,  # downloads fonts
            "verbose": False,
        }
        self.arguments = merge_arguments(own, arguments)
        settings = {
            "architecture": network.architecture,
            "class_names": list(dataset.class_names),
            "data": dataset.key,
        } | {name: self.arguments[name] for name in FIXED if name in self.arguments}
        self.files = TrainingFiles(self.folder, network, settings, checkpoint_interval, weights_dtype)

    def load(self) -> dict[str, str | None]:
        """Read ``latest.pt`` if the training is to go on from it.

        Returns:
            What it says of the run that tracks the training; empty without one.

        Raises:
            CheckpointError: if there is nothing to resume, or it belongs to another run.
        """
        if self.resume and self.checkpoint is None:
            self.checkpoint = self.files.read_state()
            self.state.epoch = self.checkpoint["epoch"]
            if distributed.rank() == 0:
                self.files.write_history()
        return self.files.tracked

    def track(self, tracker: Tracker) -> YoloLog:
        """Log the training to an open run."""
        self.files.log = YoloLog(tracker, self.files)
        self.files.log.log_rows()
        return self.files.log

    def run(self) -> None:
        """Train.

        Raises:
            CheckpointError: if there is nothing to resume, or it belongs to another run.
            TrainingError: if the loss is not finite any more.
        """
        self.load()
        reason = self._why_done()
        if reason is None:
            self._train()
        else:
            logger.info(reason)
        if distributed.rank() == 0:  # also where an earlier run was killed before it came to this
            write_training_summary(self.folder, self.dataset.counts, self.arguments, self.files.rows)

    def _why_done(self) -> str | None:
        """Why there is nothing left to train, and what to do; None if there is."""
        epoch, patience = self.state.epoch, self.arguments["patience"]
        if self.checkpoint is None:
            return None
        if epoch >= self.max_epochs:
            return f"epoch {epoch} of {self.max_epochs} is done already; give a larger max_epochs"
        waited = epoch - self.checkpoint["stopper"]["best_epoch"]
        if 0 < patience <= waited:
            return f"training has stopped after {waited} epochs without a better fitness; give a larger patience"
        return None

    def _train(self) -> None:
        if self.checkpoint is not None:
            logger.info("resuming after epoch %d from %s", self.state.epoch, self.folder)
        require_ultralytics()
        from .loop import SegmentationRun  # noqa: PLC0415  (imports ultralytics)

        try:
            SegmentationRun(self.arguments, self.network.model, self.files, self.checkpoint).train()
        finally:
            self.state.epoch = int(self.files.rows[-1]["epoch"]) if self.files.rows else 0
        if any(distributed.gather(asked())):
            raise PreemptedError(f"stopped after epoch {self.state.epoch}")


def check_options(max_epochs: int, batch_size: int, imgsz: int, val_interval: int, stride: int) -> None:
    """Refuse what ultralytics cannot do, or would change silently.

    Raises:
        ConfigError: for the first such value.
    """
    if val_interval != 1:
        raise ConfigError(f"val_interval is {val_interval}, but ultralytics validates after each epoch; leave it at 1")
    if imgsz % stride or imgsz < SMALLEST:
        raise ConfigError(f"imgsz is {imgsz}, expected a multiple of {stride} from {SMALLEST} on")
    for name, value in (("batch_size", batch_size), ("max_epochs", max_epochs)):
        if value < 1 or value != int(value):
            raise ConfigError(f"{name} is {value}, expected a whole number from 1 on")


def device_names(device: torch.device) -> str:
    """The device, or those of all processes of torchrun, as ultralytics names them.

    Raises:
        ConfigError: if there are several processes, and not one GPU of this computer for each.
    """
    processes = distributed.world_size()
    if processes == 1:
        return str(device.index) if device.type == "cuda" else device.type
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if device.type != "cuda" or here != processes:
        raise ConfigError(
            f"{processes} processes are to train on {device.type} devices of one or more computers; ultralytics wants "
            "a GPU of one computer for each: start without torchrun, or with --nproc_per_node=gpu on one computer"
        )
    return ",".join(map(str, range(processes)))


def precision(device: torch.device, amp: bool, amp_dtype: str) -> str | bool:
    """Ultralytics' ``amp``: its mixed precision is for CUDA only."""
    wanted = autocast_dtype(device, amp_dtype) if amp else None
    return PRECISIONS[wanted] if device.type == "cuda" else False


def merge_arguments(own: Mapping[str, Any], groups: tuple[Any, ...] | list[Any]) -> dict[str, Any]:
    """All arguments in one dictionary.

    Args:
        own: those that options of the bundle decide.
        groups: the others.

    Raises:
        ConfigError: if a group has one of ``own``, or ultralytics does not accept a name or value.
    """
    merged = dict(own)
    for group in groups:
        twice = sorted(set(group) & set(merged))
        if twice:
            raise ConfigError(f"{', '.join(twice)}: an option of the bundle decides this; see the README of yolo_seg")
        merged |= group
    optimiser = merged.get("optimizer", "AdamW")
    if optimiser not in OPTIMISERS:
        raise ConfigError(
            f"optimizer is {optimiser!r}; choose one of {', '.join(OPTIMISERS)} (auto would ignore learning_rate)"
        )
    require_ultralytics()
    from ultralytics.cfg import get_cfg  # noqa: PLC0415  (AGPL-3.0, optional)

    try:
        get_cfg(overrides=dict(merged))
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(f"ultralytics does not accept the arguments of the training: {error}") from error
    return merged
