"""Every bundle keeps to the contract; each folder of ``bundles/`` with ``configs/metadata.json`` is tested."""

import importlib.metadata
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import run as run_bundle
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from cellbundle.bundles import inference_parser, make_importable
from cellbundle.datalists.datalist import read_datalist
from cellbundle.engine.configs.bases import load_config, references, texts
from cellbundle.engine.configs.show import config_text
from cellbundle.engine.overrides import check_overrides
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_labels
from cellbundle.targets.boxes import instance_targets

from .contract import BUNDLES, REPOSITORY, SMALL, Bundle, generate_command, history_rows, run

FILES = (
    "configs/metadata.json",
    "configs/hyper_parameters.yaml",
    "configs/small.yaml",
    "configs/train.json",
    "configs/inference.json",
    "configs/inference_trt.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "docs/figures.json",
    "LICENSE",
    "large_files.yml",
    "scripts/network.py",
)
SIZES = [(64, 64), (61, 97), (1, 1)]


def tensors(answer: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists and dictionaries."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, dict | list | tuple):
        for part in answer.values() if isinstance(answer, dict) else answer:
            yield from tensors(part)


def missing_packages(name: str) -> list[str]:
    """Packages of the metadata of a bundle that are not installed."""
    missing = []
    for package in Bundle.named(name).metadata["required_packages_version"]:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    return missing


class Contract(Bundle):
    """The tests; a class is made of it for each bundle."""

    # files

    def test_files(self):
        assert [file for file in FILES if not (self.root / file).is_file()] == []
        assert (self.root / "scripts" / "__init__.py").read_bytes() == b""
        assert not (REPOSITORY / "scripts" / "__init__.py").exists(), "it would hide every bundle's scripts package"

    def test_workflow_is_short(self):
        assert len((self.root / "scripts" / "workflow.py").read_text().splitlines()) <= 80
        assert len(json.loads((self.root / "configs" / "inference_trt.json").read_text())) <= 15

    def test_generated_files_are_up_to_date(self):
        done = run([*generate_command(self.name), "--check"], REPOSITORY)
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

    def test_small_version_is_short_and_changes_options_that_exist(self):
        lines = (self.root / SMALL).read_text().splitlines()
        comments = [line.startswith("#") for line in lines]
        assert comments == sorted(comments, reverse=True), "one comment, at the top"
        assert 2 <= comments.count(False) <= 13
        make_importable(self.root)
        check_overrides(load_config(self.root / "configs" / "hyper_parameters.yaml"), self.small)

    # network

    @pytest.mark.parametrize("size", SIZES)
    def test_forward_shape(self, size: tuple[int, int]):
        with torch.no_grad():
            answer = self.network().eval()(torch.rand(1, 3, *size))
        if not self.is_detector:
            channels = self.metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
            assert answer.shape == (1, channels, *size)
            return
        (found,) = answer
        n, m = len(found["scores"]), found["masks"].shape[-1]
        assert n > 0 or min(size) == 1
        assert [found[key].shape for key in ("boxes", "labels", "masks")] == [(n, 4), (n,), (n, m, m)]
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([size[1], size[0]] * 2)).all()

    def test_backward_reaches_every_parameter(self):
        """Also where the network takes targets and gives its losses."""
        network, arguments = self.network().train(), [torch.rand(2, 3, 64, 64)]
        if "targets" in inspect.signature(network.forward).parameters:
            labels = np.zeros((64, 64), np.int32)
            labels[10:30, 10:30], labels[40:60, 35:50] = 1, 2
            target = {key: torch.from_numpy(value) for key, value in instance_targets(labels).items()}
            arguments.append([target, target])
        sum(part.square().mean() for part in tensors(network(*arguments))).backward()
        trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
        assert [name for name, grad in trained.items() if grad is None or not torch.isfinite(grad).all()] == []

    def test_state_dict_reload(self, tmp_path: Path):
        first, second = self.network().eval(), self.network().eval()
        torch.save(first.state_dict(), tmp_path / "model.pt")
        second.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            ours, theirs = tensors(first(image)), tensors(second(image))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))

    # workflow

    def test_training_properties(self, data: Path, tmp_path: Path):
        workflow = self.make(data, tmp_path, **{"train#trainer#max_epochs": 7})
        assert workflow.check_properties() == []
        assert isinstance(workflow.trainer, SupervisedTrainer) == self.has_monai_trainer
        if self.has_monai_trainer:
            assert isinstance(workflow.evaluator, SupervisedEvaluator)
            assert workflow.trainer.state.max_epochs == 7
        assert workflow.max_epochs == 7

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
            config_file=[str(file), str(self.root / SMALL)],
            logging_file=False,
            **{
                "bundle_root": str(self.root),
                "device": "cpu",
                "train#trainer#max_epochs": 1,
                "train#dataset#data": entries[2:],
                "validate#dataset#data": entries[:2],
                "train#handlers": [loader | {"load_dict": {"model": "$@network"}}, *handlers],
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
        parser = inference_parser(self.root, {**files, "device": "cpu", "amp": "false", **self.small_inference})
        parser.get_parsed_content("evaluator").run()
        assert parser.get_parsed_content("step").amp is False
        assert read_labels(tmp_path / f"{image.stem}_labels.tif").shape == (96, 128)

    def test_resuming_equals_never_stopping(self, data: Path, tmp_path: Path):
        """In all phases, where a training has several."""
        two = {"train#trainer#max_epochs": 2, "patience": 0}
        workers = 0 if self.has_phases else 2  # each phase starts them anew, which takes long
        whole = self.trained(data, tmp_path / "whole", num_workers=workers, **two).content("network").state_dict()
        self.trained(data, tmp_path / "parts", stopped=True, **two)
        assert len(history_rows(tmp_path / "parts")) == 1
        resumed = self.trained(data, tmp_path / "parts", resume=True, **two)
        assert resumed.trainer.state.epoch == 2
        parts = resumed.content("network").state_dict()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)

    def test_the_predictor_uses_the_bundle(self, tmp_path: Path):
        predictor = Predictor(self.small_copy(tmp_path), device="cpu")
        image = np.random.default_rng(0).uniform(0, 255, (3, 70, 90)).astype(np.float32)
        labels, scores = predictor.segment(image)[:2]
        assert labels.shape == (70, 90)
        assert len(scores) == labels.max()
        assert labels.max() > 0 or not self.untrained, "random weights give instances"

    def test_empty_postprocessing_writes_nothing(self, data: Path, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        self.make(data, tmp_path, mode="infer", postprocessing=[]).run()
        assert not list(tmp_path.rglob("*_labels.tif"))

    @pytest.mark.slow
    def test_tensorrt_overlay_parses_and_raises_without_tensorrt(self, tmp_path: Path):
        torch.save(self.network().state_dict(), tmp_path / "model.pt")
        if importlib.util.find_spec("tensorrt"):
            pytest.skip("TensorRT is installed here")
        files = "['configs/inference.json','configs/inference_trt.json','configs/small.yaml']"
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files]
        done = run([*command, "--weights", str(tmp_path / "model.pt")], self.root)
        assert done.returncode != 0
        assert "TensorRT is not installed" in done.stderr


def contract_of(name: str) -> type[Contract]:
    """The tests of a bundle; without those that only MONAI's engine can pass, and skipped without its packages."""
    changes: dict[str, Any] = {"name": name}
    if not Bundle.named(name).has_monai_trainer:
        changes["test_resuming_equals_never_stopping"] = None  # another loop promises less; its own tests say what
    missing = missing_packages(name)
    reason = f"{', '.join(missing)} not installed"
    return pytest.mark.skipif(bool(missing), reason=reason)(type(f"Test_{name}", (Contract,), changes))


for _name in BUNDLES:
    globals()[f"Test_{_name}"] = contract_of(_name)
