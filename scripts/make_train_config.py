"""Write the configurations that MONAI Label trains with from a bundle's ``hyper_parameters.yaml``.

python scripts/make_train_config.py bundles/cell_unet [--check]

configs/train.json            the part that trains; MONAI's load() reads the network from it
configs/multi_gpu_train.json  merged into it where MONAI Label starts a process for each GPU
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from cellbundle.io import atomic_path

# What only eval, infer and the workflow class need.
LEFT_OUT = {
    "allow_changes", "dataset", "dataloader", "eval_step", "evaluator", "figure_saver", "final_test", "handlers",
    "initialize", "input_dir", "key_metric", "key_metric_fn", "mlflow_experiment_name", "mlflow_log_system_metrics",
    "mlflow_run_name", "mlflow_tracking_uri", "postprocessing", "replace_foreign", "split", "tracker",
}  # fmt: skip
NOTE = "Made by scripts/make_train_config.py from hyper_parameters.yaml: change that file, then run it again."
IMPORTS = [
    "$from cellbundle.engine.checkpoint import best_weights",
    "$from cellbundle.transforms.monai_label import runs_in_monai_label",
]
MULTI_GPU = {
    "+imports": [
        "$from cellbundle.distributed import finalise",
        "$from cellbundle.distributed import initialise",
    ],
    "device": "$choose_device(@device_name)",  # MONAI Label gives one name to all processes
}


def train_config(hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a bundle's configuration that ``monai.bundle run`` needs to train.

    MONAI adds the bundle to the path only when ``run`` begins, so ``initialize`` becomes the first part of ``run``.
    """
    config = {key: value for key, value in hyper_parameters.items() if key not in LEFT_OUT}
    return config | {
        "imports": [*hyper_parameters["imports"], *IMPORTS],
        "mode": "train",
        "ckpt_path": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/eval'",
        "pretrained_ckpt_name": "$best_weights(@ckpt_path)",  # fine-tune the weights that the bundle has
        "overwrite": "$runs_in_monai_label()",  # a server trains the weights of its own copy of the bundle
        "run": [*hyper_parameters["initialize"], *hyper_parameters["run"]],
    }


def is_monai_trainer(hyper_parameters: dict[str, Any]) -> bool:
    """Return whether MONAI's engine trains, with handlers."""
    return hyper_parameters["train"]["trainer"]["_target_"] == "SupervisedTrainer"


def multi_gpu_config(hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the changes of ``train_config`` for several processes."""
    run = train_config(hyper_parameters)["run"]
    return MULTI_GPU | {"run": ["$initialise(@device_name)", *run, "$finalise()"]}


def render(bundle: Path) -> dict[Path, str]:
    """Return the text of each configuration by its path."""
    folder = bundle / "configs"
    config = yaml.safe_load((folder / "hyper_parameters.yaml").read_text())
    made = {"train.json": train_config(config)}
    if is_monai_trainer(config):  # others start their processes themselves
        made["multi_gpu_train.json"] = multi_gpu_config(config)
    return {folder / name: json.dumps({"_desc_": NOTE} | part, indent=4) + "\n" for name, part in made.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    arguments = parser.parse_args()
    for target, text in render(arguments.bundle).items():
        if not arguments.check:
            with atomic_path(target) as temporary:
                temporary.write_text(text)
        elif not target.is_file() or target.read_text() != text:
            sys.exit(f"{target} is out of date; run python scripts/make_train_config.py {arguments.bundle}")
