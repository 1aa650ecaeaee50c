"""TensorRT engines through MONAI's ``trt_compile``, without its silent fallback to PyTorch."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, DependencyError

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
STRONGLY_TYPED = 11  # from this major version TensorRT has no FP16 flag, which MONAI sets


def compile_tensorrt(
    network: nn.Module,
    device: torch.device,
    folder: str,
    tile: Sequence[int],
    batch: Sequence[int] = (1, 4, 8),
    precision: str = "fp16",
    part: str | None = None,
    input_name: str = "image",
    output_names: Sequence[str] | None = None,
) -> nn.Module:
    """Let TensorRT run a network, or a part of it; the engine is built at the first call and kept in a file.

    The tile is static, the batch dynamic. The file's name says what the engine was built for (precision, profile,
    versions, GPU), so that an engine for something else is never picked up.

    Args:
        network: on the GPU, with weights.
        device: a CUDA device.
        folder: where the engine's file goes.
        tile: (h, w) of every input, pixels.
        batch: smallest, typical and largest batch.
        precision: fp32, tf32, fp16 or bf16.
        part: submodule to compile, for networks of which the rest has no static shapes; None compiles all.
        input_name: of the argument of ``forward`` that is the image.
        output_names: keys of the dictionary that ``forward`` gives; None if it gives one tensor.

    Returns:
        The network, whose ``forward``, or that of its part, now calls the engine.

    Raises:
        DependencyError: if TensorRT is not installed; MONAI would run PyTorch instead and only warn.
        ConfigError: for a device, precision or version that cannot work.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"trt_precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    version = _version()
    device = torch.device(device)
    if device.type != "cuda":
        raise ConfigError(f"TensorRT needs a CUDA device, this runs on {device}; leave inference_trt.json out")
    if int(version.split(".")[0]) >= STRONGLY_TYPED and precision == "fp16":
        raise ConfigError(
            f"TensorRT {version} has no fp16 mode for typed networks; install tensorrt>=10.15.1,<10.16 or use fp32"
        )
    from monai.networks import trt_compile  # noqa: PLC0415  (needs tensorrt)

    shapes = [[size, 3, *tile] for size in batch]
    options: dict[str, Any] = {
        "precision": precision,
        "input_profiles": [{input_name: shapes}],
        "input_names": [input_name],
        "output_names": None if output_names is None else list(output_names),
    }
    plan = str(Path(folder) / plan_name(device, tile, batch, precision, version))
    return trt_compile(network, plan, args=options, submodule=part)


def plan_name(device: torch.device, tile: Sequence[int], batch: Sequence[int], precision: str, version: str) -> str:
    """File name of an engine: all that decides whether it may be used again."""
    major, minor = torch.cuda.get_device_capability(device)
    sizes = "x".join(map(str, tile)) + "_b" + "-".join(map(str, batch))
    return f"model_{precision}_{sizes}_trt{version}_sm{major}{minor}"


def _version() -> str:
    try:
        return str(import_module("tensorrt").__version__)
    except ImportError as error:
        raise DependencyError(
            "TensorRT is not installed; on a machine with an NVIDIA GPU install 'torch-tensorrt==2.11.0' and "
            "'tensorrt>=10.15.1,<10.16', or leave inference_trt.json out"
        ) from error
