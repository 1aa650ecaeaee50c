from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn

from cellbundle.engine.steps import TrainStep, accumulation_window, autocast
from cellbundle.errors import TrainingError

CPU = torch.device("cpu")


def trainer(losses=None, batches=4, clip=None, accumulation=1, max_bad=2):
    """One weight, loss = weight * image; ``losses`` replaces the factor of each batch."""
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(network.weight)
    values = losses or [1.0] * batches
    data = [{"image": torch.full((1, 1, 1, 1), v), "label": torch.zeros(1, 1, 1, 1)} for v in values]
    engine = SupervisedTrainer(
        device=CPU,
        max_epochs=1,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.5),
        loss_function=lambda prediction, label: (prediction - label).sum(),
        iteration_update=TrainStep(amp=False, clip_norm=clip, max_bad_losses=max_bad),
        accumulation_steps=accumulation,
        decollate=False,
    )
    return engine, network


def weight_after(**options):
    engine, network = trainer(**options)
    engine.run()
    return network.weight.item()


def test_plain_descent():
    assert weight_after(losses=[1.0, 2.0]) == pytest.approx(1 - 0.5 * 1 - 0.5 * 2)


def test_clipping():
    assert weight_after(losses=[10.0], clip=1.0) == pytest.approx(0.5, abs=1e-5)


def test_accumulation_averages_and_flushes_at_the_end():
    assert weight_after(losses=[1.0, 3.0, 4.0], accumulation=2) == pytest.approx(1 - 0.5 * (1 + 3) / 2 - 0.5 * 4 / 2)


def test_bad_loss_is_skipped():
    assert weight_after(losses=[float("nan"), 1.0]) == pytest.approx(0.5)


def test_too_many_bad_losses():
    with pytest.raises(TrainingError, match=r"not finite 2 times.*learning_rate"):
        weight_after(losses=[float("inf"), float("nan"), 1.0])


@pytest.mark.parametrize(
    ("iteration", "expected"), [(1, (True, False)), (2, (False, True)), (3, (True, True)), (4, (True, False))]
)
def test_accumulation_window(iteration, expected):
    engine = SimpleNamespace(state=SimpleNamespace(iteration=iteration, epoch_length=3), accumulation_steps=2)
    assert accumulation_window(engine) == expected


def test_autocast_on_a_cpu():
    a = torch.rand(4, 4)
    with autocast(CPU, True, "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(CPU, False, "bfloat16"):
        assert (a @ a).dtype == torch.float32
