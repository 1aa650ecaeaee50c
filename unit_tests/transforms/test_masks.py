"""Targets, decoding and the layout of pictures as transforms."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from cellbundle.decode.flows import decode_flows
from cellbundle.errors import ArrayError
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.targets.flows import labels_to_flows
from cellbundle.transforms.masks import DecodeFlowsd, FlowTargetsd, RenumberLabelsd, ToPictureLayoutd


def digits(*rows):
    """(1, H, W) int32 tensor from strings of digits; a dot is background."""
    return torch.tensor([[[int(c) if c != "." else 0 for c in row] for row in rows]], dtype=torch.int32)


def target(labels, **options):
    return FlowTargetsd(**options)({"label": labels})["label"]


def cells():
    return torch.from_numpy(generate("phase", (80, 100), 15, diameter=18, touching=0.5, seed=2)[1])[None]


# Ids


@pytest.mark.parametrize("wrap", [lambda a: a, torch.from_numpy, lambda a: MetaTensor(torch.from_numpy(a))])
def test_ids_become_consecutive(wrap):
    """Ids that float32 cannot tell apart are the reason."""
    labels = np.array([[[0, 2**24, 2**24 + 1], [7, 0, 7]]], np.int32)
    data = {"label": wrap(labels), "image": "untouched"}
    result = RenumberLabelsd()(data)
    assert result["label"].dtype == torch.int32
    assert result["label"].tolist() == [[[0, 2, 3], [1, 0, 1]]]
    assert result["image"] == "untouched"
    assert labels.max() == 2**24 + 1


# Targets


def test_a_target_by_hand():
    result = target(digits("....", ".77.", "...."))
    assert result.dtype == torch.float32
    assert type(result) is torch.Tensor
    assert result.tolist() == [
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 1, -1, 0], [0, 0, 0, 0]],
    ]


def test_a_cell_cut_in_two_gets_two_centres():
    """A crop through a horseshoe: each leg leads to its own middle, not to that of the whole."""
    legs = digits("111.111", "111.111", "111.111")
    cell, dy, dx = target(legs)
    assert torch.equal(cell, (legs[0] > 0).float())
    for leg in (slice(0, 3), slice(4, 7)):
        assert dx[1, leg].sign().tolist() == [1, 0, -1]
        assert dy[:, leg][:, 1].sign().tolist() == [1, 0, -1]
    uncut = labels_to_flows(legs[0].numpy(), across_borders=False)
    assert not uncut[:, :, 4:].any()  # without splitting, one leg would have no flow


def test_parts_that_meet_at_a_corner_are_apart():
    corner = digits("11..", "11..", "..11", "..11")
    expected = labels_to_flows(digits("11..", "11..", "..22", "..22")[0].numpy(), across_borders=False)
    np.testing.assert_array_equal(target(corner)[1:], expected)


@pytest.mark.parametrize("across_borders", [True, False])
def test_touching_cells_stay_two(across_borders):
    labels = cells()
    cell, *flows = target(labels, across_borders=across_borders)
    assert torch.equal(cell, (labels[0] > 0).float())
    expected = labels_to_flows(labels[0].numpy(), across_borders=across_borders)
    np.testing.assert_array_equal(torch.stack(flows), expected)


def test_by_default_border_pixels_point_inwards():
    assert torch.equal(target(cells()), target(cells(), across_borders=False))
    assert not torch.equal(target(cells()), target(cells(), across_borders=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_targets_of_other_types(dtype):
    assert torch.equal(target(cells().to(dtype)), target(cells()))


@pytest.mark.parametrize("wrap", [np.asarray, MetaTensor, lambda a: a.transpose(1, 2).contiguous().transpose(1, 2)])
def test_targets_of_arrays_and_metatensors(wrap):
    assert torch.equal(target(wrap(cells())), target(cells()))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 6, 9)])
def test_targets_of_empty_maps(shape):
    result = target(torch.zeros(shape, dtype=torch.int32))
    assert result.shape == (3, *shape[1:])
    assert not result.any()


def test_other_entries_and_the_input_stay():
    labels = cells()
    data = {"label": labels, "truth": labels, "image": "x"}
    result = FlowTargetsd(["label"])(data)
    assert result["image"] == "x"
    assert result["truth"] is labels
    assert data["label"] is labels
    assert torch.equal(labels, cells())


# Decoding


def prediction(labels, across_borders=True):
    """What a perfect network predicts, (3, H, W) float32."""
    flows = labels_to_flows(labels, across_borders=across_borders)
    return torch.from_numpy(np.concatenate([np.where(labels > 0, 5, -5)[None], 5 * flows]).astype(np.float32))


def decoded(pred, **options):
    return DecodeFlowsd(**options)({"pred": pred})["pred"]


def test_targets_and_decoding_are_a_round_trip():
    labels = cells()
    goal = target(labels)
    network_output = torch.cat([10 * goal[:1] - 5, 5 * goal[1:]])
    result = decoded(network_output, across_borders=False)
    assert result.shape == labels.shape
    assert result.dtype == torch.int32
    assert type(result) is torch.Tensor
    assert image_scores(labels[0].numpy(), result[0].numpy())["ap90"] == 1


def test_decoding_is_that_of_the_core():
    pred = prediction(cells()[0].numpy())
    result = decoded(pred)
    assert result.dtype == torch.int32
    np.testing.assert_array_equal(result[0].numpy(), decode_flows(pred.numpy()))


def test_hundreds_of_cells_keep_their_ids():
    tile = np.zeros((6, 6), np.int32)
    tile[1:5, 1:5] = 1
    grid = np.tile(tile, (17, 16))
    labels = grid * (1 + np.arange(17).repeat(6)[:, None] * 16 + np.arange(16).repeat(6))
    assert np.unique(decoded(prediction(labels))).tolist() == list(range(273))


def test_options_reach_the_decoder():
    labels = cells()[0].numpy()
    areas = np.bincount(labels.ravel())[1:]
    middle = int(np.median(areas))
    assert decoded(prediction(labels), min_size=middle).max() < decoded(prediction(labels)).max()
    assert decoded(prediction(labels), cell_threshold=6.0).max() == 0
    with pytest.raises(TypeError, match="min_sise"):
        decoded(prediction(labels), min_sise=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.to(torch.float64),
        lambda p: p.to(torch.float16),
        lambda p: p.to(torch.bfloat16),
        lambda p: p.clone().requires_grad_(),
        lambda p: p[None].contiguous(memory_format=torch.channels_last)[0],
        MetaTensor,
        lambda p: p.numpy(),
    ],
)
def test_predictions_of_other_types(change):
    pred = prediction(cells()[0].numpy())
    scores = image_scores(decoded(pred)[0].numpy(), decoded(change(pred))[0].numpy())
    assert scores["ap90"] == 1


def test_predictions_of_several_keys():
    pred = prediction(cells()[0].numpy())
    data = {"a": pred, "b": pred[:, :40], "image": "x"}
    result = DecodeFlowsd(["a", "b"])(data)
    assert result["a"].shape == (1, 80, 100)
    assert result["b"].shape == (1, 40, 100)
    assert result["image"] == "x"
    assert data["a"] is pred


def test_a_prediction_of_another_shape_is_refused():
    with pytest.raises(ArrayError, match=r"\(3, H, W\) floating point.*\(2, 8, 8\)"):
        decoded(torch.zeros(2, 8, 8))


def test_no_cells():
    result = decoded(-torch.ones(3, 5, 7))
    assert result.shape == (1, 5, 7)
    assert not result.numpy().any()


# Pictures


def picture(labels):
    return ToPictureLayoutd()({"pred": labels})["pred"]


def test_a_picture_by_hand():
    result = picture(digits("120", "003"))
    assert result.dtype == torch.uint16
    assert result.is_contiguous()
    assert result.tolist() == [[1, 0], [2, 0], [0, 3]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("wrap", [lambda a: a, MetaTensor, lambda a: a.numpy()])
def test_pictures_of_other_types(wrap, dtype):
    labels = cells().to(dtype)
    result = picture(wrap(labels))
    assert result.shape == (100, 80)
    np.testing.assert_array_equal(result.numpy(), labels[0].numpy().T)


def test_pictures_do_not_overflow():
    labels = torch.tensor([[[0, 65535]]], dtype=torch.int32)
    assert picture(labels).tolist() == [[0], [65535]]
    with pytest.raises(ArrayError, match=r"65536 instances.*uint16.* 65535"):
        picture(labels + (labels > 0).int())
    assert picture(torch.zeros((1, 0, 4), dtype=torch.int32)).shape == (4, 0)
