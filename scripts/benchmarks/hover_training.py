"""Time and memory of a training step of hover_uni: phase 1 without and with cached features, and phase 2.

python scripts/benchmarks/hover_training.py [--backbone vit_small_patch16_224] [--batch 2] [--size 224] [--steps 3]

Random weights and images, float32 on a CPU and bfloat16 on a GPU. Each case runs in a process of its own, for its
memory. On a CPU the time is that of the processor, which other programs hardly change, with one thread.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cellbundle.device import autocast
from cellbundle.engine.features import FeatureCache
from cellbundle.losses.hover import HoverLoss

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "hover_uni"
CASES = {
    "phase 1": {},
    "phase 1, cached features": {"cache": True},
    "phase 2": {"lora": True},
    "all of the backbone": {"freeze": False},
}


def measure(case: str, backbone: str, batch: int, size: int, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds a step and GB at the peak, after a first step that is not counted."""
    sys.path.insert(0, str(BUNDLE))
    from scripts.network import HoverUniNetwork, parameter_groups  # noqa: PLC0415  (its folder had to be named first)

    options = CASES[case]
    torch.manual_seed(0)
    network = HoverUniNetwork(backbone, freeze_backbone=options.get("freeze", True)).to(device).train()
    network = network.to(memory_format=torch.channels_last)
    if options.get("lora"):
        network.start_lora(4)
    network.feature_cache = FeatureCache() if options.get("cache") else None
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-3, 1e-5, 1e-4))
    image = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    target, loss = torch.rand(batch, 3, size, size, device=device).round(), HoverLoss()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, device.type == "cuda", "bfloat16"):
            value = loss(network(image), target)
        value.backward()
        optimizer.step()

    step()
    seconds = time_of(step, steps, device)
    if device.type == "cuda":
        return {"seconds": seconds, "gb": torch.cuda.max_memory_allocated(device) / 1e9}
    return {"seconds": seconds, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def time_of(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds a step: of the clock on a GPU, of the processor on a CPU."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    start = clock()
    for _ in range(steps):
        step()
    if on_gpu:
        torch.cuda.synchronize(device)
    return (clock() - start) / steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", choices=CASES, help="measure only this one, and print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        torch.set_num_threads(1)
        print(json.dumps(measure(**{**vars(arguments), "device": torch.device(arguments.device)})))
    else:
        print(f"| {arguments.backbone}, batch {arguments.batch} | s a step | GB at the peak |\n|---|---|---|")
        for name in CASES:
            command = [sys.executable, __file__, *sys.argv[1:], "--case", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            print(f"| {name} | {result['seconds']:.2f} | {result['gb']:.2f} |", flush=True)
