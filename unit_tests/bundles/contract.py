"""A bundle of the repository in its small version, and what the tests of several bundles share."""

import contextlib
import csv
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigParser

from cellbundle.bundles import make_importable
from cellbundle.engine.configs import load_config
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.io import read_labels

from .. import forked

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parts[-3] for path in (REPOSITORY / "bundles").glob("*/configs/metadata.json"))
SMALL = "configs/small.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def generate_command(name: str) -> list[str]:
    """The command that writes the generated files of a bundle."""
    return [sys.executable, "scripts/generate.py", name]


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


def stop(engine: Any) -> None:
    """End a training as a person does, also one that has further phases."""
    raise KeyboardInterrupt


def latest(folder: Path) -> dict[str, Any]:
    """The state from which a training is resumed."""
    return torch.load(folder / "latest.pt", weights_only=True)


class Bundle:
    """A bundle and its small version; tests of one method inherit it and name the bundle.

    All else stands in the folder of the bundle: its small version in ``configs/small.yaml``, its outputs in
    ``configs/metadata.json``, its workflow in ``scripts/workflow.py``.
    """

    name: str  # folder below bundles/

    @staticmethod
    def named(name: str) -> "Bundle":
        bundle = Bundle()
        bundle.name = name
        return bundle

    @property
    def root(self) -> Path:
        return REPOSITORY / "bundles" / self.name

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads((self.root / "configs" / "metadata.json").read_text())

    @property
    def small(self) -> dict[str, Any]:
        """Overrides of the small version by their ids."""
        return {key.replace("::", "#"): value for key, value in read_yaml(self.root / SMALL).items() if key != "bases"}

    @property
    def config_file(self) -> str:
        """Configuration of the small version."""
        return str(self.root / SMALL)

    @property
    def small_inference(self) -> dict[str, Any]:
        """The overrides that ``inference.json`` takes."""
        known = json.loads((self.root / "configs" / "inference.json").read_text())
        return {key: value for key, value in self.small.items() if key.split("#")[0] in known}

    @property
    def untrained(self) -> dict[str, Any]:
        """Overrides of ``inference.json`` with which random weights give instances."""
        return {key.replace("::", "#"): value for key, value in self.metadata.get("untrained", {}).items()}

    @property
    def has_monai_trainer(self) -> bool:
        """Whether MONAI's engine trains, and not the loop of another library."""
        return self.train_config["train"]["trainer"]["_target_"] == "SupervisedTrainer"

    @property
    def has_phases(self) -> bool:
        return "phase" in self.train_config

    @property
    def train_config(self) -> dict[str, Any]:
        return json.loads((self.root / "configs" / "train.json").read_text())

    @property
    def is_detector(self) -> bool:
        """Whether the network gives a list of dictionaries, one for each image."""
        return self.metadata["network_data_format"]["outputs"]["pred"]["type"] == "object"

    def workflow_class(self) -> type[CellWorkflow]:
        """The only workflow of ``scripts/workflow.py``."""
        spec = importlib.util.spec_from_file_location(f"workflow_{self.name}", self.root / "scripts" / "workflow.py")
        module = importlib.util.module_from_spec(spec)
        make_importable(self.root)
        spec.loader.exec_module(module)
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        (workflow,) = (c for c in classes if issubclass(c, CellWorkflow) and c.__module__ == module.__name__)
        return workflow

    def make(self, data: Path, folder: Path, mode: str = "train", **options: Any) -> CellWorkflow:
        """The bundle's workflow on a small data set, initialised."""
        where = {"datalist": str(data), "basedir": str(data.parent), "ckpt_path": str(folder)}
        where |= {"output_dir": str(folder / "eval"), "num_workers": 0, "device_name": "cpu"}
        workflow = self.workflow_class()(
            config_file=self.config_file, mode=mode, logging_file=False, **{**where, **options}
        )
        workflow.initialize()
        return workflow

    def trained(self, data: Path, folder: Path, *, stopped: bool = False, **options: Any) -> CellWorkflow:
        """The workflow after a training, of one epoch by default; it can be stopped after its first epoch."""
        options = {"final_test": False, "train#trainer#max_epochs": 1, **options}
        workflow = self.make(data, folder, **options)
        if stopped:
            workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED, stop)
        with contextlib.suppress(KeyboardInterrupt) if stopped else contextlib.nullcontext():
            workflow.run()
        return workflow

    def network(self, **options: Any) -> torch.nn.Module:
        """The small network with random weights."""
        make_importable(self.root)
        parser = ConfigParser(load_config(self.config_file))
        parser.update(pairs=options)
        return parser.get_parsed_content("network_def")

    def small_copy(self, folder: Path, **options: Any) -> Path:
        """A copy of the bundle with the small network and random weights, whose decoder finds instances."""
        bundle = folder / f"{self.name}_small"
        shutil.copytree(self.root, bundle, ignore=shutil.ignore_patterns("models", "eval", "runs", "__pycache__"))
        path = bundle / "configs" / "inference.json"
        parser = ConfigParser(json.loads(path.read_text()))
        parser.update({**self.small_inference, **self.untrained, **options})
        path.write_text(json.dumps(parser.config))
        (bundle / "models").mkdir()
        torch.manual_seed(0)
        torch.save(self.network(**options).state_dict(), bundle / "models" / "model.pt")
        return bundle
