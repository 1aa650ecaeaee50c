"""The modes of swin_unet, schedules, scores and the preset of its source do what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cellbundle.device import autocast
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import ConfigError
from cellbundle.inference.predictor import Predictor
from cellbundle.inference.tiling import ResizeInferer, TiledInferer
from cellbundle.io import read_labels

from .contract import REPOSITORY, Bundle, history_rows, latest, picture

ROOT = REPOSITORY / "bundles" / "swin_unet"
AFFINE, SMOOTH = 5, 6  # positions in train#preprocessing


def parsed(*files: str, **options) -> CellWorkflow:
    """A workflow that is initialised, not run."""
    paths = [str(ROOT / "configs" / name) for name in ("hyper_parameters.yaml", *files)]
    workflow = CellWorkflow(config_file=paths, logging_file=False, device_name="cpu", **options)
    workflow.initialize()
    return workflow


class TestSwinUNet(Bundle):
    name = "swin_unet"

    @pytest.mark.parametrize("image_mode", ["tile", "resize"])
    @pytest.mark.parametrize("instances", ["flows", "components", "watershed"])
    def test_every_mode_trains_and_is_scored(self, data: Path, tmp_path: Path, instances: str, image_mode: str):
        modes = {"instances": instances, "image_mode": image_mode}
        self.make(data, tmp_path, **modes, **{"train#trainer#max_epochs": 1}).run()
        weights = torch.load(tmp_path / "model.pt", weights_only=True)
        assert len(weights["head.weight"]) == (3 if instances == "flows" else 1)
        workflow = self.make(data, tmp_path, mode="eval", **modes)
        workflow.run()
        metrics = json.loads((tmp_path / "eval" / "results" / "metrics.json").read_text())
        assert metrics["n_images"] == 2
        masks = self.masks(workflow)
        for row in metrics["images"]:
            entry = next(e for e in workflow.content("dataset").data if e["image"] == row["image"])
            true, mask = read_labels(entry["label"]) > 0, masks[row["image"]]
            assert row["binary_iou"] == pytest.approx((true & mask).sum() / (true | mask).sum(), abs=1e-12)
        assert metrics["per_image_mean"]["source_iou"] == metrics["per_image_mean"]["binary_iou"]
        assert workflow.evaluator.state.metrics["binary_iou"] == metrics["per_image_mean"]["binary_iou"]
        assert float(history_rows(tmp_path)[0]["val_binary_iou"]) >= 0

    @staticmethod
    def masks(workflow: CellWorkflow) -> dict[str, np.ndarray]:
        """Logits above 0 at the size of the image."""
        inferer, network, found = workflow.content("inferer"), workflow.content("network").eval(), {}
        for item in workflow.content("dataset"):
            with torch.no_grad(), autocast(torch.device("cpu"), workflow.content("amp"), workflow.content("amp_dtype")):
                found[item["path"]] = (inferer(item["image"].as_tensor()[None], network)[0, 0] > 0).numpy()
        return found

    def test_resuming_keeps_patience_and_schedule(self, data: Path, tmp_path: Path):
        options = {"patience": 3, "min_epochs": 2, "instances": "components", "val_interval": 1}
        epochs, schedule = "train#trainer#max_epochs", {"train#period_epochs": 2}
        self.trained(data, tmp_path / "whole", **options, **{epochs: 3})
        self.trained(data, tmp_path / "parts", **options, **schedule, **{epochs: 2})
        self.trained(data, tmp_path / "parts", **options, **schedule, resume=True, **{epochs: 3})
        one, two = latest(tmp_path / "whole"), latest(tmp_path / "parts")
        assert all(torch.equal(one["network"][key], two["network"][key]) for key in one["network"])
        assert one["patience"] == two["patience"]

    def test_the_network_learns(self, data: Path, tmp_path: Path):
        options = {"instances": "components", "crops_per_epoch": 32, "val_interval": 9, "learning_rate": 0.01}
        self.trained(data, tmp_path, **options, **{"train#trainer#max_epochs": 5})
        losses = [float(row["loss"]) for row in history_rows(tmp_path)]
        assert losses[-1] < 0.8 * losses[0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"instances": "flow"}, "instances.*'flow'.*flows, components, watershed"),
            ({"image_mode": "tiles"}, "image_mode.*'tiles'.*tile, resize"),
            ({"schedule": "step"}, "schedule.*'step'.*cosine or restarts"),
            ({"image_mode": "resize", "scale": 2}, r"scale.* 2, .*\(64, 64\)"),
        ],
    )
    def test_choices_that_are_none(self, data: Path, tmp_path: Path, options: dict, message: str):
        with pytest.raises(ConfigError, match=message):
            self.make(data, tmp_path, **options).run()

    def test_the_predictor_has_tiles_of_one_size_and_takes_any_range(self, tmp_path: Path):
        bundle = self.small_copy(tmp_path)
        labels, scores = Predictor(bundle, device="cpu").segment(90_000 * picture(1, 70, 90).numpy())[:2]
        assert labels.shape == (70, 90)
        assert len(scores) == labels.max()
        assert Predictor(bundle, device="cpu", rescale=1.5).inferer.network_tile() == [48, 48]
        with pytest.raises(ConfigError, match=r"small.*one size.*tile"):
            Predictor(bundle, device="cpu", tile=512)

    def test_pictures_for_monai_label(self):
        from monai.bundle import ConfigParser

        parser = ConfigParser()
        parser.read_config(str(self.root / "configs" / "inference.json"))
        parser.update({"bundle_root": str(self.root), "instances": "components"})
        decode, turn = parser.get_parsed_content("postprocessing")
        prediction = torch.full((1, 40, 60), -3.0)
        prediction[0, 5:15, 20:50] = 3
        picture = turn(decode({"pred": prediction}))["pred"]
        assert picture.dtype == torch.uint16
        assert picture.shape == (60, 40)
        assert picture[20:50, 5:15].float().min() == 1


# The configuration


@pytest.mark.parametrize("image_mode", ["tile", "resize"])
def test_default_augmentation_is_what_the_configuration_says(image_mode):
    workflow = parsed(image_mode=image_mode)
    affine = workflow.content("train#preprocessing")[AFFINE].set_random_state(0)
    draws = [affine.draw((224, 300)) for _ in range(8000)]
    angles = np.array([angle for angle, _, _ in draws])
    quantiles = np.quantile(angles, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    np.testing.assert_allclose(quantiles, [-30, -24, -15, 0, 15, 24, 30], atol=1.0)
    shares = np.abs([move / (224, 300) for _, _, move in draws])
    np.testing.assert_allclose(
        [shares.min(0), np.median(shares, 0), shares.max(0)], [[0.05] * 2, [0.075] * 2, [0.1] * 2], atol=1e-3
    )
    signs = np.sign([(shear, *move) for _, shear, move in draws])
    assert np.abs(signs.mean(0)).max() < 0.05
    assert {round(abs(shear)) for _, shear, _ in draws} == set(range(5, 11))
    data = {"image": torch.zeros(1, 8, 8), "label": torch.zeros(1, 8, 8, dtype=torch.int32)}
    changed = sum(affine(data)["image"] is not data["image"] for _ in range(2000))
    assert changed / 2000 == pytest.approx(0.25, abs=0.03)


def test_source_preset_is_that_of_the_source():
    workflow = parsed("source.yaml")
    affine = workflow.content("train#preprocessing")[AFFINE].set_random_state(0)
    angles, shears, moves = (
        np.array(part) for part in zip(*[affine.draw((224, 224)) for _ in range(2000)], strict=True)
    )
    assert 10 <= angles.min() < 10.1
    assert 29.9 < angles.max() <= 30
    assert 5 <= shears.min() < shears.max() <= 10
    assert 0.05 <= moves.min() < moves.max() < 0.1, "pixels: nothing moves"
    assert workflow.content("batch_size") == 32
    assert isinstance(workflow.content("inferer"), ResizeInferer)
    loss = workflow.content("train#loss")
    assert (loss.bce_weight, loss.dice_weight, loss.pos_weight) == (1.0, 0.0, None)
    assert sum(p.numel() for p in workflow.content("network").parameters()) == 3_050_649
    assert parsed("source.yaml", pos_weight=2).content("train#loss").pos_weight == 2


def test_source_preset_trains(tmp_path):
    from cellbundle.synthetic import write_dataset

    data = write_dataset(tmp_path / "data", n_training=5, n_testing=1, size=(60, 90), seed=0)
    files = {"datalist": str(data), "basedir": str(data.parent), "ckpt_path": str(tmp_path), "final_test": False}
    options = {"crops_per_epoch": None, "batch_size": 2, "num_workers": 0, **files}
    options |= {"train#period_epochs": 3, "train#trainer#max_epochs": 5, "patience": 1, "min_epochs": 4}
    options |= {"learning_rate": 1e-4}
    workflow = parsed("source.yaml", "small.yaml", **options)
    workflow.run()
    items = [item for _, _, item in workflow.content("train#sampler")]
    assert sorted(items) == list(range(len(workflow.content("train#dataset")))), "each image once"
    history = history_rows(tmp_path)
    assert len(history) in (4, 5), "it stops from the fourth epoch on"
    assert all(row["val_source_iou"] for row in history)
    rates = [float(row["learning_rate"]) for row in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[3] == pytest.approx(1e-6), "the cosine of three epochs has ended"


def test_windows_are_those_of_training():
    inferer = parsed().content("inferer")
    assert isinstance(inferer, TiledInferer)
    seen = []

    def network(tile):
        seen.append(tuple(tile.shape[1:]))
        return tile[:, :1]

    for size in ((61, 97), (224, 224), (520, 704)):
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(inferer(image, network), image[:, :1], atol=1e-5, rtol=0)
    assert set(seen) == {(3, 224, 224)}


@pytest.mark.parametrize(("schedule", "periods"), [("cosine", 1), ("restarts", 3)])
def test_schedules(tmp_path, schedule, periods):
    from cellbundle.synthetic import write_dataset

    data = write_dataset(tmp_path, n_training=5, n_testing=0, size=(40, 40), seed=0)
    files = {"datalist": str(data), "basedir": str(data.parent), "num_workers": 0}
    epochs = {"train#trainer#max_epochs": 61, "train#warmup_epochs": 1}
    workflow = parsed("small.yaml", **files, **epochs, schedule=schedule)
    scheduler, steps = workflow.content("train#scheduler"), len(workflow.content("train#dataloader"))
    rates = [0.001 * scheduler.lr_lambdas[0](step) for step in range(61 * steps)]
    assert max(rates) == pytest.approx(0.001)
    assert sum(rate == pytest.approx(0.001) for rate in rates) == periods
    assert 1e-6 <= min(rates[steps:]) < 2e-5
