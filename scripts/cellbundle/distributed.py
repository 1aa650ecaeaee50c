"""The few places where several processes matter."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import distributed as dist
from torch import nn

from .device import choose_device

Kept = TypeVar("Kept")
Chosen = TypeVar("Chosen")


def is_distributed() -> bool:
    """Whether a process group runs."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def initialise(device_name: str = "auto") -> bool:
    """Join the process group that torchrun announces (nccl for CUDA, else gloo); True if this call made it."""
    if is_distributed() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    device = choose_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return True


def finalise() -> None:
    """Leave the process group."""
    if is_distributed():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in order of rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_first(choose: Callable[[], Chosen]) -> Chosen:
    """What process 0 chooses, in all processes; its error is raised in all of them."""
    if not is_distributed():
        return choose()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = choose()
        except Exception as error:  # noqa: BLE001 - raised below
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return cast(Chosen, answer[0])


def agree(value: int, device: torch.device) -> int:
    """The largest value of all processes."""
    if not is_distributed():
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())


def gather_by_index(kept: Mapping[int, Kept]) -> dict[int, Kept]:
    """What all processes keep of the images, by number and in that order; of an image that two have, one."""
    found = {index: one for part in gather(dict(kept)) for index, one in part.items()}
    return dict(sorted(found.items()))


def all_true(value: bool, device: torch.device) -> bool:
    """Whether ``value`` holds in every process."""
    if not is_distributed():
        return value
    flag = torch.tensor(int(value), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def broadcast_buffers(network: nn.Module) -> None:
    """Give all processes the buffers (batch-norm statistics) of process 0."""
    if is_distributed():
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
