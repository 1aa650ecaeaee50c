# SPDX-License-Identifier: AGPL-3.0-or-later
"""Summaries of a training and of an inference for people, as Markdown."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from cellbundle import distributed
from cellbundle.engine.handlers.base import ItemHandler
from cellbundle.io import atomic_path, printable
from cellbundle.metrics.detection import DetectionScores, detection_scores

TRAINING = "training_summary.md"
INFERENCE = "inference_summary.md"
SHEET = "predictions.png"
FITNESS = "val_fitness"
IMAGE_SCORES = {"ap50": "AP@.5", "pq": "PQ"}
POOLED_SCORES = {
    "mask_ap": "mask AP .5:.95",
    "mask_ap50": "mask AP50",
    "box_ap": "box AP .5:.95",
    "box_ap50": "box AP50",
}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers with up to four digits, what is None as an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(value)).replace("|", "\\|").replace("\n", " ")


def _write(path: Path, blocks: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def write_training_summary(
    folder: Path, counts: Mapping[str, Any], arguments: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> None:
    """Write ``training_summary.md``: data, result, files, arguments.

    Args:
        folder: of the checkpoints.
        counts: of the data, by name.
        arguments: of ultralytics.
        rows: of the history, one an epoch.
    """
    # As loop.SegmentationRun chooses: among equals, the later one.
    best, last = max(rows, key=lambda row: (row[FITNESS], row["epoch"])), rows[-1]
    seconds = sum(row["seconds"] for row in rows)
    result = [(name, best.get(name), last.get(name)) for name in last if name != "epoch"]
    files = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != TRAINING)
    _write(
        folder / TRAINING,
        [
            "# Training of yolo_seg",
            f"{arguments['model'].removesuffix('.yaml')}, epochs: {len(rows)}, minutes: {seconds / 60:.1f} (no "
            f"final test), best epoch: {best['epoch']:.0f} (by the fitness 0.1 mAP50 + 0.9 mAP50-95 of the masks).",
            "## Data",
            markdown_table(["", "count"], counts.items()),
            "## Result",
            "Scores of the validation tiles, by ultralytics.",
            markdown_table(["", f"best (epoch {best['epoch']:.0f})", f"last (epoch {last['epoch']:.0f})"], result),
            "## Files",
            "\n".join(f"- `{name}`" for name in files),
            "## Arguments of ultralytics",
            markdown_table(["argument", "value"], sorted(arguments.items())),
        ],
    )


class InferenceSummary(ItemHandler):
    """Writes ``inference_summary.md`` when an evaluation or inference ends: a table of the images, and their scores.

    Put it after the handler that draws ``predictions.png``, which it shows.

    Args:
        folder: where it goes, beside the picture.
        metric: the metric of the same evaluator; None where there are no labels.
        enabled: False does nothing.
    """

    def __init__(self, folder: str | Path, metric: DetectionScores | None = None, enabled: bool = True) -> None:
        super().__init__(enabled)
        self.folder, self.metric = Path(folder), metric
        self.rows: dict[int, dict[str, Any]] = {}
        self.started = self.seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator; the time of an image is that of network, decoder and files, without reading it."""
        super().attach(engine)
        if self.enabled:
            engine.add_event_handler(Events.ITERATION_STARTED, self._start_clock)
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._stop_clock)

    def files(self) -> list[Path]:
        """The file."""
        return [self.folder / INFERENCE]

    def start(self) -> None:
        """Forget an earlier run."""
        self.rows = {}

    def add(self, index: int, item: Mapping[str, Any]) -> None:
        """Keep what the table says of an image."""
        scores = np.asarray(item["scores"])
        height, width = item[Keys.PRED].shape[-2:]
        self.rows[index] = {
            "image": str(item["path"]),
            "pixels": f"{width} x {height}",
            "nuclei": len(scores),
            "mean score": float(scores.mean()) if len(scores) else None,
            "detections": len(item["detections"]),
            "seconds": self.seconds,
        }

    def finish(self) -> None:
        """Write the file."""
        rows = distributed.gather_by_index(self.rows)
        self.rows = {}
        scored = self.metric.images() if self.metric is not None and rows else {}
        pooled = detection_scores(list(self.metric.matched().values())) if self.metric is not None and scored else {}
        if distributed.rank() != 0:
            return
        for index, row in rows.items():
            row |= {text: scored[index][name] for name, text in IMAGE_SCORES.items() if index in scored}
        _write(self.folder / INFERENCE, self._blocks(list(rows.values()), pooled))

    def _start_clock(self, engine: Engine) -> None:
        self.started = time.monotonic()

    def _stop_clock(self, engine: Engine) -> None:
        self.seconds = round(time.monotonic() - self.started, 3)

    def _blocks(self, rows: Sequence[Mapping[str, Any]], pooled: Mapping[str, float | None]) -> list[str]:
        blocks = ["# Inference of yolo_seg", f"{len(rows)} images, {sum(row['nuclei'] for row in rows)} nuclei."]
        if pooled:
            means = [(f"mean {text}", fmean(row[text] for row in rows)) for text in IMAGE_SCORES.values()]
            of_all = [(text, pooled[name]) for name, text in POOLED_SCORES.items()]
            blocks += [
                "## Scores",
                "Of all detections; means over the images.",
                markdown_table(["", ""], of_all + means),
            ]
        if (self.folder / SHEET).is_file():
            blocks += ["## Pictures", f"![The first images with their outlines]({SHEET})"]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if columns:
            values = ([row.get(name) for name in columns] for row in rows)
            blocks += ["## Images", markdown_table(columns, values)]
        return blocks
