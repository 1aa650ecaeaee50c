# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a tracked training logs.

Ultralytics' own tracker is never run: it waits for servers, and writes to whatever run is active. Its names are kept
beside ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellbundle.engine.handlers.tracking import CHECKPOINTS, EpochLog


class YoloLog(EpochLog):
    """``EpochLog`` with steps, checkpoints, and what ultralytics would log."""

    def log_step(self, losses: Mapping[str, Any], learning_rate: float, step: int) -> None:
        """Log the parts of the loss of a batch, their sum, and the learning rate."""
        if self.tracker.is_open:
            parts = {name: float(value) for name, value in losses.items()}
            values = {"loss": sum(parts.values()), **parts, "learning_rate": learning_rate}
            self.tracker.log({f"step/{name}": value for name, value in values.items()}, step)

    def log_theirs(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log the metrics of an epoch by ultralytics' names, such as ``metrics/mAP50B``."""
        self.tracker.log({name.replace("(", "").replace(")", ""): value for name, value in metrics.items()}, epoch)

    def log_checkpoint(self, path: Path) -> None:
        """Log the weights of an epoch."""
        self.tracker.log_file(path, CHECKPOINTS)
