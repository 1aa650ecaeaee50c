"""Write a bundle's ``configs/train.yaml``, which MONAI Label trains with, from its ``hyper_parameters.yaml``.

python scripts/make_train_config.py bundles/cell_unet [--check]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from cellbundle.io import atomic_path

# What only eval, infer and the workflow class need.
LEFT_OUT = {
    "dataset", "dataloader", "eval_step", "evaluator", "figure_saver", "final_test", "handlers", "input_dir",
    "key_metric", "key_metric_fn", "mlflow_experiment_name", "mlflow_log_system_metrics", "mlflow_run_name",
    "mlflow_tracking_uri", "postprocessing", "split", "tracker",
}  # fmt: skip
HEADER = (
    "# Made by scripts/make_train_config.py from hyper_parameters.yaml: change that file, then run the script again.\n"
)


def train_config(hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """The part of a bundle's configuration that ``monai.bundle run`` needs to train."""
    return {key: value for key, value in hyper_parameters.items() if key not in LEFT_OUT} | {"mode": "train"}


def render(bundle: Path) -> str:
    """Text of ``configs/train.yaml``."""
    config = yaml.safe_load((bundle / "configs" / "hyper_parameters.yaml").read_text())
    return HEADER + yaml.safe_dump(train_config(config), sort_keys=False, width=1000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    arguments = parser.parse_args()
    target, text = arguments.bundle / "configs" / "train.yaml", render(arguments.bundle)
    if not arguments.check:
        with atomic_path(target) as temporary:
            temporary.write_text(text)
    elif not target.is_file() or target.read_text() != text:
        sys.exit(f"{target} is out of date; run python scripts/make_train_config.py {arguments.bundle}")
