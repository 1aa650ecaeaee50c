"""A MONAI inferer for networks that detect objects: tiles in, one list of detections out."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch.nn import functional as F

from ..errors import ArrayError
from ..transforms.resize import resample
from .tiling import TiledInferer, TilePlan, magnified, plan_tiles


class DetectionInferer(TiledInferer):
    """Runs a detector over an image of any size: in one piece where it fits, else in overlapping tiles.

    Nothing is blended or left out: objects in the overlap are detected once a tile, and
    ``cellbundle.decode.duplicates.merge_tiles`` makes one of them.

    Its arguments are those of ``TiledInferer``, of which ``sigma`` means nothing here. Objects no larger than the
    overlap are whole in one of the tiles.
    """

    takes_batches = False  # images have different numbers of detections

    # A detector answers with lists, not with a map; all else is as in the base class.
    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Callable[..., list[dict[str, torch.Tensor]]], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Detect the objects of one image.

        Args:
            inputs: (1, C, H, W) float.
            network: maps (B, C, h, w) to B dictionaries of ``boxes`` (n, 4), x0, y0, x1, y1 in pixels of what it sees,
                ``scores`` (n,) in [0, 1], ``labels`` (n,) from 1, and ``masks`` (n, M, M), probabilities on the box.
            *args: passed to the network.
            **kwargs: passed to the network.

        Returns:
            On the CPU, with an axis of one image in front, so that MONAI can take it for a batch: ``boxes``
            (1, N, 4) float32, x0, y0, x1, y1 in pixels of the image; ``scores`` (1, N) float32; ``labels`` (1, N)
            int64; ``masks`` (1, N, M, M) float32; ``tile_of`` (1, N) int64, number of the tile of each; ``tiles``
            (1, T, 4) int64, half-open y0, x0, y1, x1 inside the image; ``size`` (1, 2) int64, H and W.

            Every box has a part in the image. It reaches over its edge where the network continued an object into the
            margin of a small image; cut off, it would no longer fit its mask.

        Raises:
            ArrayError: if ``inputs`` is not one image.
        """
        if inputs.ndim != 4 or inputs.shape[0] != 1:
            raise ArrayError(
                f"expected one image (1, C, H, W), got shape {tuple(inputs.shape)}; images have different numbers of "
                "detections, so give them one by one"
            )
        inputs = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs  # MONAI Label hands over MetaTensors
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        plan = plan_tiles(size, self.largest_tile(), self.overlap, self.multiple, self.fixed)
        corners = tile_corners(plan, size)
        found: list[dict[str, torch.Tensor]] = []
        for start in range(0, len(corners), self.sw_batch_size):
            part = corners[start : start + self.sw_batch_size]
            seen = resample(
                torch.cat([_cut_tile(inputs, at, plan.tile) for at in part]), magnified(plan.tile, self.scale)
            )
            answers = network(seen.contiguous(memory_format=torch.channels_last), *args, **kwargs)
            factors = [seen.shape[-1] / plan.tile[1], seen.shape[-2] / plan.tile[0]]
            for number, (at, answer) in enumerate(zip(part, answers, strict=True), start):
                found.append(_place(answer, number, at, factors, size))
        joined = {key: torch.cat([one[key] for one in found])[None] for key in found[0]}
        ends = [(min(y + plan.tile[0], size[0]), min(x + plan.tile[1], size[1])) for y, x in corners]
        tiles = [(*begin, *end) for begin, end in zip(corners, ends, strict=True)]
        return joined | {"tiles": torch.tensor([tiles]), "size": torch.tensor([size])}


def tile_corners(plan: TilePlan, size: Sequence[int]) -> list[tuple[int, int]]:
    """First pixel (y, x) of every tile, row by row; the last ones end where the image ends.

    Args:
        plan: of ``plan_tiles``.
        size: (H, W) of the image.
    """
    lines = [
        [min(k * stride, max(0, length - tile)) for k in range(count)]
        for length, tile, count, stride in zip(size, plan.tile, plan.counts, plan.strides, strict=True)
    ]
    return list(product(lines[0], lines[1]))


def _cut_tile(image: torch.Tensor, at: tuple[int, int], tile: tuple[int, int]) -> torch.Tensor:
    """(1, C, h, w) tile, filled up with the last pixels of a smaller image."""
    part = image[..., at[0] : at[0] + tile[0], at[1] : at[1] + tile[1]]
    margin = (0, tile[1] - part.shape[-1], 0, tile[0] - part.shape[-2])
    return F.pad(part, margin, mode="replicate") if any(margin) else part


def _place(
    answer: dict[str, torch.Tensor], number: int, at: tuple[int, int], factors: list[float], size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Detections of a tile in pixels of the image, on the CPU; those without any area in the image are left out."""
    boxes_xyxy = answer["boxes"].float().cpu() / torch.tensor(factors * 2) + torch.tensor([at[1], at[0]] * 2)
    inside = torch.minimum(boxes_xyxy[:, 2:], torch.tensor([size[1], size[0]])) > boxes_xyxy[:, :2].clamp(min=0)
    keep = inside.all(1)
    return {
        "boxes": boxes_xyxy[keep],
        "scores": answer["scores"].float().cpu()[keep],
        "labels": answer["labels"].long().cpu()[keep],
        "masks": answer["masks"].float().cpu()[keep],
        "tile_of": torch.full((int(keep.sum()),), number),
    }
