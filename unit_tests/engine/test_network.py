import re

import pytest
import torch
from torch import nn

from cellbundle.engine.network import (
    find_backbone,
    find_weights,
    fold_batch_norms,
    inference_network,
    load_weights,
    prepare_network,
    read_weights,
)
from cellbundle.errors import CheckpointError


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": w},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {"state_dict": {f"module._orig_mod.{k}": v for k, v in w.items()}},
        lambda w: {k: v.half() if v.is_floating_point() else v for k, v in w.items()},
    ],
    ids=["flat", "state_dict", "model", "ddp", "compiled", "half"],
)
def test_forms_of_checkpoints(wrap, tmp_path):
    source, target = network(), network()
    torch.save(wrap(source.state_dict()), tmp_path / "model.pt")
    load_weights(target, tmp_path / "model.pt")
    for key, value in source.state_dict().items():
        assert torch.allclose(target.state_dict()[key], value, atol=1e-3)


def test_another_network(tmp_path):
    torch.save(nn.Sequential(nn.Conv2d(1, 3, 3)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(CheckpointError) as error:
        load_weights(network(), tmp_path / "other.pt")
    message = str(error.value)
    assert re.search(r"other\.pt.*another network", message)
    assert "5 missing (1.weight" in message
    assert re.search(r"0\.weight: \(3, 1, 3, 3\).*\(2, 1, 3, 3\)", message)


@pytest.mark.parametrize(
    ("explanation", "advice"),
    [("it is a cake recipe", "it is a cake recipe"), (None, "network_def")],
)
def test_a_network_may_explain_what_does_not_fit(explanation, advice, tmp_path):
    class Explaining(nn.Linear):
        def explain_weights(self, weights):
            assert set(weights) == {"flour"}
            return explanation

    torch.save({"state_dict": {"flour": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"2 missing \(weight, bias\).* 1 .*\(flour\).*{advice}"):
        load_weights(Explaining(1, 1), tmp_path / "other.pt")
    fits = Explaining(1, 1)
    torch.save(fits.state_dict(), tmp_path / "fits.pt")
    load_weights(Explaining(1, 1), tmp_path / "fits.pt")


@pytest.mark.parametrize("content", [b"", b"junk", None], ids=["empty", "junk", "truncated"])
def test_damaged_file(content, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        read_weights(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save(network(), tmp_path / "pickled.pt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        read_weights(tmp_path / "pickled.pt")


def test_no_weights_inside(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_weights(tmp_path / "model.pt")


def test_find_weights(tmp_path):
    folder = str(tmp_path)
    (tmp_path / "model.pt").touch()
    (tmp_path / "other.pt").touch()
    assert find_weights("train", folder) is None
    assert find_weights("train", folder, name="other.pt") == str(tmp_path / "other.pt")
    assert find_weights("train", folder, name="other.pt", resume=True) is None
    assert find_weights("infer", folder) == str(tmp_path / "model.pt")
    assert find_weights("eval", folder, name="model.pt", path=str(tmp_path / "other.pt")) == str(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"none\.pt does not exist"):
        find_weights("infer", folder, name="none.pt")


def test_find_backbone(tmp_path, caplog):
    default, given = str(tmp_path / "default.pth"), str(tmp_path / "given.pth")
    assert find_backbone(None, default) is None
    assert re.search(r"default\.pth.*random weights", caplog.text)
    with pytest.raises(CheckpointError, match=r"given\.pth does not exist"):
        find_backbone(given, default)
    assert find_backbone(given, default, from_scratch=False) is None
    for path in (default, given):
        (tmp_path / path).touch()
    assert find_backbone(None, default) == default
    assert find_backbone(given, default) == given
    assert find_backbone(None, default, from_scratch=False) is None


def test_inference_network():
    plain = network().eval()
    assert inference_network(plain) is plain
    compiled = inference_network(plain, compiled=True)
    assert compiled is not plain
    nn.init.ones_(plain[0].weight)
    assert torch.equal(next(compiled.parameters()), plain[0].weight)


def test_channels_last():
    prepared = prepare_network(network(), torch.device("cpu"))
    assert prepared[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_folded_batch_norms_give_the_same_answer():
    conv, bias = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 2, 1)
    seen = [nn.BatchNorm2d(c) for c in (4, 4, 2, 2)]
    for norm in seen:
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(values, 0.5, 2.0)
    inner = nn.Sequential(conv, seen[0], nn.ReLU(), seen[1])
    plain = nn.Sequential(inner, bias, seen[2], seen[3]).eval()
    image = torch.rand(2, 3, 9, 8)
    expected = plain(image)
    fold_batch_norms(plain)
    torch.testing.assert_close(plain(image), expected)
    assert [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)] == [seen[1], seen[3]]


def test_a_network_to_fold_is_put_into_evaluation_mode():
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepare_network(network(), torch.device("cpu"), fold=True))
    assert isinstance(prepare_network(network().train(), torch.device("cpu"))[1], nn.BatchNorm2d)
