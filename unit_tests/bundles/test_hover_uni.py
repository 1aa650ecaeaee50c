"""The two phases of hover_uni do what they say."""

import json
from pathlib import Path

import pytest
import torch

from cellbundle.errors import CellBundleError, CheckpointError, ConfigError, DatalistError
from cellbundle.inference.predictor import Predictor

from .contract import Bundle, history_rows, latest, picture, with_classes


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


class TestHoverUni(Bundle):
    name = "hover_uni"

    def test_both_phases_in_one_command_equal_two_commands(self, data: Path, tmp_path: Path):
        both, two = tmp_path / "both", tmp_path / "two"
        self.trained(data, both, **{"train#trainer#max_epochs": 2})
        history = history_rows(both)
        assert [(row["phase"], row["epoch"]) for row in history] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
        assert all(float(row[name]) > 0 for row in history for name in ("np_bce", "np_dice", "hv_mse", "hv_msge"))
        assert float(history[1]["loss"]) < float(history[0]["loss"])
        assert [row["learning_rate_1"] == "" for row in history] == [True, True, False, False], "the adapters' rate"
        assert float(history[2]["learning_rate"]) == pytest.approx(10 * float(history[2]["learning_rate_1"]))
        self.trained(data, two, phase=1, **{"train#trainer#max_epochs": 2})
        assert [row["phase"] for row in history_rows(two)] == ["1", "1"]
        self.trained(data, two, phase=2, num_workers=1, **{"train#trainer#max_epochs": 2})
        assert same(latest(both)["network"], latest(two)["network"])
        first, plain = (torch.load(both / name, weights_only=True) for name in ("model_phase1.pt", "model_final.pt"))
        assert list(first) == list(plain), "adapters are merged"
        changed = {key for key in first if key.startswith("backbone.") and not torch.equal(first[key], plain[key])}
        assert changed == {f"backbone.blocks.{i}.attn.qkv.weight" for i in range(4)}

    def test_phases_are_resumed_one_by_one(self, data: Path, tmp_path: Path):
        options = {"train#trainer#max_epochs": 2}
        self.trained(data, tmp_path / "whole", **options)
        parts = tmp_path / "parts"
        self.trained(data, parts, stopped=True, phase=1, **options)
        assert (latest(parts)["phase"], latest(parts)["epoch"]) == (1, 1)
        self.trained(data, parts, resume=True, phase=1, **options)
        self.trained(data, parts, stopped=True, phase=2, **options)
        assert (latest(parts)["phase"], latest(parts)["epoch"]) == (2, 1)
        with pytest.raises(CheckpointError, match=r"latest\.pt.*phase 2;.*--phase both or --phase 2"):
            self.make(data, parts, phase=1, resume=True, **options).run()
        self.trained(data, parts, resume=True, phase="both", **options)
        assert same(latest(tmp_path / "whole")["network"], latest(parts)["network"])

    def test_cached_features_train_the_same_network(self, data: Path, tmp_path: Path):
        options = {"phase": 1, "augmentation_variants": 2, "train#trainer#max_epochs": 3}
        self.trained(data, tmp_path / "plain", **options)
        workflow = self.trained(data, tmp_path / "cached", feature_cache=str(tmp_path / "features"), **options)
        assert same(latest(tmp_path / "plain")["network"], latest(tmp_path / "cached")["network"])
        cache = workflow.content("network").feature_cache
        assert cache.hits > 8, "the third epoch has the crops of the first, and each validation the same windows"
        assert len(list((tmp_path / "features").rglob("*.pt"))) == cache.misses

    def test_feature_cache_without_a_limit_is_refused(self, data: Path, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"feature_cache.*--augmentation_variants 8"):
            self.make(data, tmp_path, feature_cache="memory").run()

    def test_classes(self, data: Path, tmp_path: Path):
        listed = with_classes(data, "even", "odd")
        names = {"class_names": ["odd", "even"], "train#loss#class_weights": [0.1, 1, 1]}
        workflow = self.trained(listed, tmp_path, phase=1, **names)
        assert workflow.content("network").nc_head[-1].out_channels == 3
        assert float(history_rows(tmp_path)[0]["nc_ce"]) > 0
        self.make(listed, tmp_path, mode="eval", figures=True, tta_flips=True, **names).run()
        metrics = json.loads((tmp_path / "eval" / "results" / "metrics.json").read_text())
        assert metrics["class_names"] == ["odd", "even"]
        assert metrics["n_images"] == 2
        assert len(list((tmp_path / "eval" / "figures").glob("*.png"))) == 2
        self.make(listed, tmp_path, mode="infer", **names).run()
        tables = list((tmp_path / "eval").glob("*_classes.csv"))
        assert [table.read_text().splitlines()[0] for table in tables] == ["id,class,name,class_score,score"] * 2
        with pytest.raises(DatalistError, match=r"odd, even.*no 'classes'"):
            self.make(data, tmp_path / "unlabelled", **names).run()
        with pytest.raises(CellBundleError, match=r"2 of 2 images.*no 'classes'"):
            self.make(data, tmp_path, mode="eval").run()  # the weights know their classes
        (tmp_path / "run.yaml").unlink()
        with pytest.raises(CheckpointError, match=r"3 classes.*vit_tiny_4.* 0 classes.*--backbone and --n_classes"):
            self.make(data, tmp_path, mode="eval").run()

    def test_the_predictor_gives_classes_and_normalises_stains(self, tmp_path: Path):
        bundle = self.small_copy(tmp_path, class_names=["a", "b"], stain="reinhard")
        labels, scores, classes, _ = Predictor(bundle, device="cpu").segment(255 * picture(3, 70, 90).numpy())
        assert labels.shape == (70, 90)
        assert len(scores) == labels.max() > 0
        assert classes is not None

    def test_what_is_missing(self, data: Path, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"phase.* 3;.*both, 1, 2"):
            self.make(data, tmp_path, phase=3).run()
        with pytest.raises(CheckpointError, match=r"model_phase1\.pt.*--phase both.*--pretrained_ckpt_path"):
            self.make(data, tmp_path, phase=2).run()
        with pytest.raises(CheckpointError, match=r"uni\.bin or uni\.safetensors in .*models.*--backbone_weights"):
            self.make(data, tmp_path, backbone="uni", **{"network_def#backbone": "@backbone"}).run()
