"""The one place where a device and its precision are chosen."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import ConfigError

logger = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": None}
BFLOAT16_CAPABILITY = (8, 0)  # CUDA compute capability from which bfloat16 runs in hardware


def choose_device(requested: str | torch.device | None = "auto") -> torch.device:
    """Choose where to compute, and log the choice. A device that was asked for is never replaced by another.

    Args:
        requested: ``auto`` or None for the first available of cuda, mps and cpu; or ``cuda``, ``cuda:N``, ``mps``,
            ``cpu``. Without an index, cuda is the GPU of this process under torchrun (``LOCAL_RANK``), else ``cuda:0``.

    Returns:
        The device; a CUDA device always has an index.

    Raises:
        ConfigError: if the device is not known or not available; the message names those that are.
    """
    name = str(requested or "auto")
    available = _available()
    wanted = available[0].partition(":")[0] if name == "auto" else name
    if wanted == "cuda":
        wanted = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if wanted not in available:
        hint = "; under torchrun, start at most one process for each GPU" if "LOCAL_RANK" in os.environ else ""
        raise ConfigError(f"device {wanted!r} is not available; choose one of auto, {', '.join(available)}{hint}")
    device = torch.device(wanted)
    logger.info("computing on %s (asked for %s, available: %s)", describe(device), name, ", ".join(available))
    return device


def autocast_dtype(device: torch.device, name: str = "auto") -> torch.dtype | None:
    """Precision for ``torch.autocast`` on a device.

    Args:
        device: as returned by ``choose_device``.
        name: ``float16``, ``bfloat16`` or ``float32``; or ``auto`` for bfloat16 where the hardware has it (CUDA from
            compute capability 8.0, CPUs with AVX512-BF16 or AMX), else float16 on CUDA, else float32.

    Returns:
        The dtype, or None for float32: no autocast.

    Raises:
        ConfigError: if the name is not known, or is float16 on a CPU, where it is far slower than float32.
    """
    if name == "auto":
        return _best_dtype(device)
    if name not in DTYPES:
        raise ConfigError(f"amp_dtype is {name!r}; choose one of auto, {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise ConfigError("amp_dtype is float16, which is far too slow on a CPU; choose auto, bfloat16 or float32")
    return DTYPES[name]


def describe(device: torch.device) -> str:
    """One line for logs: the device and what decides its speed."""
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        return f"{device}: {card.name}, {card.total_memory / 2**30:.0f} GiB, capability {card.major}.{card.minor}"
    if device.type == "cpu":
        bfloat16 = "bfloat16" if _cpu_has_bfloat16() else "no bfloat16"
        return f"cpu: {torch.backends.cpu.get_cpu_capability()}, {bfloat16}, {torch.get_num_threads()} threads"
    return str(device)


def _available() -> list[str]:
    """Names of the devices that this process can use, best first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _best_dtype(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else None


def _cpu_has_bfloat16() -> bool:
    """Whether bfloat16 runs in hardware; ``_is_mkldnn_bf16_supported`` is also true where it is emulated."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, amp: bool, amp_dtype: str) -> AbstractContextManager:
    """Return the context of mixed precision, or one without effect if ``amp`` is off or not supported."""
    dtype = autocast_dtype(device, amp_dtype) if amp else None
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
