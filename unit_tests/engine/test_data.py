import json
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from monai.data import Dataset
from monai.transforms import Compose, RandomizableTransform

from cellbundle.engine.data import (
    ImageDataset,
    SeededDataset,
    SeededSampler,
    collate_one,
    find_class_names,
    find_entries,
    sampling_weights,
    training_loader,
)
from cellbundle.errors import DatalistError, ImageReadError
from cellbundle.synthetic import write_dataset
from cellbundle.transforms import LoadCelld


class Draw(RandomizableTransform):
    """Adds a random number to an item."""

    def __call__(self, item):
        return {"image": torch.tensor([item["image"], self.R.rand()])}


class KeepOthers(Draw):
    """Keeps what the item has beside its image."""

    def __call__(self, item):
        return {**item, **super().__call__(item)}


def items(n_workers, epoch, resume_from=0):
    data = SeededDataset([{"image": float(i)} for i in range(10)], Compose([Draw()]), seed=3)
    sampler = SeededSampler(data, num_samples=8, seed=3)
    sampler.set_epoch(epoch)
    return torch.cat([b["image"] for b in training_loader(data, sampler, 2, n_workers)])


def test_augmentation_depends_on_seed_epoch_and_position_only():
    assert torch.equal(items(0, 4), items(2, 4))
    assert torch.equal(items(0, 4), items(1, 4))
    assert not torch.equal(items(0, 4), items(0, 5))


def test_data_lists_that_say_more_of_their_images_than_others():
    """One list names groups, the other does not: batches hold what both have."""
    entries = [{"image": 0.0, "group": "a"}, {"image": 1.0}]
    data = SeededDataset(entries, Compose([KeepOthers()]))
    sampler = SeededSampler(data, num_samples=4, replacement=False)
    batches = list(training_loader(data, sampler, 2))
    assert [set(batch) for batch in batches] == [{"image"}, {"image"}]
    assert sorted(torch.cat([batch["image"] for batch in batches])[:, 0].tolist()) == [0.0, 0.0, 1.0, 1.0]


def test_one_item_twice_in_an_epoch_is_augmented_twice():
    data = SeededDataset([{"image": 0.0}], Compose([Draw()]))
    keys = list(SeededSampler(data, num_samples=5))
    assert len({float(data[key]["image"][1]) for key in keys}) == 5


def test_a_limited_number_of_augmentations():
    """They are taken in turn by the epochs, wherever in the epoch the item stands."""
    data = SeededDataset([{"image": 0.0}, {"image": 1.0}], Compose([Draw()]), variants=2)
    drawn = {key: float(data[key]["image"][1]) for key in [(0, 0, 0), (1, 0, 0), (2, 5, 0), (3, 1, 0), (0, 0, 1)]}
    assert drawn[0, 0, 0] == drawn[2, 5, 0]
    assert drawn[1, 0, 0] == drawn[3, 1, 0]
    assert len(set(drawn.values())) == 3


def test_sampler_follows_the_weights():
    data = Dataset([0, 1, 2])
    drawn = Counter(key[2] for key in SeededSampler(data, num_samples=6000, weights=[1, 3, 0], seed=1))
    assert drawn[2] == 0
    assert drawn[1] / drawn[0] == pytest.approx(3, rel=0.15)


def test_groups_count_by_a_power_of_their_size():
    sizes = {"a": 1, "b": 4}
    lists = [
        {"datalist_id": number, "datalist_weight": weight, "group": group, "image": f"{group}{i}"}
        for number, weight in ((0, 0.2), (1, 0.4))
        for group, size in sizes.items()
        for i in range(size)
    ]
    for balance, share in ((0.0, 4), (0.5, 2), (1.0, 1)):
        weights = np.reshape(sampling_weights(lists, balance), (2, 5))
        np.testing.assert_allclose(weights[:, 1:].sum(1) / weights[:, 0], share)
        np.testing.assert_allclose(weights.sum(1), [1, 2])  # lists count as before


