"""Choice of device and precision; CUDA and MPS are pretended."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch

from cellbundle.device import autocast_dtype, choose_device, describe
from cellbundle.errors import ConfigError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda:0"), torch.device("mps")


@pytest.fixture
def hardware(monkeypatch):
    """Pretend to have some GPUs, MPS or CPU instructions; without a call, a plain CPU."""

    def pretend(n_gpus=0, mps=False, capability=(8, 0), cpu=()):
        major, minor = capability
        card = SimpleNamespace(name="Test GPU", total_memory=80 * 2**30, major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(cpu, True))

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    pretend()
    return pretend


@pytest.mark.parametrize(
    ("n_gpus", "mps", "requested", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda:0"),
        (2, True, None, "cuda:0"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (2, False, torch.device("cuda", 1), "cuda:1"),
        (2, True, "mps", "mps"),
        (2, True, "cpu", "cpu"),
    ],
)
def test_choice(hardware, n_gpus, mps, requested, expected):
    hardware(n_gpus, mps)
    assert choose_device(requested) == torch.device(expected)


@pytest.mark.parametrize("requested", ["auto", "cuda"])
def test_torchrun_gives_each_process_its_gpu(hardware, monkeypatch, requested):
    hardware(n_gpus=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(requested) == torch.device("cuda:1")
    assert choose_device("cpu") == CPU


def test_torchrun_without_gpu(hardware, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == CPU


def test_more_processes_than_gpus(hardware, monkeypatch):
    hardware(n_gpus=1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"'cuda:1'.*not available.*one process for each GPU"):
        choose_device()


@pytest.mark.parametrize("requested", ["cuda", "cuda:2", "mps", "gpu", "xpu", "cuda:x"])
def test_no_silent_fallback(hardware, requested):
    hardware(n_gpus=0 if requested == "cuda" else 2)
    with pytest.raises(ConfigError, match=rf"'{requested}.*not available.* auto, .*cpu"):
        choose_device(requested)


def test_choice_is_logged(hardware, caplog):
    hardware(n_gpus=1)
    with caplog.at_level(logging.INFO, "cellbundle.device"):
        choose_device("auto")
    assert re.search(r"cuda:0.*Test GPU, 80 GiB.* 8\.0 .*auto.*cuda:0, cpu", caplog.text)


@pytest.mark.parametrize(
    ("device", "name", "machine", "expected"),
    [
        (CUDA, "auto", {"n_gpus": 1, "capability": (9, 0)}, torch.bfloat16),
        (CUDA, "auto", {"n_gpus": 1, "capability": (7, 5)}, torch.float16),
        (CUDA, "float16", {"n_gpus": 1}, torch.float16),
        (CUDA, "float32", {"n_gpus": 1}, None),
        (MPS, "auto", {"mps": True}, None),
        (CPU, "auto", {"cpu": ["avx512_bf16"]}, torch.bfloat16),
        (CPU, "auto", {"cpu": ["amx_bf16"]}, torch.bfloat16),
        (CPU, "auto", {"cpu": ["avx2"]}, None),
        (CPU, "bfloat16", {}, torch.bfloat16),
    ],
)
def test_precision(hardware, device, name, machine, expected):
    hardware(**machine)
    assert autocast_dtype(device, name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [("fp16", "amp_dtype.*'fp16'.*auto, float16, bfloat16, float32"), ("float16", "float16.*slow on a CPU")],
)
def test_bad_precision(name, message):
    with pytest.raises(ConfigError, match=message):
        autocast_dtype(CPU, name)


def test_precision_works_on_this_cpu():
    dtype = autocast_dtype(CPU)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype or torch.float32)


def test_describe(hardware):
    hardware(cpu=["avx512_bf16"])
    assert describe(CPU).startswith("cpu: ")
    assert " bfloat16" in describe(CPU)
    assert describe(MPS) == "mps"
