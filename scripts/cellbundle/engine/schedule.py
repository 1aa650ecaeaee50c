"""Optimisers by name, when the learning rate changes and when validation runs."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..errors import ConfigError


def make_optimizer(
    name: str, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.9
) -> Optimizer:
    """Optimiser by its name.

    Args:
        name: ``sgd`` or ``adamw``.
        params: what it changes.
        lr: learning rate.
        weight_decay: of both.
        momentum: of ``sgd``.

    Raises:
        ConfigError: for another name.
    """
    if name == "sgd":
        return SGD(params, lr, momentum=momentum, weight_decay=weight_decay)
    if name == "adamw":
        return AdamW(params, lr, weight_decay=weight_decay)
    raise ConfigError(f"optimizer_name is {name!r}; choose sgd or adamw")


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.01) -> LambdaLR:
    """Linear warm-up, then half a cosine down to a small share of the learning rate.

    It multiplies whatever learning rate the optimiser was given, so fine-tuning follows it too.

    Args:
        optimizer: its ``lr`` is the peak.
        total_steps: calls of ``step`` until the end.
        warmup_steps: of these, steps of the warm-up, which starts at 1 / (warmup_steps + 1).
        final: share of the peak at the end.

    Source: Loshchilov & Hutter, ICLR 2017.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def warmup_restarts(
    optimizer: Optimizer, period_steps: int, warmup_steps: int = 0, start: float = 0.1, final: float = 0.01
) -> LambdaLR:
    """Linear warm-up, then half cosines of equal length that each begin at the full learning rate again.

    Args:
        optimizer: the learning rates of its groups are the peaks.
        period_steps: calls of ``step`` from one restart to the next; with those of the whole run, there is none.
        warmup_steps: steps of the warm-up, which are not part of the first period.
        start: share of the peak that the warm-up starts from.
        final: share of the peak at the end of a period.

    Source: Loshchilov & Hutter, ICLR 2017.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return start + (1 - start) * step / warmup_steps
        progress = (step - warmup_steps) % period_steps / period_steps
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def make_schedule(
    name: str, optimizer: Optimizer, period_steps: int, warmup_steps: int = 0, final_rate: float = 1e-6
) -> LambdaLR:
    """Schedule of the learning rate by its name.

    Args:
        name: ``cosine``, once down and then constant, or ``restarts``, down again and again.
        optimizer: its ``lr`` is the peak.
        period_steps: calls of ``step`` from the peak to the lowest learning rate.
        warmup_steps: steps before the first period.
        final_rate: learning rate at the end of a period.

    Raises:
        ConfigError: for another name.
    """
    final = final_rate / optimizer.defaults["lr"]
    if name == "cosine":
        return warmup_cosine(optimizer, warmup_steps + period_steps, warmup_steps, final)
    if name == "restarts":
        return warmup_restarts(optimizer, period_steps, warmup_steps, final=final)
    raise ConfigError(f"schedule is {name!r}; choose cosine or restarts")


def is_validation_epoch(epoch: int, max_epochs: int, interval: int) -> bool:
    """Whether to validate after an epoch: every ``interval``, more often in the last quarter, always in the last tenth.

    Args:
        epoch: 1..max_epochs.
        max_epochs: epochs of the run.
        interval: epochs between validations at the start.
    """
    left = (max_epochs - epoch) / max_epochs
    every = 1 if left < 0.1 else max(1, interval // 2) if left < 0.25 else interval
    return epoch % every == 0 or epoch == max_epochs
