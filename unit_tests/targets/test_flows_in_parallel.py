"""Flow targets in several threads and in the workers of a data loader."""

import numpy as np
from torch.utils.data import DataLoader

from cellbundle.targets.flows import labels_to_flows

from ..hand_made import digits
from .label_maps import lengths


def grid_of_cells():
    """Enough cells and rows for two threads."""
    tile = digits("......", ".111..", ".1111.", ".111..", "..1...", "......")
    labels = np.tile(tile, (90, 8))
    labels[labels > 0] += 10 * (np.arange(90)[:, None].repeat(6, 0) * 8 + np.arange(8).repeat(6))[labels > 0]
    return labels


def test_the_number_of_threads_does_not_matter(monkeypatch):
    labels, results = grid_of_cells(), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", threads)
        results.append(labels_to_flows(labels, across_borders=False))
    np.testing.assert_allclose(lengths(results[0]), labels > 0, atol=1e-6)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


class Flows:
    """Data set that computes targets in the process that asks for them."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return labels_to_flows(np.roll(self.labels, index, axis=1))


def test_forked_loader_workers_give_the_same_flows(monkeypatch):
    monkeypatch.setenv("CELLBUNDLE_NUM_THREADS", "2")
    flows = Flows(grid_of_cells())
    expected = [flows[i] for i in range(len(flows))]  # threads have run before the fork
    loader = DataLoader(flows, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
    for got, want in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(got), want)
