"""Networks made ready to run: memory format, device, weights, compilation, several processes."""

import logging
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..distributed import is_distributed
from ..errors import CheckpointError
from ..flags import as_bool
from ..record import BEST

logger = logging.getLogger(__name__)

NESTED_KEYS = ("state_dict", "model", "network")  # where checkpoints of this field keep the weights
PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
MAX_SHOWN = 5  # keys spelled out in one message


def find_weights(
    mode: str, ckpt_path: str, name: str | None = None, path: str | None = None, resume: bool = False
) -> str | None:
    """File to load weights from.

    Args:
        mode: train, eval or infer.
        ckpt_path: folder of the bundle's checkpoints.
        name: file in that folder (``pretrained_ckpt_name``).
        path: file anywhere (``pretrained_ckpt_path``); wins over ``name``.
        resume: training goes on from ``latest.pt``, which holds weights of its own.

    Returns:
        The file; None to train from scratch.

    Raises:
        CheckpointError: if the file does not exist.
    """
    if mode == "train" and (as_bool(resume) or (name is None and path is None)):
        return None
    file = Path(path) if path else Path(ckpt_path) / (name or BEST)
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; train first, or name a file with --pretrained_ckpt_path")
    return str(file)


def find_backbone(path: str | None, default: str, from_scratch: bool = True) -> str | None:
    """File that a part of a network starts from when training begins from scratch.

    Args:
        path: as the user gives it.
        default: used without ``path``, if it exists.
        from_scratch: False where a checkpoint of the whole network follows, so that no such file is needed.

    Returns:
        The file; None if there is none or none is needed.

    Raises:
        CheckpointError: if ``path`` does not exist.
    """
    if not from_scratch:
        return None
    if path is not None and not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist; check the path, or leave it out to start from random weights")
    if path is None and not Path(default).is_file():
        logger.warning("%s is not there: training starts from random weights", default)
        return None
    return path or default


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """State dict of a checkpoint: flat or nested, with or without the prefixes of DDP and ``torch.compile``.

    Raises:
        CheckpointError: if the file is missing or damaged, or holds no weights.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist; train first, or give other weights")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); it may be truncated"
        ) from error
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise CheckpointError(
            f"{path}: holds no state dict; expected weights, flat or under one of {', '.join(NESTED_KEYS)}"
        )
    return {_strip(key): value for key, value in content.items()}


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a checkpoint strictly.

    A network may have a method ``explain_weights(weights)``, which gets the state dict of a file that does not fit and
    says what it probably is and which file was meant; without it, or if it returns None, the advice is general.

    Raises:
        CheckpointError: if keys or shapes differ; the message names the first few.
    """
    assign_weights(network, read_weights(path), path, getattr(network, "explain_weights", None))
    logger.info("weights from %s", path)


def assign_weights(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    path: str | Path,
    explain: Callable[[Mapping[str, torch.Tensor]], str | None] | None = None,
) -> None:
    """Give a network, or a part of one, exactly these weights.

    Args:
        network: gets the weights.
        weights: a state dict.
        path: where they come from, for the message.
        explain: see ``load_weights``.

    Raises:
        CheckpointError: if keys or shapes differ; the message names the first few.
    """
    own = network.state_dict()
    wrong = [
        f"{k}: {tuple(v.shape)} in the file, {tuple(own[k].shape)} here"
        for k, v in weights.items()
        if k in own and v.shape != own[k].shape
    ]
    problems = {
        "missing": [k for k in own if k not in weights],
        "not expected": [k for k in weights if k not in own],
        "of another shape": wrong,
    }
    if any(problems.values()):
        text = "; ".join(f"{len(v)} {name} ({', '.join(v[:MAX_SHOWN])})" for name, v in problems.items() if v)
        advice = (explain(weights) if explain else None) or "check the path and network_def"
        raise CheckpointError(f"{path} belongs to another network than {type(network).__name__}: {text}; {advice}")
    network.load_state_dict(weights)


def prepare_network(
    network: nn.Module, device: torch.device, weights: str | None = None, fold: bool = False
) -> nn.Module:
    """Load weights and move to the device, with channels last for the convolutions of CPUs and tensor cores.

    Args:
        network: as the configuration builds it.
        device: as chosen by ``cellbundle.device.choose_device``.
        weights: checkpoint or None.
        fold: see ``fold_batch_norms``; for networks that will neither be trained nor saved.

    Returns:
        The same network.
    """
    if weights is not None:
        load_weights(network, weights)
    if fold:
        fold_batch_norms(network.eval())
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_batch_norms(network: nn.Module) -> None:
    """Fold batch normalisations into the convolutions before them, in place: the same answers with less to compute.

    Args:
        network: in evaluation mode. Only what follows each other in an ``nn.Sequential`` is known to, so nothing else
            is folded. The state dict has fewer keys afterwards.

    Source: ``torch.nn.utils.fusion`` does the work.
    """
    for block in network.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for i, (first, second) in enumerate(pairwise(block)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                block[i], block[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def inference_network(network: nn.Module, compiled: bool = False) -> Any:
    """The network as the evaluator calls it: compiled if wanted, with the same weights."""
    return torch.compile(network) if as_bool(compiled) else network


def training_network(network: nn.Module, device: torch.device, compiled: bool = False) -> nn.Module:
    """The network as the trainer calls it: compiled if wanted, averaging gradients if there are several processes.

    Batch normalisation is over the crops of all GPUs then, and over those of each process on CPUs.
    """
    device = torch.device(device)  # MONAI Label gives a name
    if is_distributed() and device.type == "cuda":  # PyTorch has none for CPUs
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    trained: Any = torch.compile(network) if as_bool(compiled) else network
    if is_distributed():
        ids = [device.index] if device.type == "cuda" else None
        trained = nn.parallel.DistributedDataParallel(trained, device_ids=ids)
    return trained


def _strip(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key