def test_images_without_groups_count_alike():
    entries = [{"image": name, "datalist_weight": 0.5} for name in "abc"]
    assert sampling_weights(entries, 1.0) == sampling_weights(entries) == [0.5] * 3


def test_sampler_without_replacement_goes_through_all_items():
    drawn = [key[2] for key in SeededSampler(Dataset(list(range(5))), num_samples=10, replacement=False)]
    assert Counter(drawn) == dict.fromkeys(range(5), 2)
    assert sorted(drawn[:5]) == list(range(5))


def test_processes_share_one_sequence(monkeypatch):
    data = Dataset(list(range(7)))
    whole = list(SeededSampler(data, num_samples=6))
    parts = []
    for rank in range(2):
        monkeypatch.setattr("cellbundle.engine.data.world_size", lambda: 2)
        monkeypatch.setattr("cellbundle.engine.data.rank", lambda rank=rank: rank)
        parts.append(list(SeededSampler(data, num_samples=6)))
    assert [key for pair in zip(*parts, strict=True) for key in pair] == whole


def test_find_entries(data, tmp_path):
    spec = {"datalist": str(data), "basedir": str(data.parent)}
    assert len(find_entries([spec], "training", 0)) == 3
    assert len(find_entries([spec], "validation", 0)) == 1
    assert len(find_entries([spec], "testing", limit=2)) == 2
    (tmp_path / "lists.yaml").write_text(yaml.safe_dump([spec, {**spec, "weight": 0.5}]))
    both = find_entries(str(tmp_path / "lists.yaml"), "testing")
    assert sampling_weights(both) == pytest.approx([1 / 3] * 3 + [1 / 6] * 3)


def test_find_images_of_a_folder(tmp_path):
    for name in ("b.PNG", "a.tif", "notes.txt"):
        (tmp_path / name).touch()
    names = [e["image"] for e in find_entries([], "testing", input_dir=str(tmp_path))]
    assert names == [str(tmp_path / "a.tif"), str(tmp_path / "b.PNG")]


@pytest.mark.parametrize("specs", [[], [{"datalist": None, "basedir": None}]])
def test_no_datalist(specs):
    with pytest.raises(DatalistError, match="--datalist FILE --basedir DIR"):
        find_entries(specs, "training")


def test_folder_without_images(tmp_path):
    with pytest.raises(DatalistError, match=r"no images.* \.png"):
        find_entries([], "testing", input_dir=str(tmp_path))
    with pytest.raises(DatalistError, match=r"input_dir.*none.*no folder"):
        find_entries([], "testing", input_dir=str(tmp_path / "none"))


def test_bad_image_becomes_an_error_item(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    entries = [{"image": str(tmp_path / "a.png")}]
    item = ImageDataset(entries, [LoadCelld()])[0]
    assert item["index"] == 0
    assert "a.png" in item["error"]
    with pytest.raises(ImageReadError, match="empty"):
        ImageDataset(entries, [LoadCelld()], survive=False)[0]


def test_collate_one_copies_nothing(tmp_path):
    entry = {"image": str(next((write_dataset(tmp_path, 1, 0, seed=0).parent / "images").iterdir()))}
    item = ImageDataset([entry], [LoadCelld()])[0]
    batch = collate_one([item])
    assert batch["image"].shape == (1, *item["image"].shape)
    assert np.shares_memory(batch["image"].numpy(), item["image"].numpy())
    assert batch["path"] == [entry["image"]]


def test_class_names_of_data_lists_must_agree(tmp_path):
    specs = []
    for name, names in (("a", ["round"]), ("b", ["round"]), ("c", ["long"]), ("d", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"training": [], "class_names": names}))
        specs.append({"datalist": str(tmp_path / f"{name}.json"), "basedir": str(tmp_path)})
    assert find_class_names(specs[:2]) == ["round"]
    assert find_class_names([{"datalist": None, "basedir": None}]) == []
    with pytest.raises(DatalistError, match=r"different classes \(none; long; round\)"):
        find_class_names(specs)


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DatalistError, match=r"cannot be listed.*Permission denied.*permissions"):
        find_entries([], "testing", input_dir=str(tmp_path))
