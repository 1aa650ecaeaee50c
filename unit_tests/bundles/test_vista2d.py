"""vista2d trains with MONAI's engine, and a small one learns."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.inferers import SlidingWindowInfererAdapt

from cellbundle.engine.configs import load_config
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.errors import CheckpointError, ConfigError, TrainingError
from cellbundle.inference.predictor import Predictor
from cellbundle.synthetic import write_dataset

from .contract import SMALL, Bundle, history_rows, picture, run, save_list
from .tiny_vista2d import sam_file, tiny, vista_file

LEARNING = {  # 2.0 million parameters, which learn in minutes on a CPU
    "network_def#network_resize_roi": [512, 512],
    "network_def#embed_dim": 128,
    "network_def#depth": 4,
    "network_def#num_heads": 4,
    "network_def#global_attn_indexes": [1, 3],
    "network_def#window_size": 8,
    "roi_size": [256, 256],
    "learning_rate": 0.001,
}


class TestVista2D(Bundle):
    name = "vista2d"

    # training, with MONAI's engine and the bundle's own configuration

    def test_fine_tuning_follows_the_schedule_and_five_epochs_are_five(self, data: Path, tmp_path: Path):
        torch.save({"state_dict": self.network().state_dict(), "epoch": 199}, tmp_path / "published.pt")
        options = {"pretrained_ckpt_path": str(tmp_path / "published.pt"), "learning_rate": 0.001, "val_interval": 9}
        workflow = self.trained(data, tmp_path, optimizer_name="sgd", **options, **{"train#trainer#max_epochs": 5})
        assert workflow.trainer.state.epoch == 5
        rows = history_rows(tmp_path)
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
        # three epochs of warm-up from a tenth on, then half a cosine over the other two
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx([1e-4, 4e-4, 7e-4, 1e-3, 5e-4])

    @pytest.mark.parametrize(
        ("options", "kind", "expected"),
        [
            ({"optimizer_name": "sgd"}, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-5}),
            ({"optimizer_name": "adamw"}, torch.optim.AdamW, {"lr": 1e-4, "weight_decay": 1e-5}),
            ({"optimizer_name": "adamw", "learning_rate": 0.002}, torch.optim.AdamW, {"lr": 0.002}),
            ({"optimizer_name": "sgd", "train#optimizer#momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5}),
        ],
    )
    def test_optimisers(self, data: Path, tmp_path: Path, options, kind, expected):
        optimizer = self.make(data, tmp_path, **options).content("train#optimizer")
        assert type(optimizer) is kind
        assert {key: optimizer.defaults[key] for key in expected} == pytest.approx(expected)

    def test_a_training_that_learns_nothing_stops(self, data: Path, tmp_path: Path):
        slow = {
            "learning_rate": 0.0,
            "train#trainer#max_epochs": 3,
            "val_interval": 1,
            "train#low_accuracy_guard#epochs": 2,
        }
        with pytest.raises(TrainingError, match=r"2 epochs.*ap50.* 0\.0000, .* 0\.01;.*stop_on_lowacc"):
            self.trained(data, tmp_path, **slow)
        self.trained(data, tmp_path / "all", stop_on_lowacc=False, **slow)

    def test_several_lists_count_by_their_weight(self, data: Path, tmp_path: Path):
        spec = {"datalist": str(data), "basedir": str(data.parent)}
        lists = tmp_path / "group1.yaml"
        lists.write_text(yaml.safe_dump([spec, {**spec, "weight": 3.0}]))
        several = self.make(data, tmp_path, data_list_files=str(lists), crops_per_epoch=4000)
        drawn = np.bincount([key[2] for key in several.content("train#sampler")], minlength=12)
        assert drawn[6:].sum() / drawn[:6].sum() == pytest.approx(3, rel=0.15)
        one = self.make(data, tmp_path, crops_per_epoch="$None").content("train#sampler")
        assert sorted(key[2] for key in one) == list(range(6)), "each image once"
        self.trained(data, tmp_path, data_list_files=str(lists))

    def test_training_crops(self, tmp_path: Path):
        """Smaller images are filled up; ids that float32 cannot tell apart stay apart."""
        labels = np.zeros((40, 50), np.uint32)
        labels[5:35, 5:25], labels[5:35, 25:45] = 2**24, 2**24 + 1
        image = np.arange(2000, dtype=np.uint16).reshape(40, 50)
        datalist = save_list(tmp_path, [image] * 2, [labels] * 2)

        def crop(prob: float) -> dict:
            geometry = {f"train#preprocessing#{i}#prob": prob for i in (5, 6)}
            workflow = self.make(datalist, tmp_path, roi_size=[96, 96], **geometry)
            return workflow.content("train#dataset")[0, 0, 0]

        item, moved = crop(0.0), crop(1.0)
        for key in ("image", "label"):
            assert {(type(i[key]), i[key].shape, i[key].dtype) for i in (item, moved)} == {
                (torch.Tensor, (3, 96, 96), torch.float32)
            }
        cell, dy, dx = item["label"]
        assert cell.sum() == 1200
        assert dy.square().add(dx.square())[cell > 0].median() == pytest.approx(1, abs=1e-5)
        left, right = dx[cell > 0].reshape(30, 40)[:, [15, 24]].mean(0)
        assert left < 0 < right, "each to its own centre"
        assert not torch.equal(item["label"], moved["label"])

    def test_sam_file_and_weights_in_the_wrong_place(self, data: Path, tmp_path: Path):
        """A SAM file is read only where training starts from scratch."""
        sam, vista = sam_file(tiny(), tmp_path / "sam.pth"), vista_file(tiny(), tmp_path / "vista.pt")
        config = load_config(self.root / "configs" / "hyper_parameters.yaml")
        reads_sam = {"network_def#sam_checkpoint": config["network_def"]["sam_checkpoint"]}
        with pytest.raises(CheckpointError, match=r"sam\.pth.*--sam_checkpoint"):
            self.make(data, tmp_path, mode="infer", pretrained_ckpt_path=str(sam)).run()
        with pytest.raises(CheckpointError, match=r"vista\.pt.*--pretrained_ckpt_path"):
            self.make(data, tmp_path, sam_checkpoint=str(vista), **reads_sam).run()
        options = {"sam_checkpoint": str(tmp_path / "none.pth"), **reads_sam}
        with pytest.raises(CheckpointError, match=r"none\.pth does not exist"):
            self.make(data, tmp_path, **options).run()
        self.make(data, tmp_path, pretrained_ckpt_path=str(vista), **options).content("network")
        self.make(data, tmp_path, mode="eval", pretrained_ckpt_path=str(vista), **options).content("network")

    # what only eval and infer need

    def test_windows_are_those_of_the_published_bundle(self, data: Path, tmp_path: Path):
        """At sizes that its windows fit, ours are MONAI's; smaller images are filled up with copies of their border."""
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        inferer = self.make(data, tmp_path, mode="infer", roi_size=[256, 256], tile_overlap=0.625).content("inferer")
        theirs = SlidingWindowInfererAdapt((256, 256), 1, 0.625, mode="gaussian", padding_mode="replicate")
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 3, 5, padding=2)
        seen = set()
        network.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].shape))
        with torch.no_grad():
            for size in [(256, 352), (448, 256), (100, 300), (30, 40)]:
                image = picture(1, 3, *size)
                ours = inferer(image, network)
                torch.testing.assert_close(ours, theirs(image, network), atol=1e-5, rtol=1e-5)
        assert {shape[2:] for shape in seen} == {(256, 256)}
        assert {shape[0] for shape in seen} == {1, 2, 3}, "batches"

    def test_the_predictor_has_tiles_of_one_size(self, tmp_path: Path):
        bundle = self.small_copy(tmp_path)
        image = 255 * picture(3, 70, 90).numpy()
        rescaled = Predictor(bundle, device="cpu", rescale=1.6)
        assert rescaled.tile == Predictor(bundle, device="cpu").tile == 64
        assert rescaled.inferer.network_tile() == [64, 64]
        assert rescaled.segment(image).labels.shape == (70, 90)
        with pytest.raises(ConfigError, match=r"vista2d_small.*one size.*tile"):
            Predictor(bundle, device="cpu", tile=512)
        with pytest.raises(ConfigError, match=r"diameter.*rescale"):
            Predictor(bundle, device="cpu", diameter=20)

    @pytest.mark.slow
    def test_commands(self, data: Path, tmp_path: Path):
        """What the bundle's page shows, in its folder, with the small version as the second file."""
        files = f"['configs/hyper_parameters.yaml','{SMALL}']"
        where = ["--datalist", str(data), "--basedir", str(data.parent), "--output_dir", str(tmp_path / "eval")]
        common = [*where, "--device_name", "cpu", "--config_file", files]
        start = ["-m", "monai.bundle", "run_workflow", "scripts.workflow.VistaCell"]

        def check(*options: str) -> None:
            done = run([sys.executable, *options, *common], self.root)
            assert done.returncode == 0, done.stderr[-3000:]

        first, tuned = tmp_path / "first", tmp_path / "tuned"
        uri = f"sqlite:///{tmp_path / 'runs.db'}" if importlib.util.find_spec("mlflow") else "$None"
        track = ["--mlflow_tracking_uri", uri, "--mlflow_run_name", "quick"]
        check(*start, "--ckpt_path", str(first), "--quick", "True", "--train#trainer#max_epochs", "3", *track)
        assert torch.load(first / "latest.pt", weights_only=True)["epoch"] == 3
        tune = ["--pretrained_ckpt_path", str(first / "model.pt"), "--learning_rate", "0.0005"]
        check("scripts/workflow.py", "--ckpt_path", str(tuned), "--quick", "True", *tune)
        assert (tuned / "model.pt").is_file()
        check(*start, "--ckpt_path", str(tuned), "--mode", "infer", "--postprocessing", "[]")
        assert not list((tmp_path / "eval").glob("*_labels.tif"))
        assert uri == "$None" or (tmp_path / "runs.db").stat().st_size > 0

    @pytest.mark.slow
    def test_the_small_network_learns_four_crops(self, tmp_path: Path):
        """Train on four crops without augmentation, and score it on them.

        24 epochs reach 0.9, which takes minutes.
        """
        folder, epochs, expected = tmp_path, 10, 0.5
        data = write_dataset(folder / "data", n_training=4, n_testing=0, size=(256, 256), seed=0)
        everything = "$find_entries(@data_list_files, 'training', 99)"  # no fold is left out
        still = {f"train#preprocessing#{i}#prob": 0.0 for i in range(5, 12)}
        workflow = CellWorkflow(
            config_file=self.config_file,
            logging_file=False,
            datalist=str(data),
            basedir=str(data.parent),
            ckpt_path=str(folder),
            device_name="cpu",
            num_workers=0,
            batch_size=4,
            crops_per_epoch=16,
            val_interval=epochs,
            final_test=False,
            **{"train#dataset#data": everything, "validate#dataset#data": everything},
            **{"train#trainer#max_epochs": epochs},
            **still,
            **LEARNING,
        )
        workflow.initialize()
        workflow.run()
        assert workflow.content("validate#evaluator").state.best_metric >= expected
