"""Stains: mixtures of known ones, the colour space of Reinhard, MONAI, images without stains, random changes."""

import numpy as np
import pytest
import torch
from monai.apps.pathology.transforms.stain.array import ExtractHEStains
from monai.data import MetaTensor

from cellbundle.errors import ArrayError, ConfigError
from cellbundle.transforms import NormaliseIntensityd
from cellbundle.transforms.stain import (
    HED,
    REFERENCE_AMOUNTS,
    REFERENCE_DEVIATIONS,
    REFERENCE_MEANS,
    REFERENCE_STAINS,
    NormaliseStaind,
    RandStaind,
    brown_share,
    find_stains,
    is_stained,
    normalise_macenko,
    normalise_reinhard,
    read_stain,
    rgb_to_lab,
    separate_stains,
)

OTHER_STAINS = np.array([[0.65, 0.70, 0.29], [0.27, 0.93, 0.25]])  # a slide of another laboratory


def amounts(seed=0, size=(48, 64)):
    """(2, N) amounts of two stains: mixtures, with many pixels of one stain almost alone, and bare glass."""
    rng = np.random.default_rng(seed)
    mixed = rng.gamma(2.0, 0.4, (2, size[0] * size[1]))
    mixed[0, ::5] *= 0.001
    mixed[1, 1::5] *= 0.001
    mixed[:, 2::5] *= 0.01
    return mixed


def stained(stains, mixed, size=(48, 64), white=255.0):
    """(3, H, W) image by the law of Beer and Lambert."""
    return (white * np.exp(-(stains.T @ mixed))).reshape(3, *size)


def unit(stains):
    return stains / np.linalg.norm(stains, axis=1, keepdims=True)


# Macenko


@pytest.mark.parametrize("stains", [OTHER_STAINS, REFERENCE_STAINS])
def test_stains_of_a_mixture_are_found(stains):
    absorbances = -np.log(stained(stains, amounts()).reshape(3, -1) / 255)
    np.testing.assert_allclose(find_stains(absorbances), unit(stains), atol=0.02)


def test_stains_of_two_laboratories_become_alike():
    mixed = 0.5 * amounts()
    here = normalise_macenko(stained(REFERENCE_STAINS, mixed))
    there = normalise_macenko(stained(OTHER_STAINS, 0.7 * mixed))
    assert here.dtype == np.float32
    assert np.abs(stained(REFERENCE_STAINS, mixed) - stained(OTHER_STAINS, 0.7 * mixed)).mean() > 10
    assert np.abs(here - there).mean() < 3


def test_amounts_are_scaled_to_the_reference():
    mixed = amounts()
    mixed *= (REFERENCE_AMOUNTS / np.percentile(mixed, 99, axis=1))[:, None]
    image = stained(REFERENCE_STAINS, mixed)
    assert np.abs(normalise_macenko(image) - image).mean() < 3


