"""Peak memory of inference, for processes of their own."""

import resource
from pathlib import Path
from typing import Any

import psutil
import torch

from .paths import BATCH, OVERLAP, Bundle, Variant, windows_of
from .stages import Effort, Windows

SIDE = 1024  # pixels
N_CALLS = 1  # of the network; further ones need no more


def memory_variants(bundle: Bundle) -> list[Variant]:
    """Plain and fused attention, in float32 and as the bundle computes; none where there is no choice."""
    if "fused_attention" not in bundle.parser.get():
        return []
    common = windows_of(bundle.parser.get_parsed_content("inferer"), OVERLAP) | {"inferer#sw_batch_size": BATCH}
    return [
        Variant(f"{name} attention, {precision}", common | {"fused_attention": fused, "amp": amp})
        for precision, amp in (("float32", False), ("the bundle's precision", True))
        for name, fused in (("plain", False), ("fused", True))
    ]


def peak_memory(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    """GiB of this process, or of its GPU: before the network runs, and at most until an image of 1024² is done."""
    path = bundle.path(variant)
    image = torch.rand(1, 3, SIDE, SIDE, device=path.device)
    on_gpu = path.device.type == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    path.infer(image, Windows(path.network, Effort(1, windows=N_CALLS * BATCH)))
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_of_process()
    return {"name": variant.name, "before": before / 2**30, "peak": peak / 2**30}


def peak_of_process() -> int:
    """Largest resident size of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss starts at the size of the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
