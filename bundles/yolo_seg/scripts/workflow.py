# SPDX-License-Identifier: AGPL-3.0-or-later
"""yolo_seg on the command line.

python -m monai.bundle run_workflow "scripts.workflow.CellYolo" --config_file configs/hyper_parameters.yaml \
    --datalist FILE --basedir DIR
"""

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, Python does not look where the package `scripts` is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellbundle import distributed
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import ConfigError
from cellbundle.tracking import forget_run, start_run

# Options of the other bundles that ultralytics' loop has no place for.
MEANINGLESS = {
    "roi_size": "training tiles have imgsz / scale pixels: use --imgsz and --scale",
    "crops_per_epoch": "an epoch is one pass over all tiles: use --train#trainer#max_epochs",
    "cache_rate": "ultralytics keeps all tiles in memory or none: use --train#loading#cache ram",
    "validate": "ultralytics validates, with its own scores: its options are --train#validation#...",
    "train#handlers": "ultralytics' loop takes no handlers of MONAI",
    "train#preprocessing": "ultralytics augments: its options are --train#augmentation#...",
    "train#inferer": "ultralytics validates: its options are --train#validation#...",
    "train#optimizer": "ultralytics builds the optimiser: its options are --learning_rate and --train#schedule#...",
    "train#scheduler": "ultralytics builds the schedule: its options are --learning_rate and --train#schedule#...",
    "train#step": "ultralytics takes the steps: its options are --amp and --train#schedule#nbs",
}
TRAINING_FILES = ("history.csv", "training_summary.md", "model_first.pt")
VALIDATION_ENTRIES = "validate#dataset#data"  # the exception: the images are chosen here as in other bundles


class CellYolo(CellWorkflow):
    """Trains, evaluates and runs yolo_seg: ultralytics' one-stage instance segmentation.

    Ultralytics owns the training loop, so ``trainer`` is none of MONAI's.

    Raises:
        ConfigError: for an option that ultralytics has no place for; also as ``CellWorkflow``.
    """

    def __init__(self, config_file: Any, mode: str | None = None, **options: Any) -> None:
        for option in options:
            name = option.lstrip("+").replace("::", "#")
            for known, reason in MEANINGLESS.items():
                if (name == known or name.startswith(f"{known}#")) and name != VALIDATION_ENTRIES:
                    raise ConfigError(f"--{option} has no meaning for yolo_seg: {reason}")
        super().__init__(config_file, mode, **options)

    def training_files(self) -> list[Path]:
        """Files of a training beside ``model.pt``, ``model_final.pt`` and ``latest.pt``."""
        return [Path(self.content("ckpt_path")) / name for name in TRAINING_FILES]

    def _read_start(self) -> None:
        self.trainer.load()

    def _fit(self) -> None:
        training = self.trainer
        known = training.load()
        if not self.tracker.is_on and distributed.rank() == 0 and not training.resume:
            forget_run(training.folder)
        start_run(self.tracker, self.parser, self.mode, known, training.arguments)
        log = training.track(self.tracker)
        try:
            training.run()
        finally:
            self.trained_epochs = training.state.epoch
            log.log_files()


if __name__ == "__main__":
    import fire
    from monai.bundle import run_workflow

    fire.Fire(lambda **options: run_workflow("scripts.workflow.CellYolo", **options))
