"""Detections to label maps as a transform, also in MONAI's evaluator."""

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from scipy import ndimage
from torchvision.ops import roi_align

from cellbundle.engine.steps import EvalStep
from cellbundle.errors import ArrayError, ConfigError
from cellbundle.inference.detection import DetectionInferer
from cellbundle.metrics import image_scores
from cellbundle.synthetic import generate
from cellbundle.transforms import DecodeDetectionsd


class Perfect(torch.nn.Module):
    """Finds every id of an image of ids in its first channel; ids above 1000 have class 2, and low scores."""

    def forward(self, tiles):
        return [self.find(tile[0].round().int()) for tile in tiles]

    def find(self, ids):
        numbers = ids.unique()[ids.unique() > 0]
        masks = (ids == numbers[:, None, None]).float()[:, None]
        rectangles = [ndimage.find_objects(mask[0].int().numpy())[0] for mask in masks]
        boxes = torch.tensor([[x.start, y.start, x.stop, y.stop] for y, x in rectangles]).reshape(-1, 4).float()
        rois = torch.cat([torch.arange(len(boxes))[:, None], boxes], 1)
        large = numbers > 1000
        return {
            "boxes": boxes,
            "scores": torch.where(large, 0.4, 0.9) - 1e-4 * (numbers % 1000),
            "labels": 1 + large.long(),
            "masks": roi_align(masks, rois, (28, 28), 1.0, aligned=True)[:, 0],
        }


def predicted(labels, tile=64, scale=1.0):
    """What an inferer with a perfect network gives for one image."""
    image = torch.from_numpy(labels).float().expand(1, 3, *labels.shape)
    return decollate_batch(DetectionInferer((tile, tile), 0.5, scale=scale)(image, Perfect()))[0]


def cells(n=40):
    return generate("phase", (150, 170), n, diameter=18, touching=0.5, seed=4)[1]


@pytest.mark.parametrize("tile", [64, 256])
def test_round_trip_through_tiles(tile):
    labels = cells()
    done = DecodeDetectionsd()({"pred": predicted(labels, tile), "path": "kept"})
    found = done["pred"][0].numpy()
    scores = image_scores(labels, found)
    assert (scores["ap50"], scores["ap75"], scores["ap90"]) == (1, 1, 1)
    order = [int(np.bincount(labels[found == i]).argmax()) for i in range(1, len(done["scores"]) + 1)]
    assert order == list(range(1, labels.max() + 1))  # scores fall with the id
    assert done["scores"] == pytest.approx(0.9 - 1e-4 * np.arange(1, labels.max() + 1), abs=1e-6)
    assert done["path"] == "kept"


def test_entries_and_their_types():
    labels = cells()
    done = DecodeDetectionsd()({"pred": predicted(labels)})
    n = labels.max()
    assert (done["pred"].shape, done["pred"].dtype) == ((1, 150, 170), torch.int32)
    assert (done["class_pred"].shape, done["class_pred"].dtype) == ((1, 150, 170), torch.int64)
    for key, dtype in (("scores", np.float32), ("class_scores", np.float32), ("classes", np.int64)):
        assert (done[key].shape, done[key].dtype) == ((n,), dtype)
    assert np.array_equal(done["scores"], done["class_scores"])
    assert len(done["detections"]) == n
    assert done["pred"].max() == n


def test_classes_and_the_threshold_of_the_score():
    labels = cells()
    labels[labels > 20] += 1000  # scores of about 0.4, class 2
    n, n_large = len(np.unique(labels)) - 1, len(np.unique(labels[labels > 1000]))
    given = {"pred": predicted(labels)}
    done = DecodeDetectionsd()(given)
    assert done["classes"].tolist() == [1] * (n - n_large)
    assert len(done["detections"]) == n
    assert done["detections"].classes.tolist() == [1] * (n - n_large) + [2] * n_large
    done = DecodeDetectionsd(score_threshold=0.3)(given)
    assert done["classes"].tolist() == [1] * (n - n_large) + [2] * n_large
    expected = np.where(labels > 1000, 2, np.minimum(labels, 1))
    assert (done["class_pred"][0].numpy() == expected).mean() > 0.99
    assert len(DecodeDetectionsd(lowest_score=0.5)(given)["detections"]) == n - n_large


def test_options_reach_what_they_are_for():
    """Two squares of 20 pixels that share 20 x 15, the better one first."""
    labels = np.zeros((64, 64), np.int32)
    labels[10:30, 10:30] = 1
    one = predicted(labels)
    two = {key: torch.cat([value, value]) for key, value in one.items() if key not in ("tiles", "size")}
    two["boxes"] = two["boxes"] + torch.tensor([[0.0], [5.0]]) * torch.tensor([1.0, 0, 1, 0])
    given = {"pred": two | {"tiles": one["tiles"], "size": one["size"]}}

    def areas(**options):
        found = DecodeDetectionsd(**options)(given)
        return np.bincount(found["pred"].ravel())[1:].tolist(), len(found["detections"])

    assert areas() == ([400], 2)
    assert areas(max_overlap=0.75) == ([400, 100], 2)
    assert areas(max_overlap=0.75, min_size=101) == ([400], 2)
    assert areas(mask_threshold=1.0) == ([], 0)


@pytest.mark.parametrize(("rule", "area"), [("exact", 36), ("torchvision", 60)])
def test_small_cells_and_the_rule_that_enlarges_their_masks(rule, area):
    labels = np.zeros((20, 30), np.int32)
    labels[2:8, 2:8] = 1
    assert DecodeDetectionsd(paste_rule=rule)({"pred": predicted(labels)})["pred"].sum() == area


@pytest.mark.parametrize("shape", [(1, 1), (20, 30)])
def test_nothing_found(shape):
    done = DecodeDetectionsd()({"pred": predicted(np.zeros(shape, np.int32))})
    assert done["pred"].shape == done["class_pred"].shape == (1, *shape)
    assert done["pred"].max() == 0
    assert done["scores"].shape == done["classes"].shape == (0,)
    assert len(done["detections"]) == 0


def test_in_an_evaluator():
    labels = cells(12)
    image = MetaTensor(torch.from_numpy(labels).float().expand(1, 3, *labels.shape).clone())
    outputs = []
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": image, "label": torch.from_numpy(labels)[None, None], "index": torch.tensor([3])}],
        network=Perfect(),
        inferer=DetectionInferer((64, 64), 0.5),
        postprocessing=Compose([DecodeDetectionsd()]),
        iteration_update=EvalStep(amp=False, survive=False),
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.extend(engine.state.output))
    evaluator.run()
    (output,) = outputs
    assert output["pred"].max() == len(output["scores"]) == len(output["detections"]) == labels.max()
    assert output["label"].shape == (1, *labels.shape)
    assert output["index"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 0.01}, r"score_threshold.* 0\.01, .*lowest_score 0\.05"),
        ({"score_threshold": 1.5}, r"score_threshold.* 1\.5, .* 0 to 1"),
        ({"max_overlap": -1}, "max_overlap.* -1, .* 0 to 1"),
        ({"mask_threshold": float("nan")}, "mask_threshold.* nan, .* 0 to 1"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        DecodeDetectionsd(**options)


def test_maps_are_no_detections():
    with pytest.raises(ArrayError, match=r"prediction.*dictionary.*boxes.*Tensor"):
        DecodeDetectionsd()({"pred": torch.zeros(3, 9, 9)})