def test_the_separation_is_that_of_monai():
    image = np.round(stained(OTHER_STAINS, 0.6 * amounts(1))).astype(np.uint8)
    theirs = ExtractHEStains(tli=255)(image.transpose(1, 2, 0)).T
    ours = find_stains(-np.log(np.maximum(image.reshape(3, -1), 1) / 255))
    theirs = theirs[np.argsort(-theirs[:, 0])]  # it takes the stain that absorbs less red for haematoxylin
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize(
    "image",
    [
        np.full((3, 20, 20), 255.0),
        np.full((3, 20, 20), 90.0),
        np.zeros((3, 20, 20)),
        np.random.default_rng(0).uniform(20, 200, (1, 20, 20)).repeat(3, 0),
        stained(OTHER_STAINS, amounts(size=(5, 5)), (5, 5)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_images_without_two_stains_stay(image):
    np.testing.assert_array_equal(normalise_macenko(image), image.astype(np.float32))


# Reinhard


def test_the_grey_axis_has_no_colour():
    """The responses to white differ by a few per cent, as published; so do the colours of grey from 0."""
    lab = rgb_to_lab(np.linspace(50, 250, 20).reshape(1, 4, 5).repeat(3, 0))
    assert np.ptp(lab[1]) < 1e-9
    assert np.ptp(lab[2]) < 1e-9
    assert np.abs(lab[1:]).max() < 0.03


def test_mean_and_spread_become_those_of_the_reference():
    image = stained(OTHER_STAINS, 0.2 * amounts(2) + 0.2)
    found = normalise_reinhard(image)
    assert 1 < found.min() < found.max() < 255  # nothing was cut
    lab = rgb_to_lab(found)
    np.testing.assert_allclose(lab.mean(1), REFERENCE_MEANS, atol=1e-3)
    np.testing.assert_allclose(lab.std(1), REFERENCE_DEVIATIONS, atol=1e-3)


def test_twice_is_once():
    once = normalise_reinhard(stained(OTHER_STAINS, 0.2 * amounts(2) + 0.2))
    np.testing.assert_allclose(normalise_reinhard(once), once, atol=0.05)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 128.0, 255.0])
def test_a_constant_image_gets_the_mean_colour(value):
    found = normalise_reinhard(np.full((3, 4, 5), value))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(rgb_to_lab(found).mean(1), REFERENCE_MEANS, atol=1e-3)


# Both


@pytest.mark.parametrize("normalise", [normalise_macenko, normalise_reinhard])
def test_the_unit_of_the_image_does_not_matter(normalise):
    image = stained(OTHER_STAINS, 0.3 * amounts())
    np.testing.assert_allclose(normalise(image / 255, white=1.0), normalise(image) / 255, atol=1e-5)


@pytest.mark.parametrize("normalise", [normalise_macenko, normalise_reinhard])
@pytest.mark.parametrize("shape", [(1, 5, 5), (4, 5, 5), (5, 5), (3, 0, 5)])
def test_other_images_are_refused(normalise, shape):
    with pytest.raises(ArrayError, match=r"image.*\(3, H, W\)"):
        normalise(np.zeros(shape))


def test_nothing_happens_by_default():
    image = torch.zeros((1, 4, 4))
    assert NormaliseStaind()({"image": image})["image"] is image


@pytest.mark.parametrize(("method", "normalise"), [("macenko", normalise_macenko), ("reinhard", normalise_reinhard)])
def test_the_transform_changes_the_image_and_keeps_the_rest(method, normalise):
    image = stained(OTHER_STAINS, 0.3 * amounts()).astype(np.float32)
    data = {"image": MetaTensor(torch.from_numpy(image), meta={"filename_or_obj": "a.png"}), "label": 7}
    found = NormaliseStaind(method=method)(data)
    np.testing.assert_array_equal(found["image"].numpy(), normalise(image))
    assert found["image"].meta["filename_or_obj"] == "a.png"
    assert found["label"] == 7
    np.testing.assert_array_equal(data["image"].numpy(), image)
    plain = NormaliseStaind(method=method)({"image": torch.from_numpy(image)})["image"]
    assert type(plain) is torch.Tensor


def test_unknown_methods_are_refused():
    with pytest.raises(ConfigError, match=r"stain.*'vahadane'.*'macenko', 'reinhard' or None"):
        NormaliseStaind(method="vahadane")


# Which images are stained


def he(size=(96, 128), seed=0):
    """H&E: mostly eosin, spots of haematoxylin."""
    rng = np.random.default_rng(seed)
    mixed = np.stack([0.05 + 0 * rng.random(size), 0.2 + 0.2 * rng.random(size)])
    mixed[0, 10:30, 20:40], mixed[0, 50:80, 70:100], mixed[:, :8] = 1.0, 0.8, 0.0
    return stained(unit(OTHER_STAINS), mixed.reshape(2, -1), size).astype(np.float32)


def immunohistochemistry(size=(96, 128)):
    """Half of the tissue is brown, with blue nuclei in both halves."""
    mixed = np.zeros((2, *size))
    mixed[0, 10:30, 20:40], mixed[0, 50:80, 70:100], mixed[1, :, 64:] = 1.0, 0.8, 0.9
    mixed[:, :8] = 0.0
    return stained(HED[[0, 2]], mixed.reshape(2, -1), size).astype(np.float32)


@pytest.mark.parametrize("factor", [1, 257])
def test_stained_images_are_recognised_whatever_their_units(factor):
    assert is_stained(he() * factor)
    assert is_stained(immunohistochemistry() * factor)


@pytest.mark.parametrize(
    "image",
    [
        255 - he(),  # dark ground
        np.repeat(he()[:1], 3, axis=0),  # grey
        he()[:1],
        he()[:2],
        np.zeros((3, 40, 50), np.float32),
        np.zeros((3, 0, 50), np.float32),
        np.full((3, 40, 50), 255, np.float32),
    ],
)
def test_other_images_are_not_stained(image):
    assert not is_stained(image)
    assert read_stain(image, "auto") is image


def test_brown_is_told_from_pink():
    assert brown_share(he(), 255) == 0
    assert brown_share(immunohistochemistry(), 255) > 0.5
    assert len(read_stain(immunohistochemistry(), "auto")) == 1
    assert len(read_stain(he(), "auto")) == 3


def test_amounts_of_three_stains():
    mixed = np.random.default_rng(0).gamma(2.0, 0.2, (3, 48 * 64))
    found = separate_stains(stained(HED, mixed))
    np.testing.assert_allclose(found, mixed.reshape(3, 48, 64), atol=1e-3)


@pytest.mark.parametrize(("stain", "read"), [("auto", (False, True)), ("hematoxylin", (True, True)), ("none", (0, 0))])
def test_haematoxylin_is_read_where_it_is_wanted(stain, read):
    for image, is_read in zip((he(), immunohistochemistry()), read, strict=True):
        result = read_stain(image, stain)
        assert result.dtype == np.float32
        assert result.shape == ((1, 96, 128) if is_read else (3, 96, 128))
        if is_read:  # nuclei are bright, brown is dark
            assert result[0, 60:70, 80:90].min() > 3 * result[0, 85:, 110:].max()


def test_images_that_are_not_in_colour_stay_as_they_are():
    image = np.random.default_rng(0).uniform(0, 255, (2, 40, 50)).astype(np.float32)
    assert read_stain(image, "auto") is image
    with pytest.raises(ArrayError, match=r"\(3, H, W\)"):
        read_stain(image, "hematoxylin")


def test_the_normaliser_reads_stains():
    image = torch.from_numpy(immunohistochemistry())
    read = NormaliseIntensityd(stain="auto")({"image": image})["image"]
    assert read.shape == (3, 96, 128)
    assert torch.equal(read[0], read[2])
    for options in ({}, {"stain": "auto", "channels": [0, 1, 2]}):
        colours = NormaliseIntensityd(**options)({"image": image})["image"]
        assert not torch.equal(colours[0], colours[2])


def test_a_stain_that_cannot_be_read():
    with pytest.raises(ConfigError, match=r"stain is 'dab'; choose one of auto, none, hematoxylin"):
        NormaliseIntensityd(stain="dab")
    with pytest.raises(ConfigError, match="stain and channels"):
        NormaliseIntensityd(stain="hematoxylin", channels=[0])


# Random stains


def test_stains_are_changed_at_random_and_nuclei_stay_where_they_are():
    image = torch.from_numpy(he())
    changer = RandStaind(prob=1, exchange=0).set_random_state(0)
    results = [changer({"image": image})["image"] for _ in range(8)]
    for result in results:
        assert result.dtype == torch.float32
        assert result.min() >= 0
        assert result.max() <= 255
        assert result[:, 55:75, 75:95].mean() < result[:, 85:, 110:].mean() - 10
    assert torch.stack(results).std(0).mean() > 5


def test_exchanged_stains_make_immunohistochemistry():
    changer = RandStaind(prob=1, exchange=1, colour=0).set_random_state(0)
    results = [changer({"image": torch.from_numpy(he())})["image"].numpy() for _ in range(8)]
    assert max(brown_share(result, 255) for result in results) > 0.3
    ground = np.stack([result[2, 85:] for result in results])  # blue light where there was eosin only
    assert (np.ptp(ground, axis=(1, 2)) > 2 * np.ptp(he()[2, 85:])).all(), "brown is in parts of the tissue"


def test_the_same_seed_gives_the_same_stains():
    first, second = (RandStaind(prob=1).set_random_state(3)({"image": torch.from_numpy(he())}) for _ in range(2))
    assert torch.equal(first["image"], second["image"])


@pytest.mark.parametrize("image", [255 - he(), he()[:1], np.repeat(he()[:1], 3, axis=0)])
def test_what_is_not_stained_is_not_changed(image):
    image = torch.from_numpy(image)
    assert RandStaind(prob=1)({"image": image})["image"] is image


def test_an_image_of_one_stain_is_not_changed():
    image = stained(OTHER_STAINS, np.stack([amounts()[0], np.zeros(48 * 64)])).astype(np.float32)
    torch.testing.assert_close(RandStaind(prob=1)({"image": torch.from_numpy(image)})["image"], torch.from_numpy(image))
