"""mask_rcnn learns, and writes what challenges ask for."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cellbundle.inference.predictor import Predictor
from cellbundle.instances.painting import paint_rles
from cellbundle.io import read_labels
from cellbundle.io.formats.kaggle import read_kaggle

from .contract import Bundle, history_rows, picture, save_list, with_classes

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")


class TestMaskRCNN(Bundle):
    name = "mask_rcnn"

    @pytest.mark.parametrize("size", [(64, 64), (61, 97), (1, 1)])
    def test_number_of_detections_and_size_of_masks(self, size: tuple[int, int]):
        with torch.no_grad():
            (found,) = self.network().eval()(torch.rand(1, 3, *size))
        assert len(found["scores"]) == 10 if min(size) > 1 else len(found["scores"]) <= 10
        assert found["masks"].shape[1:] == (28, 28)

    # training

    def test_losses_by_name_and_scores_in_the_history(self, data: Path, tmp_path: Path):
        workflow = self.trained(data, tmp_path)
        (row,) = history_rows(tmp_path)
        parts = [float(row[name]) for name in LOSSES]
        assert all(part >= 0 for part in parts)
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-4)
        assert {"val_mask_ap", "val_box_ap", "val_sartorius_score", "val_ap50", "val_pq"} <= set(row)
        assert workflow.content("validate#evaluator").state.key_metric_name == "mask_ap"
        assert (tmp_path / "samples.png").is_file()

    def test_learning_rate_falls_when_mask_ap_does_not_grow(self, data: Path, tmp_path: Path):
        """An AP of 0 from the first validation on: the fourth in a row halves the rate, which the next epoch uses."""
        options = {"decoder#lowest_score": 1.0, "decoder#score_threshold": 1.0, "train#trainer#max_epochs": 5}
        self.trained(data, tmp_path, crops_per_epoch=2, **options)
        rows = history_rows(tmp_path)
        assert [float(row["val_mask_ap"]) for row in rows] == [0.0] * 5
        assert [float(row["learning_rate"]) for row in rows] == [1e-4] * 4 + [5e-5]

    def test_images_without_cells_train_and_evaluate(self, tmp_path: Path):
        images = [np.full((70, 80), number, np.uint8) for number in range(2)]
        empty = save_list(tmp_path, images, [np.zeros((70, 80), np.int32)] * 2)
        workflow = self.trained(empty, tmp_path / "models", **{"train#trainer#max_epochs": 2})
        assert workflow.trainer.state.epoch == 2
        self.make(empty, tmp_path / "models", mode="eval").run()
        report = json.loads((tmp_path / "models" / "eval" / "report.json").read_text())
        assert report["all"]["n_images"] == 2

    def test_classes_of_the_data_list(self, data: Path, tmp_path: Path):
        classed = with_classes(data, "round", "long", class_names=["round", "long"])
        workflow = self.trained(classed, tmp_path)
        assert workflow.content("network").roi_heads.box_predictor.cls_score.out_features == 3
        self.make(classed, tmp_path, mode="infer", **{"decoder#score_threshold": 0.05}).run()
        image = Path(json.loads(data.read_text())["testing"][0]["image"]).stem
        with (tmp_path / "eval" / f"{image}_classes.csv").open() as file:
            assert {row["name"] for row in csv.DictReader(file)} <= {"round", "long"}

    # results

    def test_the_submission_gives_the_label_maps(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        self.make(data, tmp_path, mode="infer", **{"decoder#score_threshold": 0.05, "decoder#min_size": 1}).run()
        folder = tmp_path / "eval"
        images = read_kaggle(folder / "submission.csv")
        results = json.loads((folder / "coco_results.json").read_text())
        names = [Path(entry["image"]).stem for entry in json.loads(data.read_text())["testing"]]
        assert list(images) == names
        for name in names:
            labels = read_labels(folder / f"{name}_labels.tif")
            painted = paint_rles(images[name].runs, labels.shape, "kaggle_rows").labels
            assert labels.max() > 0
            assert np.array_equal(painted, labels)
        assert len(results) >= sum(len(image.runs) for image in images.values())
        assert {"image_id", "category_id", "segmentation", "bbox", "score"} <= set(results[0])
        assert (folder / "predictions.png").is_file()

    def test_scores_of_detections_are_in_metrics_json(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        self.make(data, tmp_path, mode="eval").run()
        metrics = json.loads((tmp_path / "eval" / "results" / "metrics.json").read_text())
        assert {"mask_ap", "mask_ap50", "box_ap", "mask_ar"} <= set(metrics["pooled"])
        assert metrics["per_image_mean"]["sartorius_score"] == metrics["per_image_mean"]["ap_mean"]

    def test_the_predictor_takes_other_weights_and_tiles(self, tmp_path: Path):
        """Tiles, the table of instances and the command line's way into a bundle."""
        bundle = self.small_copy(tmp_path)
        weights = (bundle / "models" / "model.pt").rename(tmp_path / "other.pt")
        instances = Predictor(bundle, device="cpu", tile=64, weights=weights)(255 * picture(3, 70, 90).numpy())
        assert len(instances) > 0
        assert instances.labels.shape == (70, 90)
        assert instances.table["score"].between(0, 1).all()
