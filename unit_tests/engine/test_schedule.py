import math

import pytest
import torch

from cellbundle.engine.schedule import (
    is_validation_epoch,
    make_optimizer,
    make_schedule,
    warmup_cosine,
    warmup_restarts,
)
from cellbundle.errors import ConfigError


def rates(peak, total, warmup, final=0.0):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = warmup_cosine(optimizer, total, warmup, final)
    values = []
    for _ in range(total + 1):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_exact_values():
    assert rates(1.0, 6, 2) == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 - 0.5 * math.cos(math.pi / 4), 0]
    )


def test_final_share_and_no_warmup():
    assert rates(2.0, 2, 0, final=0.1) == pytest.approx([2.0, 1.1, 0.2])


def test_warm_restarts():
    groups = [{"params": torch.nn.Parameter(torch.zeros(1)), "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = warmup_restarts(optimizer, period_steps=2, warmup_steps=2, start=0.1, final=0.0)
    seen = []
    for _ in range(7):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [0.1, 0.55, 1, 0.5, 1, 0.5, 1]
    assert [lr for lr, _ in seen] == pytest.approx(expected)
    assert [lr for _, lr in seen] == pytest.approx([0.1 * lr for lr in expected])


def test_scales_with_the_learning_rate():
    assert rates(0.01, 5, 1) == pytest.approx([0.01 * value for value in rates(1.0, 5, 1)])


@pytest.mark.parametrize(
    ("max_epochs", "interval", "expected"),
    [
        (1, 5, [1]),
        (4, 2, [2, 4]),
        (20, 5, [5, 10, 15, 16, 18, 19, 20]),
        (10, 100, [10]),
    ],
)
def test_validation_epochs(max_epochs, interval, expected):
    due = [e for e in range(1, max_epochs + 1) if is_validation_epoch(e, max_epochs, interval)]
    assert due == expected


def test_optimisers_by_name():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    sgd = make_optimizer("sgd", parameters, 0.1, weight_decay=0.2, momentum=0.3)
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.defaults[key] for key in ("lr", "weight_decay", "momentum")] == [0.1, 0.2, 0.3]
    adamw = make_optimizer("adamw", parameters, 0.1, weight_decay=0.2)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [adamw.defaults[key] for key in ("lr", "weight_decay")] == [0.1, 0.2]
    with pytest.raises(ConfigError, match=r"optimizer_name.*'adam'.*sgd or adamw"):
        make_optimizer("adam", parameters, 0.1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cosine", [1, 0.6, 0.2, 0.2, 0.2]), ("restarts", [1, 0.6, 1, 0.6, 1])],
)
def test_schedules_by_name(name, expected):
    """They go down to a learning rate, whatever the peak is."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(name, optimizer, period_steps=2, final_rate=0.2)
    seen = []
    for _ in expected:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"schedule.*'linear'.*cosine or restarts"):
        make_schedule("linear", optimizer, 1)
