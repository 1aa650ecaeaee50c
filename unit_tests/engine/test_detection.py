import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import nn

from cellbundle.engine.detection import SumOfLosses, prepare_instances
from cellbundle.engine.steps import TrainStep
from cellbundle.errors import ConfigError
from cellbundle.transforms import InstanceMapsd

CPU = torch.device("cpu")


def batch(*labels):
    maps = [InstanceMapsd()({"label": torch.tensor(one)[None]})["label"] for one in labels]
    stacked = {key: torch.stack([one[key] for one in maps]) for key in maps[0]}
    return {"image": torch.zeros(len(labels), 3, *maps[0]["label_map"].shape), "label": stacked}


def test_each_image_has_its_own_number_of_targets():
    images, targets, args, kwargs = prepare_instances(batch([[1, 0, 2]], [[0, 0, 0]]), CPU)
    assert images.shape == (2, 3, 1, 3)
    assert [len(target["boxes"]) for target in targets] == [2, 0]
    assert args == (targets,)
    assert kwargs == {}
    assert {key: value.dtype for key, value in targets[0].items()} == {
        "boxes": torch.float32, "labels": torch.int64, "masks": torch.uint8,
    }  # fmt: skip


def test_losses_are_weighted_and_remembered():
    loss = SumOfLosses({"mask": 2.0})
    total = loss({"mask": torch.tensor(1.5), "box": torch.tensor(0.25)}, None)
    assert total.item() == pytest.approx(3.25)
    assert {name: value.item() for name, value in loss.terms.items()} == {"mask": 1.5, "box": 0.25}


def test_a_weight_of_no_loss_is_refused():
    with pytest.raises(ConfigError, match=r"loss_maks.*loss_mask"):
        SumOfLosses({"loss_maks": 2.0})({"loss_mask": torch.tensor(1.0)})


class CountsTargets(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images, targets):
        return {"count": self.weight * sum(len(target["boxes"]) for target in targets)}


def test_the_trainer_gives_targets_to_the_network():
    network = CountsTargets()
    trainer = SupervisedTrainer(
        device=CPU,
        max_epochs=1,
        train_data_loader=[batch([[1, 0, 2]], [[3, 0, 0]])],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=SumOfLosses(),
        prepare_batch=prepare_instances,
        inferer=SimpleInferer(),
        iteration_update=TrainStep(amp=False),
        decollate=False,
    )
    trainer.run()
    assert network.weight.item() == pytest.approx(1 - 0.1 * 3)
