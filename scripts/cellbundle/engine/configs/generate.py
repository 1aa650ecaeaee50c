"""Self-contained configurations of a bundle, made from its ``hyper_parameters.yaml``.

``monai.bundle run``, MONAI Label and the Model Zoo read them alone, so they are flat and hold what they need only.
"""

import json
import re
from collections.abc import Mapping, Set
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.utils import merge_kv

from ...bundles import make_importable
from ...errors import ConfigError
from ...record import ROOTS as SETTINGS
from ...record import id_of, top_id
from ..overrides import SPECIAL_KEYS, is_known, lookup, parameters
from .bases import CHANGES, FOLDER, HYPER_PARAMETERS, load_config, read, references, texts
from .handlers import inline_handlers

NOTE = "Made by scripts/generate.py from hyper_parameters.yaml: change that file, then run it again."
WORD = re.compile(r"\w+")

Config = dict[str, Any]


def generated_files(bundle: Path) -> dict[Path, str]:
    """Text of the generated configurations of a bundle, by path.

    Args:
        bundle: its folder, absolute.

    Raises:
        ConfigError: for a key that reaches nothing.
    """
    make_importable(bundle)
    file = bundle / "configs" / HYPER_PARAMETERS
    config = load_config(file)
    try:
        made = {"inference.json": inference_config(config), "train.json": train_config(config)}
        made["inference_trt.json"] = tensorrt_config(config, made["inference.json"])
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if lookup(config, "train#trainer#_target_") == "SupervisedTrainer":  # others start their processes themselves
        made["multi_gpu_train.json"] = multi_gpu_config(made["train.json"])
    files = {name: json.dumps({"_desc_": NOTE} | part, indent=4) + "\n" for name, part in made.items()}
    return {bundle / "configs" / name: text for name, text in files.items()}


def inference_config(config: Config) -> Config:
    """What ``monai.bundle run`` needs to segment one image.

    Args:
        config: merged configuration of a bundle.
    """
    changes = config.get("inference", {})
    changed = _changed(config, "inference", changes)
    return _needed(changed, InferProperties, {"postprocessing", *map(top_id, changes)})


def train_config(config: Config) -> Config:
    """What ``monai.bundle run`` needs to train, and the settings of inference, which belong to the weights.

    ``initialize`` is the first part of ``run``.

    Args:
        config: merged configuration of a bundle.
    """
    if not isinstance(lookup(config, "train#trainer"), dict):
        raise ConfigError("train::trainer is missing; a bundle names the base training, or defines it")
    changed = _changed(config, "monai_label", {})
    changed["run"] = [*changed.pop("initialize"), *changed["run"]]
    inline_handlers(changed)
    return _needed(changed, TrainProperties, {"validate", *SETTINGS})


def tensorrt_config(config: Config, inference: Config) -> Config:
    """What is put on ``inference.json`` for TensorRT.

    Args:
        config: merged configuration of a bundle.
        inference: as ``inference_config`` returns it.
    """
    overlay, changes = read(FOLDER / "tensorrt.yaml"), config.get("tensorrt", {})
    _check_changes({**inference, **overlay}, changes, "tensorrt")
    return overlay | changes


def multi_gpu_config(train: Config) -> Config:
    """What is put on ``train.json`` for several processes.

    Args:
        train: as ``train_config`` returns it.
    """
    overlay = read(FOLDER / "multi_gpu.yaml")
    first, last = overlay["run"]
    return overlay | {"run": [first, *train["run"], last]}


def _changed(config: Config, base: str, changes: Config) -> Config:
    """A copy of a configuration with a base file and further changes put on it."""
    parser = ConfigParser(deepcopy({key: value for key, value in config.items() if key not in CHANGES}))
    for key, value in read(FOLDER / f"{base}.yaml").items():
        merge_kv(parser, key, value)
    changed: Config = parser.get()
    _check_changes(changed, changes, base)
    for key, value in changes.items():
        merge_kv(parser, key, value)
    return changed


def _check_changes(config: Config, changes: Config, block: str) -> None:
    """Raise ``ConfigError`` for a key of a block that is not known, no parameter, and not referred to in the block."""
    used = {name for text in texts(changes) for name in references(text)}
    for key in changes:
        parent, _, last = id_of(key).rpartition("#")
        allowed = parameters(lookup(config, parent)) | SPECIAL_KEYS if parent else used
        if not is_known(config, key) and last not in allowed:
            raise ConfigError(f"the key {key!r} of the block {block!r} reaches nothing")


def _needed(config: Config, properties: Mapping[str, Any], further: Set[str]) -> Config:
    """The part of a configuration that ``run`` and MONAI's required properties refer to, with the imports it uses."""
    required = {top_id(item["id"]) for item in properties.values() if item["required"]}
    waiting = sorted(({"run", "initialize"} | required | further) & config.keys())
    names = set(waiting)
    while waiting:
        for text in texts(config[waiting.pop()]):
            found = {name.split("#")[0] for name in references(text)} & config.keys()
            waiting += sorted(found - names)
            names |= found
    kept = {name: value for name, value in config.items() if name in names}
    words = {word for text in texts(kept) for word in WORD.findall(text)}
    return {"imports": [line for line in config["imports"] if line.split()[-1] in words]} | kept
