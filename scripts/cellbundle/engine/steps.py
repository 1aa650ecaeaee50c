"""What one iteration of MONAI's trainer and evaluator does.

MONAI's own iterations ask for ``autocast("cuda")`` on every device. These work on CUDA, MPS and CPU (bfloat16), clip
gradients and guard against losses that are not finite; all else (accumulation, events, output keys) is as in MONAI.
"""

import logging
from typing import Any

import numpy as np
import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch.amp.grad_scaler import GradScaler

from ..addresses import redact_text
from ..device import autocast, autocast_dtype
from ..distributed import all_true
from ..errors import CellBundleError, TrainingError, original_errors
from ..flags import as_bool
from ..inference.segment import forward

logger = logging.getLogger(__name__)


class TrainStep:
    """``iteration_update`` of a ``SupervisedTrainer``: forward, loss, backward, clip, step.

    Args:
        amp: mixed precision.
        amp_dtype: see ``cellbundle.device.autocast_dtype``.
        clip_norm: largest gradient norm; None does not clip.
        max_bad_losses: so many losses in a row that are not finite stop the training; each is skipped and counted.
    """

    def __init__(
        self, amp: bool = True, amp_dtype: str = "auto", clip_norm: float | None = None, max_bad_losses: int = 20
    ) -> None:
        self.amp, self.amp_dtype = as_bool(amp), amp_dtype
        self.clip_norm, self.max_bad_losses = clip_norm, max_bad_losses
        self.bad_losses = 0
        self.scaler: GradScaler | None = None

    def __call__(self, engine: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """Run one iteration; ``batch`` has ``image`` (N, C, H, W) and ``label``.

        As MONAI's own, it takes two values of ``prepare_batch``, images and targets, or four: also what the network
        gets beside the images, as positional and as keyword arguments.
        """
        device = engine.state.device
        if self.scaler is None:
            self.scaler = make_scaler(device, self.amp, self.amp_dtype)
        images, targets, *further = engine.prepare_batch(batch, device, engine.non_blocking, **engine.to_kwargs)
        args, kwargs = further or ((), {})
        images = images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
        first, last = accumulation_window(engine)
        engine.network.train()
        if first:
            engine.optimizer.zero_grad(set_to_none=True)
        output: dict[str, Any] = {Keys.IMAGE: images, Keys.LABEL: targets}
        engine.state.output = output
        with autocast(device, self.amp, self.amp_dtype):
            output[Keys.PRED] = engine.inferer(images, engine.network, *args, **kwargs)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            output[Keys.LOSS] = engine.loss_function(output[Keys.PRED], targets).mean()
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        if self._is_good(output[Keys.LOSS], device, engine.state.iteration):
            self.scaler.scale(output[Keys.LOSS] / engine.accumulation_steps).backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            self._step(engine)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    def restore_scaler(self, device: torch.device, state: dict[str, Any]) -> None:
        """Make the gradient scaler and give it the state of a checkpoint."""
        self.scaler = make_scaler(device, self.amp, self.amp_dtype)
        if state:
            self.scaler.load_state_dict(state)

    def _is_good(self, loss: torch.Tensor, device: torch.device, iteration: int) -> bool:
        good = all_true(bool(torch.isfinite(loss)), device)
        self.bad_losses = 0 if good else self.bad_losses + 1
        if not good:
            logger.warning("iteration %d: loss is %s, skipped (%d in a row)", iteration, loss.item(), self.bad_losses)
        if self.bad_losses >= self.max_bad_losses:
            raise TrainingError(
                f"the loss was not finite {self.bad_losses} times in a row (iteration {iteration}); "
                "lower learning_rate, set amp to False, or check the images for non-finite values"
            )
        return good

    def _step(self, engine: Any) -> None:
        assert self.scaler is not None
        if self.clip_norm is not None:
            self.scaler.unscale_(engine.optimizer)
            torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.clip_norm)
        self.scaler.step(engine.optimizer)
        self.scaler.update()


def make_scaler(device: torch.device, amp: bool, amp_dtype: str) -> GradScaler:
    """Gradient scaler, enabled only for float16 on CUDA."""
    half = amp and device.type == "cuda" and autocast_dtype(device, amp_dtype) == torch.float16
    return GradScaler(device.type, enabled=half)


def accumulation_window(engine: Any) -> tuple[bool, bool]:
    """Whether this iteration is the first and the last of those whose gradients are added up."""
    position = (engine.state.iteration - 1) % engine.state.epoch_length
    steps = engine.accumulation_steps
    return position % steps == 0, (position + 1) % steps == 0 or position + 1 == engine.state.epoch_length


class EvalStep:
    """``iteration_update`` of a ``SupervisedEvaluator`` for one whole image.

    An image that could not be read, decoded or written is added to ``failures`` and the run goes on.

    Args:
        amp: mixed precision.
        amp_dtype: see ``cellbundle.device.autocast_dtype``.
        survive: False raises the first error instead.
    """

    def __init__(self, amp: bool = True, amp_dtype: str = "auto", survive: bool = True) -> None:
        self.amp, self.amp_dtype, self.survive = as_bool(amp), amp_dtype, as_bool(survive)
        self.failures: list[tuple[str, str]] = []

    def __call__(self, engine: Any, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Run one iteration; ``batch`` is what ``cellbundle.engine.data.collate_one`` makes."""
        if "padding" in batch:
            return []
        if "error" in batch:
            return self._fail(batch["path"][0], batch["error"][0])
        device = engine.state.device
        image = batch[Keys.IMAGE].to(device)
        engine.state.output = {key: batch[key] for key in (Keys.LABEL, "index") if key in batch} | {Keys.IMAGE: image}
        tensor = image.as_tensor() if hasattr(image, "as_tensor") else image
        with engine.mode(engine.network):
            engine.state.output[Keys.PRED] = forward(tensor, engine.network, engine.inferer, self.amp, self.amp_dtype)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        try:
            with original_errors():
                engine.fire_event(IterationEvents.MODEL_COMPLETED)
        except (CellBundleError, OSError) as error:
            if not self.survive:
                raise
            return self._fail(batch["path"][0], str(error))
        return engine.state.output

    def _fail(self, path: str, message: str) -> list[dict[str, Any]]:
        message = redact_text(message)
        logger.error("%s", message)
        self.failures.append((path, message))
        return []


def scored_output(output: list[dict[str, Any]]) -> tuple[list[Any], list[Any], np.ndarray]:
    """Predictions, labels and item numbers of one iteration of ``EvalStep``, for metrics; empty after a failure."""
    # An array, because ignite takes three lists of numbers or tensors for a mistake.
    return [o[Keys.PRED] for o in output], [o[Keys.LABEL] for o in output], np.array([int(o["index"]) for o in output])
