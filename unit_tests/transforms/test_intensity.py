"""Channels and intensity: exact values on ramps, special images, metadata."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.transforms import NormaliseIntensityd, intensity, normalise_intensity, to_channels


def ramp(start=0, stop=1000):
    """(1, 1, N) float32: whole numbers from start to stop."""
    return np.arange(start, stop + 1, dtype=np.float32)[None, None]


def planes(*values, shape=(2, 3)):
    """(C, H, W) float32 of constant channels."""
    return np.stack([np.full(shape, value, np.float32) for value in values])


# Channels


@pytest.mark.parametrize(
    ("values", "channels", "expected"),
    [
        ((7,), None, (7, 7, 7)),
        ((7, 8), None, (7, 8, 0)),
        ((7, 8, 9), None, (7, 8, 9)),
        ((7,), [0], (7, 7, 7)),
        ((7, 8), [1], (8, 8, 8)),
        ((7, 8, 9), [2, 0], (9, 7, 0)),
        ((6, 7, 8, 9), [3, 1, 0], (9, 7, 6)),
        ((6, 7, 8, 9), (2,), (8, 8, 8)),
        ((7, 8), [1, 1, 0], (8, 8, 7)),
    ],
)
def test_to_channels_by_hand(values, channels, expected):
    result = to_channels(planes(*values), channels)
    np.testing.assert_array_equal(result, planes(*expected))
    assert result.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_to_channels_keeps_the_type(n, dtype):
    image = planes(*range(n)).astype(dtype)
    image.flags.writeable = False
    assert to_channels(image).dtype == dtype
    assert to_channels(image).shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("n", "channels", "message"),
    [
        (4, None, "1 to 3 channels.* 4;.*channels="),
        (0, None, "1 to 3 channels.* 0;.*channels="),
        (2, [2], r"channels.* 1 to 3 .*below 2.*\[2\]"),
        (2, [-1], r"below 2.*\[-1\]"),
        (5, [0, 1, 2, 3], r"below 5.*\[0, 1, 2, 3\]"),
        (3, [], r"below 3.*\[\]"),
    ],
)
def test_bad_channels_are_refused(n, channels, message):
    with pytest.raises(ArrayError, match=message):
        to_channels(np.zeros((n, 4, 4), np.float32), channels)


# Intensity


def test_a_ramp_by_hand():
    """Of 0..1000, the percentiles 0.5 and 99.8 are 5 and 998."""
    result = normalise_intensity(ramp())
    np.testing.assert_allclose(result, np.clip((ramp() - 5) / 993, 0, 1), atol=1e-6)
    assert result[0, 0, [0, 5, 998, 1000]].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("lower", "upper", "low", "high"),
    [(0, 100, 0, 1000), (1, 99, 10, 990), (25, 50, 250, 500), (0.05, 99.95, 0.5, 999.5)],
)
def test_percentiles_are_exact(lower, upper, low, high):
    expected = np.clip((ramp() - low) / (high - low), 0, 1)
    np.testing.assert_allclose(normalise_intensity(ramp(), lower, upper), expected, atol=1e-6)


@pytest.mark.parametrize("value", [0, 1, 255, -3.5, 65535, 1e30])
@pytest.mark.filterwarnings("error")
def test_a_constant_channel_becomes_0(value):
    np.testing.assert_array_equal(normalise_intensity(planes(value, 1, shape=(4, 5))), planes(0, 0, shape=(4, 5)))


def test_each_channel_has_its_own_percentiles():
    image = np.concatenate([ramp(), 50 * ramp() + 3000, np.zeros_like(ramp()), -ramp()])
    first, second, empty, inverted = normalise_intensity(image)
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert not empty.any()
    np.testing.assert_allclose(inverted, np.clip((995 - ramp()[0]) / 993, 0, 1), atol=1e-6)  # from -995 to -2


def test_sparse_signal_is_stretched_over_its_full_range():
    """One bright pixel in a thousand: both percentiles are 0."""
    image = np.zeros((1, 40, 50), np.float32)
    image[0, 3, 4], image[0, 5, 6] = 80, 20
    np.testing.assert_array_equal(normalise_intensity(image), image / 80)


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (0.001, 0), (100, -70), (1, 30000)])
def test_units_do_not_matter(scale, offset):
    image = np.random.default_rng(0).gamma(2, 50, (2, 30, 40)).astype(np.float32)
    result = normalise_intensity(image * np.float32(scale) + np.float32(offset))
    np.testing.assert_allclose(result, normalise_intensity(image), atol=1e-3)
    assert result.dtype == np.float32
    assert result.min() == 0
    assert result.max() == 1


def test_large_images_are_sampled_on_a_grid(monkeypatch):
    y, x = np.mgrid[:200, :300].astype(np.float32)
    image = (y + x)[None]
    exact = normalise_intensity(image)
    monkeypatch.setattr(intensity, "PERCENTILE_SAMPLES", 1000)
    seen = []
    percentile = np.percentile
    monkeypatch.setattr(np, "percentile", lambda a, q: seen.append(a.size) or percentile(a, q))
    sampled = normalise_intensity(image)
    assert seen[0] <= 1000
    assert seen[0] > 500
    np.testing.assert_allclose(sampled, exact, atol=0.02)


@pytest.mark.parametrize("shape", [(1, 0, 5), (3, 5, 0), (2, 1, 1)])
def test_tiny_images(shape):
    result = normalise_intensity(np.ones(shape, np.float32))
    assert result.shape == shape
    assert not result.any()


@pytest.mark.parametrize("view", [lambda a: a[:, ::2], lambda a: a.transpose(0, 2, 1), np.asfortranarray])
def test_memory_layout_does_not_matter_and_the_input_stays(view):
    image = np.random.default_rng(1).random((3, 20, 30), dtype=np.float32)
    before = image.copy()
    image.flags.writeable = False
    np.testing.assert_array_equal(normalise_intensity(view(image)), normalise_intensity(view(before).copy(order="C")))
    np.testing.assert_array_equal(image, before)


# The transform


@pytest.mark.parametrize("wrap", [lambda a: a, torch.from_numpy, lambda a: MetaTensor(torch.from_numpy(a))])
def test_transform_of_arrays_and_tensors(wrap):
    result = NormaliseIntensityd()({"image": wrap(ramp()), "label": "untouched"})
    assert result["label"] == "untouched"
    assert result["image"].dtype == torch.float32
    np.testing.assert_array_equal(np.asarray(result["image"]), to_channels(normalise_intensity(ramp())))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float64])
def test_transform_of_other_types(dtype):
    image = torch.arange(101).reshape(1, 1, 101).to(dtype)
    result = NormaliseIntensityd(lower=0, upper=100)({"image": image})["image"]
    torch.testing.assert_close(result[2, 0], torch.arange(101) / 100)


def test_transform_keeps_metadata_and_input():
    image = MetaTensor(torch.from_numpy(ramp()), meta={"filename_or_obj": "a.png", "unit": 3})
    data = {"image": image}
    result = NormaliseIntensityd()(data)
    assert isinstance(result["image"], MetaTensor)
    assert result["image"].meta["filename_or_obj"] == "a.png"
    assert result["image"].meta["unit"] == 3
    assert data["image"] is image
    assert image.max() == 1000


def test_transform_options():
    image = np.concatenate([ramp(), 2 * ramp(), ramp() * 0, -ramp()])
    result = NormaliseIntensityd("x", lower=0, upper=50, channels=[3, 1])({"x": image})["x"].numpy()
    np.testing.assert_allclose(result[0], np.clip((1000 - ramp()[0]) / 500, 0, 1), atol=1e-6)
    np.testing.assert_allclose(result[1], np.clip(ramp()[0] / 500, 0, 1), atol=1e-6)
    assert not result[2].any()


def test_transform_errors():
    with pytest.raises(ArrayError, match=r"1 to 3 channels.* 5;"):
        NormaliseIntensityd()({"image": np.zeros((5, 4, 4), np.float32)})
    with pytest.raises(KeyError, match="image"):
        NormaliseIntensityd()({"label": 1})


def test_8_bit_values_are_divided_by_255():
    normaliser = NormaliseIntensityd(method="8bit")
    image = torch.tensor([0.0, 51.0, 255.0]).view(1, 1, 3)
    result = normaliser({"image": image})["image"]
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, torch.tensor([0.0, 0.2, 1.0]).expand(3, 1, 3))
    for value in (-1.0, 256.0):
        with pytest.raises(ArrayError, match=rf"intensities.* {value:g} to {value:g}, .* 0 to 255.*percentiles"):
            normaliser({"image": torch.full((1, 2, 2), value)})
    with pytest.raises(ConfigError, match=r"intensity.*'16bit'.*percentiles, 8bit"):
        NormaliseIntensityd(method="16bit")
