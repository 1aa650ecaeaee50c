"""Run the checks of one bundle's folder that need its code; ``scripts/verify_bundle.py`` starts a process for each.

python scripts/tools/bundle_checks.py FOLDER --datalist FILE --image FILE --schema FILE [--exclude CHECK ...]

Runs in any working directory and imports nothing of cellbundle, so that a package is checked without an installed core.
Prints one JSON object a line: check, passed, detail.
"""

import argparse
import ast
import importlib
import importlib.util
import inspect
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from monai.bundle import (
    BundleWorkflow,
    ConfigWorkflow,
    ckpt_export,
    load,
    verify_metadata,
    verify_net_in_out,
)

NAMED_ELSEWHERE = {"monai", "torch", "numpy", "cellbundle"}  # by keys of their own in the metadata; or the core itself


class Checks:
    """The checks of one folder.

    Args:
        root: the bundle.
        datalist: data to build a training with; its folder is the base directory.
        image: file to segment.
        schema: JSON schema of the metadata.
    """

    def __init__(self, root: Path, datalist: Path, image: Path, schema: Path) -> None:
        self.root, self.datalist, self.image, self.schema = root, datalist, image, schema
        self.temporary = Path(tempfile.mkdtemp(prefix="verify-"))
        self.configs = root / "configs"
        self.metadata = json.loads((self.configs / "metadata.json").read_text(encoding="utf-8"))
        self.weights = root / "models" / "model.pt"

    def all(self) -> dict[str, Callable[[], str]]:
        """The checks by name, in order: those from another working directory come before the bundle is on the path."""
        return {
            "inference.json, other working directory": self.infer_elsewhere,
            "train.json, other working directory": self.train_elsewhere,
            "verify_metadata": self.verify_metadata,
            "check_properties": self.check_properties,
            "required packages": self.required_packages,
            "verify_net_in_out": self.verify_net_in_out,
            "ckpt_export": self.ckpt_export,
            "load()": self.load_default,
            "load(workflow_type='inference')": self.load_inference,
        }

    def infer_elsewhere(self) -> str:
        """``monai.bundle run`` with the path of the configuration, the bundle not on the path."""
        output = self.temporary / "labels"
        self._run("inference.json", image=str(self.image), output_dir=str(output), device_name="cpu")
        (file,) = output.glob("[!.]*")  # besides the list of own files
        return f"wrote {file.name}"

    def train_elsewhere(self) -> str:
        """Build the trainer in the same way, after the steps of ``run`` that precede the training."""
        *steps, _ = json.loads((self.configs / "train.json").read_text(encoding="utf-8"))["run"]
        self._run("train.json", run=[*steps, "$@train#trainer"], **self._training())
        return "built the trainer"

    def verify_metadata(self) -> str:
        """MONAI's own check, with a schema that is here already."""
        copy = self.temporary / "schema.json"
        copy.write_bytes(self.schema.read_bytes())
        if Path(self.metadata["schema"]).name != self.schema.name:
            raise ValueError(f"the metadata names {self.metadata['schema']}, expected {self.schema.name}")
        verify_metadata(meta_file=str(self.configs / "metadata.json"), filepath=str(copy))
        return self.schema.name

    def check_properties(self) -> str:
        """Every workflow has all properties that MONAI asks for."""
        self._on_path()
        (workflow,) = workflow_classes(importlib.import_module("scripts.workflow"))
        hyper = str(self.configs / "hyper_parameters.yaml")
        infer = {"workflow_type": "inference", "logging_file": False, "device_name": "cpu"}
        given = {
            f"{workflow.__name__} train": lambda: workflow(
                config_file=hyper, workflow_type="train", logging_file=False, **self._training()
            ),
            f"{workflow.__name__} infer": lambda: workflow(
                config_file=hyper, input_dir=str(self.image.parent), **infer
            ),
            "inference.json": lambda: ConfigWorkflow(
                config_file=str(self.configs / "inference.json"), bundle_root=str(self.root), **infer
            ),
        }
        for name, make in given.items():
            built = make()
            built.initialize()
            missing = built.check_properties()
            if missing:
                raise ValueError(f"{name} has no {', '.join(missing)}")
            built.finalize()
        return ", ".join(given)

    def required_packages(self) -> str:
        """Every package that the bundle's loaded modules import is named with its version in the metadata."""
        required = with_requirements({*self.metadata["required_packages_version"], *NAMED_ELSEWHERE})
        installed = packages_distributions()
        imported = {name for module in list(sys.modules.values()) for name in imports_of(module) if name in installed}
        missing = sorted(name for name in imported if required.isdisjoint(map(canonical, installed[name])))
        if missing:
            raise ValueError(f"required_packages_version does not name {', '.join(missing)}")
        return f"{len(imported)} imported"

    def verify_net_in_out(self) -> str:
        """The network takes and gives what the metadata says."""
        self._on_path()
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(self.configs / "metadata.json"),
            config_file=str(self.configs / "inference.json"),
            device="cpu",
            bundle_root=str(self.root),
        )
        return "shapes and types as in metadata.json"

    def ckpt_export(self) -> str:
        """The weights become a TorchScript module."""
        self._on_path()
        target = self.temporary / "model.ts"
        ckpt_export(
            net_id="network_def",
            filepath=str(target),
            ckpt_file=str(self.weights),
            meta_file=str(self.configs / "metadata.json"),
            config_file=str(self.configs / "inference.json"),
            bundle_root=str(self.root),
        )
        torch.jit.load(str(target))
        return f"{target.stat().st_size / 1e6:.1f} MB"

    def load_default(self) -> str:
        """``monai.bundle.load`` gives the network, not only its state dict."""
        return self._load()

    def load_inference(self) -> str:
        """The same with the configuration of inference."""
        return self._load(workflow_type="inference")

    def _load(self, **options: Any) -> str:
        self._on_path()
        network = load(name=self.root.name, bundle_dir=str(self.root.parent), device="cpu", **options)
        if not isinstance(network, torch.nn.Module):
            raise TypeError(f"expected the network, got {type(network).__name__}")
        stored = torch.load(self.weights, map_location="cpu", weights_only=True)
        state = network.state_dict()
        wrong = [key for key, value in stored.items() if not torch.equal(state[key], value.to(state[key].dtype))]
        if wrong:
            raise ValueError(f"other weights than in the file: {', '.join(wrong[:3])}")
        return f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} parameters"

    def _training(self) -> dict[str, Any]:
        where = {"datalist": str(self.datalist), "basedir": str(self.datalist.parent), "device_name": "cpu"}
        return where | {"quick": True, "num_workers": 0, "ckpt_path": str(self.temporary / "run")}

    def _run(self, config: str, **options: Any) -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.path[:] = [path for path in sys.path if path != str(self.root)]
        workflow = ConfigWorkflow(
            config_file=str(self.configs / config), logging_file=False, bundle_root=str(self.root), **options
        )
        workflow.initialize()
        workflow.run()

    def _on_path(self) -> None:
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))


