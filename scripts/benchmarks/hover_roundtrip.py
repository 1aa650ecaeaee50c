"""What is lost on the way labels → HoVer maps → instances, with one setting for all images.

python scripts/benchmarks/hover_roundtrip.py LABELS [--every 5] [--output docs/benchmarks/hover_roundtrip.md]

LABELS is a folder of label maps. The maps are decoded as they are, and as a network would predict them: at half
resolution, blurred, and with errors that neighbouring pixels share.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F
from tqdm import tqdm

from cellbundle.decode.hover import PUBLISHED, decode_hover
from cellbundle.instances.labels import renumber
from cellbundle.io import read_labels
from cellbundle.metrics import match, overlap_table
from cellbundle.targets.hover import labels_to_hover

LOGIT = 3.0  # of a sure nucleus
CERTAINTY = 0.98  # largest probability of a degraded map
NOISE_WIDTH = 2.0  # pixels over which errors are alike
LOGIT_NOISE = 5.0  # noise of the logit for one of the distances
THRESHOLDS = (0.5, 0.75, 0.9)
SETTINGS: dict[str, dict[str, Any]] = {
    "published": PUBLISHED,
    "published, no opening": PUBLISHED | {"marker_radius": 0},
    "ours": {},
}
DEGRADATIONS = {  # blur (pixels), half resolution, noise
    "exact": (0.0, False, 0.0),
    "half resolution": (0.0, True, 0.0),
    "half resolution, blur 1": (1.0, True, 0.0),
    "half resolution, noise 0.1": (0.0, True, 0.1),
    "half resolution, blur 1, noise 0.2": (1.0, True, 0.2),
}


class Result(NamedTuple):
    """One label map and one decoded map: counts, true positives by threshold, and which nuclei were found at 0.5."""

    n_true: int
    n_pred: int
    positives: list[int]
    found: np.ndarray


def degrade(labels: np.ndarray, blur: float, halve: bool, noise: float, seed: int) -> np.ndarray:
    """A prediction (3, H, W) float32 for a label map: perfect, or as a network's would be.

    Args:
        labels: (H, W) int32.
        blur: standard deviation of a Gaussian filter (pixels).
        halve: average squares of 2x2 pixels and enlarge again, as a network does that works at half resolution.
        noise: standard deviation of the errors of the distances.
        seed: of the errors.
    """
    cells = (labels > 0).astype(np.float32)
    if not (blur or halve or noise):
        return np.concatenate([LOGIT * (2 * cells[None] - 1), labels_to_hover(labels)])
    maps = ndimage.gaussian_filter(np.concatenate([cells[None], labels_to_hover(labels)]), (0, blur, blur))
    if halve:
        small = F.avg_pool2d(torch.from_numpy(maps)[None], 2, ceil_mode=True)
        large = F.interpolate(small, scale_factor=2, mode="bilinear")[0, :, : labels.shape[0], : labels.shape[1]]
        maps = large.numpy()
    probability = np.clip(maps[0], 1 - CERTAINTY, CERTAINTY)
    maps = np.concatenate([np.log(probability / (1 - probability))[None], maps[1:]])
    if noise:
        errors = ndimage.gaussian_filter(
            np.random.default_rng(seed).normal(size=maps.shape), (0, NOISE_WIDTH, NOISE_WIDTH)
        )
        errors *= noise / errors.std(axis=(1, 2), keepdims=True)
        errors[0] *= LOGIT_NOISE
        maps = maps + errors
    return maps.astype(np.float32)


def touching(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: which instances of a map (H, W), ids 1..N, share an edge or a corner of a pixel with another."""
    touches = np.zeros(int(labels.max(initial=0)) + 1, bool)
    padded = np.pad(labels, 1)
    height, width = labels.shape
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        both = (labels > 0) & (other > 0) & (labels != other)
        touches[labels[both]] = touches[other[both]] = True
    return touches[1:]


def compare(labels: np.ndarray, decoded: np.ndarray) -> Result:
    """Match a decoded map with the true one."""
    overlap = overlap_table(labels, decoded)
    matches = [match(overlap, threshold) for threshold in THRESHOLDS]
    found = np.zeros(len(overlap.true_ids), bool)
    found[matches[0].true_index] = True
    return Result(len(overlap.true_ids), len(overlap.pred_ids), [len(pairs) for pairs in matches], found)


