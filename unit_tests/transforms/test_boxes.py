import numpy as np
import torch

from cellbundle.transforms import InstanceMapsd


def maps(labels, **options):
    entry = {"label": torch.tensor(labels)[None], **options.pop("entry", {})}
    return InstanceMapsd(**options)(entry)


def test_slivers_become_background_and_ids_follow_one_another():
    found = maps([[5, 0, 9, 9], [0, 0, 9, 0]], min_size=2)["label"]
    assert found["label_map"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 0]]
    assert found["class_map"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 0]]


def test_parts_that_do_not_touch_are_instances_of_their_own():
    """As mirrored padding makes them: one box around both would be as large as the crop."""
    found = maps([[1, 0, 0, 1]])["label"]
    assert found["label_map"].tolist() == [[1, 0, 0, 2]]


def test_classes_come_from_the_table_and_loader_entries_go():
    table = torch.tensor([0, 3, 2])
    item = maps([[2, 0, 1]], entry={"classes": table, "class_label": torch.zeros(1, 1, 3), "image": 1})
    assert item["label"]["class_map"].tolist() == [[2, 0, 3]]
    assert sorted(item) == ["image", "label"]


def test_empty_label_map():
    found = maps(np.zeros((4, 4), np.int32))["label"]
    assert not found["label_map"].any()
    assert found["label_map"].dtype == torch.int32
