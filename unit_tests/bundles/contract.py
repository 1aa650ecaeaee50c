"""What every bundle keeps to. The tests of a bundle inherit ``BundleContract`` and name it; see test_cell_unet.py."""

import csv
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from cellbundle.bundles import inference_parser, make_importable
from cellbundle.datalists.datalist import read_datalist
from cellbundle.engine.configs.bases import load_config, references, texts
from cellbundle.engine.configs.show import config_text
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels
from cellbundle.synthetic import write_dataset

from .. import forked

REPOSITORY = Path(__file__).resolve().parents[2]


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with two threads in all and return what it printed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **environment}
    return forked.run(command, cwd, env, timeout=900)


def bundle_modules(name: str, *modules: str) -> list[Any]:
    """Modules of a bundle's package ``scripts``, a name that belongs to whichever bundle was imported last."""
    make_importable(REPOSITORY / "bundles" / name)
    return [importlib.import_module(f"scripts.{module}") for module in modules]


def flags(options: dict[str, Any]) -> list[str]:
    """Command-line form of overrides."""
    return [item for key, value in options.items() for item in (f"--{key}", str(value))]


def history_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of ``history.csv`` in a folder of checkpoints."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise in [0, 1], the same each time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def save_list(folder: Path, images: list[np.ndarray], labels: list[np.ndarray], **imagej: Any) -> Path:
    """A datalist of TIFF files: the first image is for validation, the second for training, all are for testing."""
    entries = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        names = {"image": f"{number}.tif", "label": f"{number}_labels.tif"}
        tifffile.imwrite(folder / names["image"], image, **imagej)
        tifffile.imwrite(folder / names["label"], label)
        entries.append(names)
    training = [entry | {"fold": number} for number, entry in enumerate(entries[:2])]
    (folder / "list.json").write_text(json.dumps({"training": training, "testing": entries}))
    return folder / "list.json"


def with_classes(datalist: Path, even: str, odd: str, **further: Any) -> Path:
    """A copy of a datalist whose labels have two classes, by the parity of their ids, with further keys."""
    content = json.loads(datalist.read_text())
    for entry in [*content["training"], *content["testing"]]:
        ids = np.unique(read_labels(datalist.parent / entry["label"])).tolist()
        entry["classes"] = {str(i): odd if i % 2 else even for i in ids if i}
    copy = datalist.parent / "classed.json"
    copy.write_text(json.dumps(content | further))
    return copy


def latest(folder: Path) -> dict[str, Any]:
    """The state from which a training is resumed."""
    return torch.load(folder / "latest.pt", weights_only=True)


