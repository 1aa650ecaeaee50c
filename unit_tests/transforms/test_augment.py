"""Random crops: exact samples, aligned labels, distributions."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from cellbundle.transforms import RandCropAffined
from cellbundle.transforms.augment import sample_affine

N_DRAWS = 2000
DISC = 2 / np.sqrt(np.pi)  # diameter of the disc that is as large as a square of 1


def numbered(height, width, dtype=torch.float32):
    """(1, H, W): every pixel has a value of its own."""
    return torch.arange(1, height * width + 1).reshape(1, height, width).to(dtype)


def centred(linear, shape):
    """(2, 3) matrix that puts the middle of the output on the middle of an input of this shape."""
    return np.concatenate([linear, (np.array(shape)[:, None] - 1) / 2], axis=1)


def cropper(seed=0, **options):
    options = {"size": (16, 20), "zoom": (1, 1), "stretch": 0, "rotate": 0} | options
    return RandCropAffined(["image", "label"], **options).set_random_state(seed)


# Sampling


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("linear", "expected"),
    [
        ([[1, 0], [0, 1]], lambda a: a),
        ([[-1, 0], [0, 1]], lambda a: a.flip(1)),
        ([[1, 0], [0, -1]], lambda a: a.flip(2)),
        ([[-1, 0], [0, -1]], lambda a: a.flip(1, 2)),
        ([[0, 1], [1, 0]], lambda a: a.transpose(1, 2)),
        ([[0, 1], [-1, 0]], lambda a: a.flip(2).transpose(1, 2)),
    ],
)
def test_mirrors_and_quarter_turns_are_exact(linear, expected, mode):
    tensor = numbered(5, 8)
    want = expected(tensor)
    torch.testing.assert_close(sample_affine(tensor, centred(linear, (5, 8)), want.shape[1:], mode), want)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(("y", "x"), [(0, 0), (2, 5), (4, 0), (4, 7)])
def test_a_crop_at_whole_pixels_is_exact(y, x, mode):
    tensor = torch.cat([numbered(9, 12), -numbered(9, 12)])
    matrix = np.array([[1, 0, y + (5 - 1) / 2], [0, 1, x + (5 - 1) / 2]])
    torch.testing.assert_close(sample_affine(tensor, matrix, (5, 5), mode), tensor[:, y : y + 5, x : x + 5])


def test_half_a_pixel_is_the_mean_of_neighbours():
    tensor = torch.tensor([[[0.0, 10, 30, 60]]])
    result = sample_affine(tensor, np.array([[1, 0, 0], [0, 1, 1.0]]), (1, 2), "bilinear")
    assert result.tolist() == [[[5, 20]]]


def test_zoom_2_repeats_pixels():
    tensor = numbered(3, 4)
    result = sample_affine(tensor, centred(np.eye(2) / 2, (3, 4)), (6, 8), "nearest")
    torch.testing.assert_close(result, tensor.repeat_interleave(2, 1).repeat_interleave(2, 2))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_beyond_the_border_the_image_is_mirrored(mode):
    tensor = numbered(4, 6)
    result = sample_affine(tensor, centred(np.eye(2), (4, 6)), (10, 14), mode)
    expected = np.pad(tensor[0].numpy(), ((3, 3), (4, 4)), mode="symmetric")
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float64, torch.float16])
def test_the_type_is_kept(dtype):
    tensor = numbered(4, 5, dtype)
    result = sample_affine(tensor, centred(np.eye(2), (4, 5)), (4, 5), "nearest")
    assert result.dtype == dtype
    torch.testing.assert_close(result, tensor)


def test_large_ids_are_kept():
    labels = torch.tensor([[[2**24, 2**24 + 1, 0, 2**31 - 1]]], dtype=torch.int32)
    assert sample_affine(labels, centred(np.eye(2), (1, 4)), (1, 4), "nearest").tolist() == labels.tolist()


# Random crops


def test_the_same_seed_gives_the_same_crop():
    data = {"image": torch.rand(3, 40, 50), "label": numbered(40, 50)}
    options = {"zoom": (0.7, 1.5), "stretch": 0.2, "rotate": 0.5}
    first, second = cropper(7, **options), cropper(7, **options)
    crops = [(first(data), second(data)) for _ in range(3)]
    for a, b in crops:
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])
    assert not torch.equal(crops[0][0]["label"], crops[1][0]["label"])
    assert not torch.equal(cropper(8, **options)(data)["label"], crops[0][0]["label"])


def test_a_pipeline_passes_its_seed_on():
    data = {"image": torch.rand(3, 40, 50), "label": numbered(40, 50)}
    first, second = (Compose([cropper(i, rotate=1)]).set_random_state(3)(data) for i in range(2))
    assert torch.equal(first["label"], second["label"])


@pytest.mark.parametrize("shape", [(60, 70), (17, 70), (10, 12)])
def test_image_and_label_stay_aligned(shape):
    """The label, given as an image too, shows the same cells in the same places."""
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    label = torch.from_numpy(((ys // 7) * 11 + xs // 9).astype(np.float32))[None]
    crop = RandCropAffined(
        ["image", "smooth", "label"], (32, 24), (0.7, 1.5), 0.2, 0.5, ("nearest", "bilinear", "nearest")
    )
    crop.set_random_state(1)
    for _ in range(8):
        result = crop({"image": label, "smooth": label, "label": label.int()})
        assert result["label"].dtype == torch.int32
        assert torch.equal(result["image"].int(), result["label"])
        inner = (result["smooth"] - result["label"]).abs() < 1e-3  # all but the pixels at cell borders
        assert inner.float().mean() > 0.4


def test_identity_options_give_the_image_or_one_of_its_mirror_images():
    image = numbered(12, 12)
    views = [v for k in range(4) for v in (torch.rot90(image, k, (1, 2)), torch.rot90(image, k, (1, 2)).flip(2))]
    seen = set()
    crop = cropper(size=(12, 12))
    for _ in range(80):
        result = crop({"image": image, "label": image})
        matches = [i for i, view in enumerate(views) if torch.allclose(view, result["image"], rtol=1e-5)]
        assert len(matches) == 1
        torch.testing.assert_close(result["label"], views[matches[0]])
        seen.add(matches[0])
    assert seen == set(range(8))


def test_identity_options_crop_pixels_unchanged_when_sampled_nearest():
    image = numbered(30, 40)
    for seed in range(10):
        crop = cropper(seed)({"image": image, "label": image})["label"][0].long()
        assert crop.unique().numel() == crop.numel()
        steps = {tuple(sorted({int(v) for v in abs(d).unique()})) for d in (crop.diff(dim=0), crop.diff(dim=1))}
        assert steps == {(1,), (40,)}


def test_small_images_are_mirrored():
    image = numbered(6, 6)
    result = cropper(size=(18, 18))({"image": image, "label": image})["label"][0]
    expected = np.pad(image[0].numpy(), 6, mode="symmetric")
    assert any(
        np.array_equal(result.numpy(), view)
        for k in range(4)
        for view in (np.rot90(expected, k), np.rot90(expected, k)[:, ::-1])
    )


def draws(**options):
    """Matrices (N, 2, 3) for an image of 200 x 300 pixels."""
    crop = cropper(**options)
    return np.stack([crop.draw((200, 300)) for _ in range(N_DRAWS)])


def angles(matrices):
    """Angle of the turn in 0..2 pi: a mirror turns the first column over, not the second."""
    return np.arctan2(-matrices[:, 0, 1], matrices[:, 1, 1]) % (2 * np.pi)


def test_distribution_of_turns_and_mirrors():
    matrices = draws(rotate=0.5, zoom=(0.5, 2), stretch=0.3)
    mirrored = np.linalg.det(matrices[:, :, :2]) < 0
    assert mirrored.mean() == pytest.approx(0.5, abs=0.04)
    quarter = angles(matrices) / (np.pi / 2)
    whole = abs(quarter - quarter.round()) < 1e-9
    assert whole.mean() == pytest.approx(0.5, abs=0.04)
    turns = np.bincount(quarter[whole].round().astype(int) % 4, minlength=4) / whole.sum()
    np.testing.assert_allclose(turns, 0.25, atol=0.06)
    free = np.histogram(quarter[~whole], bins=8, range=(0, 4))[0] / (~whole).sum()
    np.testing.assert_allclose(free, 1 / 8, atol=0.05)
    assert np.corrcoef(mirrored, whole)[0, 1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(("rotate", "share"), [(0, 1), (1, 0)])
def test_always_or_never_any_angle(rotate, share):
    quarter = angles(draws(rotate=rotate)) / (np.pi / 2)
    assert (abs(quarter - quarter.round()) < 1e-9).mean() == share


@pytest.mark.parametrize("zoom", [(0.7, 1.5), (1, 1), (2, 4)])
def test_distribution_of_zooms(zoom):
    matrices = draws(zoom=zoom, rotate=0.5)
    drawn = abs(np.linalg.det(matrices[:, :, :2])) ** -0.5
    assert drawn.min() >= zoom[0] - 1e-9
    assert drawn.max() <= zoom[1] + 1e-9
    if zoom[0] < zoom[1]:  # log-uniform
        place = np.log(drawn / zoom[0]) / np.log(zoom[1] / zoom[0])
        np.testing.assert_allclose(np.histogram(place, bins=4, range=(0, 1))[0] / N_DRAWS, 0.25, atol=0.05)


@pytest.mark.parametrize("stretch", [0, 0.1, 0.4])
def test_distribution_of_stretches(stretch):
    matrices = draws(stretch=stretch, zoom=(0.7, 1.5), rotate=0.5)
    ratio = np.log(np.linalg.norm(matrices[:, :, 0], axis=1) / np.linalg.norm(matrices[:, :, 1], axis=1))
    assert abs(ratio).max() <= stretch + 1e-9
    assert ratio.mean() == pytest.approx(0, abs=0.02)
    assert ratio.std() == pytest.approx(stretch / 3**0.5, abs=0.02)


def test_crops_lie_inside_the_image_and_anywhere_in_it():
    matrices = draws(zoom=(0.7, 1.5), stretch=0.2, rotate=0.5)
    corners = np.array([[y, x, 1] for y in (-8, 8) for x in (-10, 10)], float)  # outer corners of 16 x 20 pixels
    where = matrices @ corners.T + 0.5  # 0 is the outer border of the first pixel
    assert where.min() >= -1e-6
    assert (where.max((0, 2)) <= np.array([200, 300]) + 1e-6).all()
    assert where.min() < 1
    assert (where.max((0, 2)) > np.array([199, 299])).all()
    centres = matrices[:, :, 2].mean(0)
    np.testing.assert_allclose(centres, [99.5, 149.5], atol=5)


def test_crops_of_images_that_are_too_small_are_centred():
    crop = cropper(size=(64, 64), rotate=1, zoom=(0.7, 1.5))
    for _ in range(50):
        assert crop.draw((20, 41))[:, 2].tolist() == [9.5, 20]


def test_crops_are_plain_and_the_input_stays():
    image = MetaTensor(torch.rand(3, 40, 50), meta={"a": 1})
    data = {"image": image, "label": numbered(40, 50), "name": "x"}
    before = image.clone()
    result = cropper(rotate=1)(data)
    assert type(result["image"]) is torch.Tensor
    assert result["image"].shape == (3, 16, 20)
    assert result["label"].shape == (1, 16, 20)
    assert result["name"] == "x"
    assert data["image"] is image
    assert torch.equal(image, before)


def test_one_mode_for_each_key():
    with pytest.raises(ValueError, match=r"2 modes.* 1 keys"):
        RandCropAffined("image", (8, 8))
    with pytest.raises(ValueError, match=r"1 modes.* 2 keys"):
        RandCropAffined(["image", "label"], (8, 8), modes=["nearest"])


@pytest.mark.parametrize(("side", "limits"), [(10, (1.6, 4.0)), (40, (0.5, 1.6)), (200, (0.32, 0.32)), (0, (0.5, 4.0))])
def test_the_size_of_the_cells_narrows_the_zoom(side, limits):
    """Squares of 10, 40 and 200 pixels shall have 16 to 64 in the crop."""
    label = torch.zeros(1, 300, 300)
    label[0, 5 : 5 + side, 5 : 5 + side] = 7
    drawn = RandCropAffined(
        ["image", "label"], (16, 16), (0.5, 4.0), stretch=0, rotate=0, diameters=(16 * DISC, 64 * DISC)
    ).set_random_state(0)
    diameter = drawn.diameter_of(label)
    zooms = [1 / abs(drawn.draw((300, 300), diameter)[:, :2]).max() for _ in range(300)]
    assert min(zooms) == pytest.approx(limits[0], rel=0.1)
    assert max(zooms) == pytest.approx(limits[1], rel=0.1)


def test_without_limits_the_cells_are_not_looked_at():
    assert cropper().diameter_of(numbered(4, 4)) is None
