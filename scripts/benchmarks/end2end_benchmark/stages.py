"""The time of every stage between an image file and a label file, and whether the result is the reference's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from cellbundle.metrics import image_scores

from .paths import WINDOW, BundlePath, Network

STAGES = ("read", "transform", "network", "blend", "decode", "write")
SMALLEST_F1 = 0.99  # at IoU 0.5 against the reference's instances
LARGEST_ERROR = 1e-4  # of a network in float32, as a share of its largest answer


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        repeats: of every stage, after a warm-up.
        windows: that the network sees in a repeat; for the others its time is multiplied.
        limit: seconds after which the network sees no further ones in a repeat.
    """

    repeats: int
    windows: float = np.inf
    limit: float = np.inf


@dataclass(eq=False)
class Row:
    """What was seen of one path on one image.

    Attributes:
        path: the path.
        n_instances: that it found.
        f1: at IoU 0.5 against the reference's instances.
        error: largest difference of the network's answer to a window from the reference's, as a share of the largest
            value.
        is_good: whether it may be timed.
        n_windows: of the image.
        n_timed: windows that the network saw in a repeat.
        seconds: of all repeats by stage, and ``total``.
        first_call: seconds of the network's first call, with its compilation.
    """

    path: BundlePath
    n_instances: int
    f1: float
    error: float
    is_good: bool
    n_windows: int = 0
    n_timed: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    first_call: float = 0.0

    def median(self, *stages: str) -> float:
        """Median over the repeats of the sum of these stages."""
        return median(sum(values) for values in zip(*(self.seconds[stage] for stage in stages), strict=True))


class Windows:
    """Stands for the network in an inferer: measures it on the first windows, and repeats known answers.

    Args:
        network: what it stands for.
        effort: how many windows the network sees.
        answers: what to say of the windows of each call; by default what the network says. Then the last answer is
            said again when the network sees no more windows.
    """

    def __init__(self, network: Network, effort: Effort, answers: Sequence[torch.Tensor] | None = None) -> None:
        self.network, self.effort, self.answers = network, effort, answers
        self.n_calls = self.n_windows = self.n_timed = 0
        self.seconds = 0.0  # of the network
        self.inside = 0.0  # seconds that are not the inferer's

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) to an answer of its own memory, because MONAI multiplies it by weights in place."""
        wait(windows.device)
        started = time.perf_counter()
        if self.n_timed < self.effort.windows and self.seconds < self.effort.limit:
            self.last = self.network(windows)
            wait(windows.device)
            self.seconds += time.perf_counter() - started
            self.n_timed += len(windows)
        answer = self.last[: len(windows)] if self.answers is None else self.answers[self.n_calls]
        answer = answer.clone()
        self.n_calls += 1
        self.n_windows += len(windows)
        wait(windows.device)
        self.inside += time.perf_counter() - started
        return answer


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run(path: BundlePath, file: Path, windows: Windows) -> tuple[np.ndarray, dict[str, float]]:
    """One image through all stages; its label map (H, W) and the seconds of each stage."""
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        result = function(*arguments)
        wait(path.device)
        seconds[stage] = time.perf_counter() - started
        return result

    item = timed("read", path.read, file)
    item = timed("transform", path.transform, item)
    prediction = timed("blend", path.infer, item["input"], windows)
    seconds["blend"] -= windows.inside
    seconds["network"] = windows.seconds * windows.n_windows / windows.n_timed if windows.n_timed else 0.0
    item = timed("decode", path.decode, item | {"pred": prediction})
    timed("write", path.write, item)
    return np.asarray(item["pred"][0], np.int32), seconds | {"total": sum(seconds.values())}


def record(path: BundlePath, image: torch.Tensor, logits: np.ndarray | None, like: torch.Tensor) -> list[torch.Tensor]:
    """What the network says of every window, call by call.

    Args:
        path: the path that cuts the windows.
        image: (1, 3, H, W), its input.
        logits: (3, H, W) float32 that stand for the answers of a network without weights, cut into the same windows.
        like: (N, 3, h, w), an answer whose dtype and memory format these get.
    """
    answers: list[torch.Tensor] = []
    is_last = like.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if is_last else torch.contiguous_format

    def network(windows: torch.Tensor) -> torch.Tensor:
        if logits is None:
            answers.append(path.network(windows).clone())
        else:
            answers.append(windows.to(like.dtype, memory_format=memory_format, copy=True))
        return answers[-1].clone()

    path.infer(image if logits is None else torch.from_numpy(logits)[None].to(path.device), network)
    return answers


class Comparison:
    """Paths beside a reference on one image: equal results first, then their times in turns.

    Args:
        file: the image.
        logits: (3, H, W) float32 in place of the network's answers; by default the network is asked.
    """

    def __init__(self, file: Path, logits: np.ndarray | None = None) -> None:
        self.file, self.logits = file, logits
        self.rows: list[Row] = []
        self.answers: list[list[torch.Tensor]] = []
        self.reference = np.zeros((0, 0), np.int32)
        self.window = torch.zeros(0)

    def add(self, path: BundlePath) -> Row:
        """Run a path once, which warms it up, and compare it with the first one that was added."""
        image = path.transform(path.read(self.file))["input"]
        started = time.perf_counter()
        answer = path.answer(image[..., :WINDOW, :WINDOW].repeat(path.batch, 1, 1, 1))
        wait(path.device)
        first_call = time.perf_counter() - started
        self.window = self.window if self.rows else answer[:1].float()
        error = float((answer[:1].float() - self.window).abs().max() / self.window.abs().max())
        answers = record(path, image, self.logits, answer)
        labels, _ = run(path, self.file, Windows(path.network, Effort(0, windows=0), answers))
        self.reference = self.reference if self.rows else labels
        f1 = image_scores(self.reference, labels, (0.5,))["f150"]
        is_good = f1 >= SMALLEST_F1 and (path.precision is not None or error <= LARGEST_ERROR)
        row = Row(path, int(labels.max(initial=0)), f1, error, is_good, first_call=first_call)
        self.rows.append(row)
        self.answers.append(answers)
        return row

    def measure(self, effort: Effort) -> None:
        """Time the paths that passed, one after the other in every repeat."""
        for _ in range(effort.repeats):
            for row, answers in zip(self.rows, self.answers, strict=True):
                if row.is_good:
                    windows = Windows(row.path.network, effort, answers)
                    _, seconds = run(row.path, self.file, windows)
                    row.n_windows, row.n_timed = windows.n_windows, windows.n_timed
                    for stage, value in seconds.items():
                        row.seconds.setdefault(stage, []).append(value)
