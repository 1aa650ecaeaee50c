"""What only yolo_seg has, whose training loop is ultralytics'."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cellbundle.io import read_labels, write_labels
from cellbundle.io.formats.yolo import read_yolo

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")
from .contract import SMALL, Bundle, flags, history_rows, run, with_classes


class TestYoloSeg(Bundle):
    name = "yolo_seg"

    @pytest.mark.parametrize("size", [(64, 64), (61, 97), (1, 1)])
    def test_there_are_detections_and_masks_of_one_size(self, size: tuple[int, int]):
        with torch.no_grad():
            (found,) = self.network().eval()(torch.rand(1, 3, *size))
        assert len(found["scores"]) > 0
        assert found["masks"].shape[1:] == (56, 56)

    def test_training_properties(self, data: Path, tmp_path: Path):
        """Ultralytics owns the loop: there is no trainer of MONAI, and MONAI Label only infers with this bundle."""
        workflow = self.make(data, tmp_path, **{"train#trainer#max_epochs": 7})
        assert type(workflow.trainer).__name__ == "YoloTraining"
        assert workflow.max_epochs == workflow.trainer.max_epochs == 7

    # training, evaluation, inference

    def test_images_without_cells_and_classes(self, data: Path, tmp_path: Path):
        """One training image has no cell; the others have cells of two classes."""
        classed = with_classes(data, "round", "long", class_names=["round", "long"])
        content = json.loads(classed.read_text())
        write_labels(data.parent / "empty.tif", np.zeros((96, 128), np.int32))
        content["training"].append({**content["training"][0], "label": "empty.tif", "classes": {}, "fold": 1})
        classed.write_text(json.dumps(content))
        workflow = self.make(classed, tmp_path, **{"train#trainer#max_epochs": 1})
        workflow.run()
        assert workflow.content("network").num_classes == 2
        assert "| training tiles without instances | 0 |" not in (tmp_path / "training_summary.md").read_text()
        names = (tmp_path / "yolo_data").glob("*/data.yaml")
        assert [yaml.safe_load(path.read_text())["names"] for path in names] == [{0: "round", 1: "long"}]
        assert (tmp_path / "eval" / "inference_summary.md").is_file(), "of the final test"

    def test_inference_summary(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        self.make(data, tmp_path, mode="infer", **{"decoder#min_size": 1}).run()
        path = tmp_path / "eval" / "inference_summary.md"
        inferred = path.read_text()
        self.make(data, tmp_path, mode="eval", **{"decoder#min_size": 1}).run()
        evaluated = path.read_text()
        header = "| image | pixels | nuclei | mean score | detections | seconds |"
        assert f"{header}\n" in inferred
        assert f"{header} AP@.5 | PQ |\n" in evaluated
        assert "| mask AP50 | " in evaluated
        assert "mask AP50" not in inferred
        for entry in json.loads(data.read_text())["testing"]:
            labels = read_labels(tmp_path / "eval" / f"{Path(entry['image']).stem}_labels.tif")
            for text in (inferred, evaluated):
                (row,) = (line for line in text.splitlines() if entry["image"] in line)
                assert row.split(" | ")[1:3] == ["128 x 96", str(labels.max())]
                assert "![The first images with their outlines](predictions.png)" in text

    def test_train_config_runs_without_the_workflow_class(self, data: Path, tmp_path: Path):
        where = {"datalist": data, "basedir": data.parent, "ckpt_path": tmp_path, "device_name": "cpu", "quick": True}
        files = f"['configs/train.json','{SMALL}']"
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files]
        done = run([*command, *flags(where)], self.root)
        assert done.returncode == 0, done.stderr
        assert {"model.pt", "model_final.pt", "history.csv"} <= {path.name for path in tmp_path.iterdir()}

    def test_mlflow_gets_the_history(self, data: Path, tmp_path: Path):
        mlflow = pytest.importorskip("mlflow")
        uri = f"sqlite:///{tmp_path / 'runs.db'}"
        self.make(data, tmp_path, quick=True, final_test=False, mlflow_tracking_uri=uri, mlflow_run_name="first").run()
        client = mlflow.MlflowClient(uri)
        (experiment,) = [e for e in client.search_experiments() if e.name == "yolo_seg"]
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.info.run_name == "first"
        assert found.info.status == "FINISHED"
        assert found.data.params["lr0"] == found.data.params["learning_rate"] == "0.001"
        (row,) = history_rows(tmp_path)
        assert found.data.metrics["val_fitness"] == float(row["val_fitness"])
        assert found.data.metrics["loss"] == pytest.approx(float(row["loss"]))


@pytest.mark.slow
def test_two_epochs_on_real_images(real_data, tmp_path: Path):
    """A slice of NuInsSeg, in the size that the data have; the loss falls, and all images are scored."""
    folder = real_data("nuinsseg")
    entries = []
    for number, outlines in enumerate(sorted((folder / "labels").iterdir())[:10]):
        shutil.copy(folder / "images" / f"{outlines.stem}.png", tmp_path)
        write_labels(tmp_path / f"{outlines.stem}.tif", read_yolo(outlines, (512, 512))[0].labels)
        names = {"image": f"{outlines.stem}.png", "label": f"{outlines.stem}.tif"}
        entries.append({**names, "fold": int(number > 5)})
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"training": entries[:8], "testing": entries[8:]}))
    options = {"train#trainer#max_epochs": 2, "fold": 1, "imgsz": 256, "batch_size": 2, "train#schedule#nbs": 2}
    TestYoloSeg().make(datalist, tmp_path / "run", **{**options, "tile_size": [256, 256]}).run()
    rows = history_rows(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    report = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())
    assert report["all"]["n_images"] == 2
