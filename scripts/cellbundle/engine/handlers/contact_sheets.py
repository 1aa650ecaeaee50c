"""Handlers that draw what a network gets and what it predicts, for people to look at."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from monai.utils.type_conversion import convert_to_numpy
from numpy.typing import NDArray

from ...distributed import gather, rank
from ...flags import as_bool
from ...instances.labels import label_components, renumber
from ...io import stem
from ...io.overlay import to_picture
from ...kernels.geometry import boxes_and_areas
from ...metrics.scores import image_scores
from ...report.sheets import MAX_SIDE, Panel, Picture, draw_sheet, to_panel, write_picture
from .base import ItemHandler

logger = logging.getLogger(__name__)

SAMPLES_A_ROW, IMAGES_A_ROW = 4, 2
NOTHING: Panel = ("", np.full((1, 1, 3), 255, np.uint8))


class SampleSheet:
    """Draws the first augmented samples of a training as the network gets them, with the outlines of their targets.

    The picture is written once, as soon as there are enough samples or the first epoch of the run ends; only process 0
    draws. What cannot be drawn is a warning: it never stops a training.

    The batch has ``image`` (B, 3, H, W) in [0, 1], shown without a change of contrast, and ``label``: for a detector a
    dictionary with ``label_map`` (B, H, W), whose instances get outlines and boxes; else (B, C, H, W), of which the
    first channel is the foreground, whose connected pieces get outlines.

    Args:
        path: PNG file to write; its folder is made when needed.
        n: number of samples.
        side: pixels of the longer side of a sample in the sheet.
        enabled: False does nothing.
    """

    def __init__(self, path: str | Path, n: int = 12, side: int = MAX_SIDE, enabled: bool = True) -> None:
        self.path, self.n, self.side, self.enabled = Path(path), n, side, as_bool(enabled)
        self.panels: list[Panel] = []
        self.done = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if self.enabled and rank() == 0:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_STARTED, self._add)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.panels, self.done = [], False

    def _add(self, engine: Any) -> None:
        if self.done:
            return
        try:
            for image, labels, boxes_xyxy, what in _samples(engine.state.batch):
                if len(self.panels) < self.n:
                    self.panels.append(self._draw(image, labels, boxes_xyxy, what))
        except Exception as error:  # noqa: BLE001  (whatever a batch is, the training goes on)
            self._give_up(error)
        if len(self.panels) >= self.n:
            self._finish(engine)

    def _draw(self, image: NDArray, labels: NDArray[np.integer], boxes_xyxy: NDArray, what: str) -> Panel:
        count = np.unique(labels[labels > 0]).size
        caption = f"{len(self.panels) + 1}: {count} {what}, values {image.min():.2f} to {image.max():.2f}"
        return caption, to_panel(_as_it_is(image), labels, boxes_xyxy, self.side)

    def _finish(self, engine: Engine) -> None:
        if self.done:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(self.path, draw_sheet(self.panels, SAMPLES_A_ROW))
            logger.info("the first %d training samples are in %s", len(self.panels), self.path)
        except Exception as error:  # noqa: BLE001  (as above)
            self._give_up(error)
        self.panels, self.done = [], True

    def _give_up(self, error: Exception) -> None:
        logger.warning("no sheet of training samples, %s: %s: %s", self.path, type(error).__name__, error)
        self.panels, self.done = [], True


class PredictionSheet(ItemHandler):
    """Draws the first images of an evaluation: image, true and predicted instances, with their numbers and the AP.

    It looks at the decoded items of ``engine.state.output``: ``image`` (C, H, W), ``pred`` and, where there is one,
    ``label``, label maps (1, H, W); and in ``engine.state.batch`` for what is not there, such as ``path``. An image
    that failed makes room for the next one, and one that cannot be drawn is a warning. The picture is written when the
    run ends; after a run without an image, there is none.

    Args:
        path: PNG file to write; its folder is made when needed.
        n: number of images; those with the smallest ``index`` are drawn.
        side: pixels of the longer side of an image in the sheet.
        enabled: False does nothing.
    """

    def __init__(self, path: str | Path, n: int = 12, side: int = MAX_SIDE, enabled: bool = True) -> None:
        super().__init__(enabled)
        self.path, self.n, self.side = Path(path), n, side
        self.rows: dict[int, list[Panel]] = {}

    def files(self) -> list[Path]:
        """The picture."""
        return [self.path]

    def start(self) -> None:
        """Forget an earlier run."""
        self.rows = {}

    def add(self, index: int, item: Mapping[str, Any]) -> None:
        """Draw an image if it is one of the first so far."""
        if len(self.rows) < self.n or index < max(self.rows):
            try:
                self.rows[index] = _compared(item, self.side)
            except Exception as error:  # noqa: BLE001  (a picture is not worth the results of a run)
                logger.warning("%s is not in %s: %s: %s", item["path"], self.path, type(error).__name__, error)
        if len(self.rows) > self.n:
            del self.rows[max(self.rows)]

    def finish(self) -> None:
        """Write the picture."""
        # First the numbers, so that processes send only the pictures that are drawn.
        chosen = sorted({index for part in gather(list(self.rows)) for index in part})[: self.n]
        mine = {index: self.rows[index] for index in chosen if index in self.rows}
        rows = {index: row for part in gather(mine) for index, row in part.items()}
        self.rows = {}
        if rank() != 0:
            return
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        group = max(map(len, rows.values()))
        panels = [panel for index in chosen for panel in rows[index] + [NOTHING] * (group - len(rows[index]))]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(self.path, draw_sheet(panels, group * IMAGES_A_ROW, group))


def _samples(batch: Mapping[str, Any]) -> Iterator[tuple[NDArray, NDArray[np.integer], NDArray, str]]:
    """Image (3, H, W), label map (H, W), boxes (N, 4) x0, y0, x1, y1 of each sample, and what the ids stand for."""
    images, target = batch[Keys.IMAGE], batch[Keys.LABEL]
    detector = isinstance(target, Mapping)
    for image, labels in zip(images, target["label_map"] if detector else target[:, 0], strict=True):
        ids = np.rint(convert_to_numpy(labels)).astype(np.int32)
        values = convert_to_numpy(image).astype(np.float32)
        if detector:
            boxes_yxyx, _ = boxes_and_areas(*renumber(ids))
            yield values, ids, boxes_yxyx[:, [1, 0, 3, 2]], "cells"
        else:
            yield values, label_components(ids, connectivity=4)[0], np.empty((0, 4)), "pieces"


def _as_it_is(image: NDArray) -> Picture:
    """(H, W, 3) picture of (3, H, W) in [0, 1], without a change of contrast; one channel is grey."""
    shown = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return np.rint(255 * shown.clip(0, 1)).astype(np.uint8)


def _compared(item: Mapping[str, Any], side: int) -> list[Panel]:
    """The panels of one image: itself, its true cells if they are known, and the predicted ones."""
    picture = to_picture(convert_to_numpy(item[Keys.IMAGE]).astype(np.float32))
    pred = convert_to_numpy(item[Keys.PRED])[0]
    panels = [(stem(item["path"]), to_panel(picture, side=side))]
    count, ap = np.unique(pred[pred > 0]).size, ""
    if item.get(Keys.LABEL) is not None:
        true = convert_to_numpy(item[Keys.LABEL])[0]
        scores = image_scores(true, pred, (0.5,))
        panels.append((f"{scores['n_true']:,} true", to_panel(picture, true, side=side)))
        ap = f", AP50 {scores['ap50']:.2f}"
    return [*panels, (f"{count:,} predicted{ap}", to_panel(picture, pred, side=side))]