class BundleContract:
    """The tests; a subclass sets the attributes."""

    name: str  # folder below bundles/
    workflow: str  # class of scripts/workflow.py
    small: dict[str, Any]  # overrides that make training quick on a CPU
    n_outputs: int  # channels that the network predicts
    training: dict[str, Any] = {}  # further overrides of `trained`
    predicting: dict[str, Any] = {}  # further values of inference.json, for the predictor

    @property
    def root(self) -> Path:
        return REPOSITORY / "bundles" / self.name

    @property
    def small_network(self) -> dict[str, Any]:
        """The overrides that inference needs too."""
        return {key: value for key, value in self.small.items() if key.startswith("network_def")}

    @pytest.fixture(scope="class")
    def data(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_dataset(tmp_path_factory.mktemp("data"), n_training=8, n_testing=2, size=(96, 128), seed=0)

    def make(self, data: Path, folder: Path, mode: str = "train", **options: Any) -> CellWorkflow:
        """The bundle's workflow on a small data set, initialised."""
        spec = importlib.util.spec_from_file_location(f"workflow_{self.name}", self.root / "scripts" / "workflow.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        options = {
            "datalist": str(data),
            "basedir": str(data.parent),
            "ckpt_path": str(folder),
            **self.small,
            **options,
        }
        options = {"output_dir": str(folder / "eval"), "num_workers": 0, "device_name": "cpu", **options}
        workflow = getattr(module, self.workflow)(
            config_file=str(self.root / "configs" / "hyper_parameters.yaml"), mode=mode, logging_file=False, **options
        )
        workflow.initialize()
        return workflow

    def trained(self, data: Path, folder: Path, *, stopped: bool = False, **options: Any) -> CellWorkflow:
        """The workflow after a training, of one epoch by default; it can be stopped after its first epoch."""
        options = {"final_test": False, "train#trainer#max_epochs": 1, **self.training, **options}
        workflow = self.make(data, folder, **options)
        if stopped:
            workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())
        workflow.run()
        return workflow

    def small_copy(self, folder: Path) -> Path:
        """A copy of the bundle with the small network and random weights."""
        bundle = folder / f"{self.name}_small"
        shutil.copytree(self.root, bundle, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
        path = bundle / "configs" / "inference.json"
        parser = ConfigParser(json.loads(path.read_text()))
        parser.update({**self.small_network, **self.predicting})
        path.write_text(json.dumps(parser.config))
        (bundle / "models").mkdir()
        torch.save(self.network(**self.predicting).state_dict(), bundle / "models" / "model.pt")
        return bundle

    # files

    def test_files(self):
        for file in (
            "metadata.json",
            "hyper_parameters.yaml",
            "train.json",
            "inference.json",
            "inference_trt.json",
            "logging.conf",
        ):
            assert (self.root / "configs" / file).is_file(), file
        for file in ("docs/README.md", "docs/data_license.txt", "LICENSE", "large_files.yml", "scripts/network.py"):
            assert (self.root / file).is_file(), file
        assert (self.root / "scripts" / "__init__.py").read_bytes() == b""
        assert not (REPOSITORY / "scripts" / "__init__.py").exists(), "it would hide every bundle's scripts package"

    def test_workflow_is_short(self):
        assert len((self.root / "scripts" / "workflow.py").read_text().splitlines()) <= 80
        assert len(json.loads((self.root / "configs" / "inference_trt.json").read_text())) <= 15

    def test_generated_configurations_are_up_to_date(self):
        done = run([sys.executable, "scripts/generate.py", self.name, "--check"], REPOSITORY)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_no_position_in_a_list_is_referred_to(self):
        """MONAI Label inserts a handler; positions behind it change."""
        for path in (self.root / "configs").iterdir():
            if path.suffix in {".json", ".yaml"}:
                assert not re.search(r"[\w@](#|::)\d+", path.read_text()), path

    def test_every_knob_has_a_comment(self):
        text = config_text(self.root / "configs" / "hyper_parameters.yaml", origins=False)
        config = yaml.safe_load(text)
        lines = text.splitlines()
        plain = [k for k, v in config.items() if not isinstance(v, dict | list)]
        missing = [k for k in plain if " # " not in next(line for line in lines if line.startswith(f"{k}:"))]
        assert set(missing) <= {"device", "network", "weights", "dataloader", "decoder", "inferer"}

    def test_a_configuration_says_only_what_differs(self):
        lines = (self.root / "configs" / "hyper_parameters.yaml").read_text().splitlines()
        content = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        assert len(content) <= 170

    def test_every_named_block_is_used(self):
        config = load_config(self.root / "configs" / "hyper_parameters.yaml")
        used = {name for text in texts(config) for name in references(text)}
        named = {f"train#{key}" for key, value in config["train"].items() if isinstance(value, dict)}
        assert not [name for name in named if not any(f"{other}#".startswith(f"{name}#") for other in used)]

    # network

    def network(self, **options: Any) -> torch.nn.Module:
        make_importable(self.root)
        parser = ConfigParser(load_config(self.root / "configs" / "hyper_parameters.yaml"))
        parser.update(pairs={**self.small, **options})
        return parser.get_parsed_content("network_def")

    @pytest.mark.parametrize("size", [(64, 64), (61, 97), (1, 1)])
    def test_forward_shape(self, size: tuple[int, int]):
        with torch.no_grad():
            assert self.network().eval()(torch.rand(1, 3, *size)).shape == (1, self.n_outputs, *size)

    def test_backward_reaches_every_parameter(self):
        network = self.network().train()
        network(torch.rand(2, 3, 64, 64)).square().mean().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters() if p.requires_grad)

    def test_state_dict_reload(self, tmp_path: Path):
        first, second = self.network().eval(), self.network().eval()
        torch.save(first.state_dict(), tmp_path / "model.pt")
        second.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            ours, theirs = self.tensors(first(image)), self.tensors(second(image))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))

    def tensors(self, answer: Any) -> list[torch.Tensor]:
        """What the network answers for one image."""
        return [answer]

    # workflow

    def test_training_properties(self, data: Path, tmp_path: Path):
        workflow = self.make(data, tmp_path)
        assert workflow.check_properties() == []
        assert isinstance(workflow.trainer, SupervisedTrainer)
        assert isinstance(workflow.evaluator, SupervisedEvaluator)
        assert workflow.max_epochs == workflow.trainer.state.max_epochs

    def test_inference_properties(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        workflow = self.make(data, tmp_path, mode="infer")
        assert workflow.check_properties() == []
        assert isinstance(workflow.evaluator, SupervisedEvaluator)

    def test_train_eval_infer(self, data: Path, tmp_path: Path):
        workflow = self.make(data, tmp_path, quick=True)
        workflow.run()
        workflow.finalize()
        assert {"model.pt", "model_final.pt", "latest.pt", "history.csv"} <= {p.name for p in tmp_path.iterdir()}
        assert (tmp_path / "eval" / "report.json").is_file(), "the final test on the testing list"
        self.make(data, tmp_path, mode="eval").run()
        report = json.loads((tmp_path / "eval" / "report.json").read_text())
        assert report["all"]["n_images"] == 2
        self.make(data, tmp_path, mode="infer").run()
        for entry in json.loads(data.read_text())["testing"]:
            labels = read_labels(tmp_path / "eval" / f"{Path(entry['image']).stem}_labels.tif")
            assert labels.shape == (96, 128)
            assert labels.dtype == np.int32

    def test_trains_as_monai_label_does(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Entries, epochs and the device's name are overrides, and a handler that loads weights comes first."""
        monkeypatch.syspath_prepend(str(self.root))
        make_importable(self.root)
        weights = self.network().state_dict()
        torch.save(weights, tmp_path / "model.pt")
        file = self.root / "configs" / "train.json"
        handlers = json.loads(file.read_text())["train"].get("handlers", [])
        loader = {"_target_": "CheckpointLoader", "load_path": str(tmp_path / "model.pt"), "strict": False}
        entries = read_datalist(data, data.parent)["training"]
        run_bundle(
            run_id="run",
            config_file=str(file),
            logging_file=False,
            **{
                "bundle_root": str(self.root),
                "device": "cpu",
                "train#trainer#max_epochs": 1,
                "train#dataset#data": entries[2:],
                "validate#dataset#data": entries[:2],
                "train#handlers": [loader | {"load_dict": {"model": "$@network"}}, *handlers],
                **self.small,
                "ckpt_path": str(tmp_path),
                "num_workers": 0,
                "overwrite": "true",
                "amp": "false",
            },
        )
        trained = torch.load(tmp_path / "model.pt", weights_only=True)
        assert trained.keys() == weights.keys()
        assert any(not torch.equal(trained[key].float(), weights[key].float()) for key in weights)

    def test_inference_with_the_name_of_a_device_and_text_for_a_switch(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        image = data.parent / json.loads(data.read_text())["testing"][0]["image"]
        files = {"image": str(image), "output_dir": str(tmp_path), "weights": str(tmp_path / "model.pt")}
        parser = inference_parser(self.root, {**files, "device": "cpu", "amp": "false", **self.small_network})
        parser.get_parsed_content("evaluator").run()
        assert parser.get_parsed_content("step").amp is False
        assert read_labels(tmp_path / f"{image.stem}_labels.tif").shape == (96, 128)

    def test_resuming_equals_never_stopping(self, data: Path, tmp_path: Path):
        two = {"train#trainer#max_epochs": 2}
        whole = self.trained(data, tmp_path / "whole", num_workers=2, **two).content("network").state_dict()
        self.trained(data, tmp_path / "parts", stopped=True, **two)
        resumed = self.trained(data, tmp_path / "parts", resume=True, **two)
        assert resumed.trainer.state.epoch == 2
        parts = resumed.content("network").state_dict()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)

    def test_the_predictor_uses_the_bundle(self, tmp_path: Path):
        bundle = self.small_copy(tmp_path)
        predictor = Predictor(bundle, device="cpu")
        image = np.random.default_rng(0).uniform(0, 255, (3, 70, 90)).astype(np.float32)
        labels, scores, _ = predictor.segment(image)
        assert labels.shape == (70, 90)
        assert len(scores) == labels.max()
        self.check_predictor(predictor, bundle, image)

    def check_predictor(self, predictor: Predictor, bundle: Path, image: np.ndarray) -> None:
        """Check further properties of the predictor of the bundle's small copy."""

    def test_empty_postprocessing_writes_nothing(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        self.make(data, tmp_path, mode="infer", postprocessing=[]).run()
        assert not list(tmp_path.rglob("*_labels.tif"))

    @pytest.mark.slow
    def test_tensorrt_overlay_parses_and_raises_without_tensorrt(self, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        if importlib.util.find_spec("tensorrt"):
            pytest.skip("TensorRT is installed here")
        files = "['configs/inference.json','configs/inference_trt.json']"
        command = [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            files,
            "--weights",
            str(tmp_path / "model.pt"),
        ]
        done = run([*command, *flags(self.small_network)], self.root)
        assert done.returncode != 0
        assert "TensorRT is not installed" in done.stderr


class DetectorContract(BundleContract):
    """The tests of a network that answers with a list of dictionaries, one for each image."""

    mask_size: int

    def is_expected(self, n: int, size: tuple[int, int]) -> bool:
        """Whether an untrained network may give ``n`` detections in an image of noise."""
        raise NotImplementedError

    @pytest.mark.parametrize("size", [(64, 64), (61, 97), (1, 1)])
    def test_forward_shape(self, size: tuple[int, int]):
        with torch.no_grad():
            (found,) = self.network().eval()(torch.rand(1, 3, *size))
        n, m = len(found["scores"]), self.mask_size
        assert self.is_expected(n, size)
        assert [found[key].shape for key in ("boxes", "labels", "masks")] == [(n, 4), (n,), (n, m, m)]
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([size[1], size[0]] * 2)).all()

    def tensors(self, answer: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
        (found,) = answer
        return list(found.values())
