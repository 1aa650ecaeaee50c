"""Work of a worker on a request: read the image, segment it, write the answer. No HTTP here."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CellBundleError, ConfigError, ImageReadError, ImageTooLargeError, is_out_of_memory
from ...io import Image, read_image
from ..handles import pinned
from ..masks import ForeignMaskError
from ..paths import OutsideError
from ..settings import shown_weights
from .answers import Answer, Job, Refusal, answer, place, preview

GPU_BATCH = 8  # images of one shape in one call of the network
BROKEN_GPU = "CUDA error"  # after it, nothing works in this process any more
STATUSES = {OutsideError: (404, "not_found"), ForeignMaskError: (409, "foreign_mask")}
UNSUITABLE = (422, "unsuitable")  # any other of our own errors


class Segmenter:
    """The handler of a worker process: all bundles that are served, loaded once.

    Args:
        bundles: names or folders, by the name under which they are served.
        load: makes the predictor of a bundle.
        max_pixels: largest image.
        threads: of PyTorch and of our own kernels.
        batch: images in one call of the network; 0 chooses.
    """

    def __init__(
        self, bundles: dict[str, str], load: Callable[[str], Any], max_pixels: int, threads: int, batch: int = 0
    ) -> None:
        use_threads(threads)
        self.max_pixels = max_pixels
        self.predictors = {name: load(bundle) for name, bundle in bundles.items()}
        on_gpu = any(predictor.device.type == "cuda" for predictor in self.predictors.values())
        self.batch = batch or (GPU_BATCH if on_gpu else 1)
        self.about = [describe(name, predictor) for name, predictor in self.predictors.items()]
        for predictor in self.predictors.values():
            predictor(example())  # kernels are compiled now, not while somebody waits

    def __call__(self, jobs: Sequence[Job]) -> list[Answer | Refusal]:
        """Work on jobs; images of one shape for one bundle share calls of its network where that is possible."""
        outcomes: dict[int, Answer | Refusal] = {}
        groups: dict[Any, list[_Read]] = defaultdict(list)
        for index, job in enumerate(jobs):
            read = guarded(self._read, index, job)
            if isinstance(read, Refusal):
                outcomes[index] = read
            elif job.format == "preview":
                outcomes[index] = guarded(preview, read.image, read.started)
            else:
                shape = read.image.data.shape if read.predictor.takes_batches else index
                groups[job.bundle, job.diameter, shape].append(read)
        for group in groups.values():
            outcomes |= segment(group)
        return [outcomes[index] for index in range(len(jobs))]

    def _read(self, index: int, job: Job) -> "_Read":
        started = perf_counter()
        predictor = self.predictors[job.bundle]
        # The folders of uploads are the service's own; others may have changed while the job waited.
        with pinned(job.image) if job.format == "mask" else nullcontext(job.image) as path:
            image = read_image(path, max_pixels=self.max_pixels)
        if job.diameter != "auto":
            is_number = not isinstance(job.diameter, str)
            if is_number and predictor.diameter is None:
                raise ConfigError("this bundle takes no diameter")
            predictor = predictor.at_diameter(job.diameter)
            if is_number and image.data[0].size * predictor.scale**2 > self.max_pixels:
                raise ConfigError(f"diameter {job.diameter:g} magnifies the image too much; give a larger one")
        return _Read(index, job, started, image, predictor)


class _Read(NamedTuple):
    """A job whose image is read."""

    number: int
    job: Job
    started: float
    image: Image
    predictor: Any


def segment(group: Sequence[_Read]) -> dict[int, Answer | Refusal]:
    """Outcomes of images of one shape, segmented in one call; if it fails, one by one."""
    found = guarded(group[0].predictor.segment_batch, [one.image.data for one in group])
    if isinstance(found, Refusal):
        if len(group) == 1:
            return {group[0].number: found}
        return {one.number: segment([one])[one.number] for one in group}
    return {
        one.number: guarded(answer, one.job, one.image, segmentation, one.started)
        for one, segmentation in zip(group, found, strict=True)
    }


def use_threads(number: int) -> None:
    """Compute with so many threads in this process."""
    import torch  # noqa: PLC0415  (the service itself does without)

    from ...kernels.parallel import THREADS_VARIABLE  # noqa: PLC0415

    os.environ[THREADS_VARIABLE] = str(number)
    torch.set_num_threads(number)


def load_bundle(device: str, weights: Path | None, bundle: str) -> Any:
    """Make a ``Predictor``; ``weights`` are a checkpoint in place of the bundle's own."""
    from ...inference.predictor import Predictor  # noqa: PLC0415

    return Predictor(bundle, device=device, weights=weights)


def describe(name: str, predictor: Any) -> dict[str, Any]:
    """What ``/v1/bundles`` says about a bundle."""
    from ...bundles import describe_bundle  # noqa: PLC0415

    info = describe_bundle(predictor.root)
    weights = Path(predictor.root, predictor.weights)
    return {
        "name": name,
        "version": info.version,
        "description": info.description,
        "options": {"diameter": predictor.diameter, "finds_diameter": predictor.looks_for_size},
        "device": str(predictor.device),
        "weights": {"file": shown_weights(weights), "sha256": _sha256(weights)},
    }


def _sha256(weights: Path) -> str | None:
    """Hash of weights; None for a bundle that reads another file."""
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def example() -> NDArray[np.float32]:
    """A small image with a few discs, (1, 64, 64)."""
    y, x = np.mgrid[:64, :64]
    return ((y % 32 - 16) ** 2 + (x % 32 - 16) ** 2 < 64)[None].astype(np.float32)


def guarded(work: Callable[..., Any], *args: Any) -> Any:
    """What ``work`` returns, or the refusal that its error means."""
    try:
        return work(*args)
    except (CellBundleError, MemoryError, OSError) as error:
        return refusal(error)
    except Exception as error:
        if BROKEN_GPU in str(error):
            raise
        if is_out_of_memory(error):
            return refusal(MemoryError())
        return Refusal(500, "failed", "the image could not be segmented", place(error))


def refusal(error: Exception) -> Refusal:
    """The answer to an error. Only messages that are known to hold no path are passed on."""
    cause = error.__cause__
    if isinstance(cause, ImageTooLargeError):
        return Refusal(413, "too_many_pixels", "the image has more pixels than this service takes; crop it")
    if isinstance(error, ImageReadError):
        reason = str(cause) if isinstance(cause, ImageReadError) else "cannot be decoded; export it again"
        return Refusal(400, "unreadable_image", f"the image {reason}")
    if isinstance(error, CellBundleError):
        return Refusal(*STATUSES.get(type(error), UNSUITABLE), str(error))
    if isinstance(error, MemoryError):
        return Refusal(500, "out_of_memory", "not enough memory for this image; crop it")
    return Refusal(500, "cannot_write", "the result cannot be written", place(error))