def precision(result: Result, k: int) -> float:
    """AP of one image at a threshold: TP / (TP + FP + FN)."""
    union = result.n_true + result.n_pred - result.positives[k]
    return result.positives[k] / union if union else 1.0


def row(name: str, results: list[Result]) -> str:
    """A line: mean AP of the images at each threshold, AP@.5 of all images together, and the error of the count."""
    n_true, n_pred = sum(r.n_true for r in results), sum(r.n_pred for r in results)
    positives = sum(r.positives[0] for r in results)
    scores = [fmean(precision(r, k) for r in results) for k in range(len(THRESHOLDS))]
    scores.append(positives / (n_true + n_pred - positives))
    return f"| {name} | " + " | ".join(f"{s:.3f}" for s in scores) + f" | {100 * (n_pred / n_true - 1):+.2f} % |"


def recalls(found: np.ndarray, areas: np.ndarray, touches: np.ndarray) -> list[float]:
    """Share of the nuclei found, by quartile of their area, for touching ones and for those that stand apart."""
    quartile = np.searchsorted(np.quantile(areas, (0.25, 0.5, 0.75)), areas, side="left")
    groups = [*(quartile == k for k in range(4)), touches, ~touches]
    return [float(found[group].mean()) if group.any() else float("nan") for group in groups]


def report(maps: list[np.ndarray]) -> Iterator[str]:
    """The lines of the page."""
    results: dict[tuple[str, str], list[Result]] = {}
    for condition, (blur, halve, noise) in DEGRADATIONS.items():
        for seed, labels in enumerate(tqdm(maps, condition, disable=None, file=sys.stderr)):
            prediction = degrade(labels, blur, halve, noise, seed)
            for setting, options in SETTINGS.items():
                result = compare(labels, decode_hover(prediction, **options))
                results.setdefault((condition, setting), []).append(result)
    areas = np.concatenate([np.bincount(labels.ravel())[1:] for labels in maps])
    touches = np.concatenate([touching(labels) for labels in maps])
    low, middle, high = np.quantile(areas, (0.25, 0.5, 0.75))
    yield f"{len(maps)} label maps, {len(areas)} nuclei, {touches.sum()} of them touch another.\n"
    yield "| maps | setting | AP@.5 | AP@.75 | AP@.9 | AP@.5, pooled | nuclei |\n|---|---|---|---|---|---|---|"
    yield from (row(" | ".join(key), found) for key, found in results.items())
    yield "\nShare of the nuclei that are found (IoU at least 0.5), by their area in pixels and by their neighbours.\n"
    sizes = (f"≤ {low:.0f}", f"≤ {middle:.0f}", f"≤ {high:.0f}", f"> {high:.0f}")
    yield "| maps | setting | " + " | ".join(sizes) + " | touching | apart |\n|---|---|" + "---|" * 6
    for key, found in results.items():
        shares = recalls(np.concatenate([result.found for result in found]), areas, touches)
        yield f"| {' | '.join(key)} | " + " | ".join(f"{share:.3f}" for share in shares) + " |"


HEADER = """# From HoVer maps back to nuclei

Written by `scripts/benchmarks/hover_roundtrip.py`: label maps → foreground and distance maps → `decode_hover` → scores
against the label maps. AP is TP / (TP + FP + FN), the mean over the images or, pooled, of all images together. The last
column is the error of the number of nuclei. *Published* is the post-processing of HoVer-Net (Sobel filter of 21 pixels,
slopes scaled to 0..1 in the image, opening with a disc of radius 2), equal to MONAI's; *ours* is the default of
`decode_hover`. All images are decoded with the same setting. Degraded maps show what a setting is worth for a network,
whose maps are never exact: squares of 2x2 pixels are averaged and enlarged again, blurred before (standard deviation in
pixels), and errors that neighbouring pixels share are added (standard deviation in units of the distances; five times
that for the logit).
"""


def main(arguments: argparse.Namespace) -> None:
    """Print the page, and write it if asked to."""
    torch.set_num_threads(1)
    paths = sorted(arguments.labels.iterdir())[:: arguments.every]
    text = "\n".join([HEADER, *report([renumber(read_labels(path))[0] for path in paths])]) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take only every n-th label map")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    main(parser.parse_args())