def workflow_classes(module: ModuleType) -> list[type[BundleWorkflow]]:
    """Workflows that a module defines."""
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [c for c in classes if issubclass(c, BundleWorkflow) and c.__module__ == module.__name__]


def canonical(name: str) -> str:
    """Name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(names: Iterable[str]) -> set[str]:
    """Canonical names of distributions and of all that they require, without their extras."""
    seen: set[str] = set()
    queue = [canonical(name) for name in names]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = requires(name) or ()
        except PackageNotFoundError:
            continue
        queue += [canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines if "extra ==" not in line]
    return seen


def imports_of(module: ModuleType) -> Iterator[str]:
    """Names of the packages that a module of the bundle or of the core imports when it is loaded."""
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if name.split(".")[0] not in ("scripts", "cellbundle") or not file or not file.endswith(".py"):
        return
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name in ("datalist", "image", "schema"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--exclude", nargs="*", default=[])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # Networks get their weights from a file; to draw initial ones takes most of the time of large networks.
    torch.Tensor.normal_ = torch.Tensor.uniform_ = lambda tensor, *_, **__: tensor.zero_()  # type: ignore[method-assign]
    torch.Tensor.erfinv_ = lambda tensor: tensor  # type: ignore[method-assign]
    checks = Checks(options.folder, options.datalist, options.image, options.schema)
    for name, check in checks.all().items():
        if name in options.exclude:
            continue
        try:
            passed, detail = True, check()
        except Exception as error:  # noqa: BLE001  (any error of a check is its result)
            passed, detail = False, f"{type(error).__name__}: {error}"
        print(json.dumps({"check": name, "passed": passed, "detail": " ".join(detail.split())[:600]}), flush=True)


if __name__ == "__main__":
    main()
