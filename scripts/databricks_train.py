# Databricks notebook source
"""Train a bundle on a data set in a volume, score it, and register the model, on Databricks or here.

On Databricks: open this file as a notebook (its parameters become widgets), or run it as a Python file in a job. Here,
a folder takes the place of the volumes:

python scripts/databricks_train.py --volumes DIR --catalog lab --schema cells --volume data --datalist dsb2018.json

reads DIR/lab/cells/data/dsb2018.json and writes DIR/lab/cells/data/runs/cell_unet. Further arguments are overrides of
the configuration (--learning_rate 0.001).
"""

# COMMAND ----------

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellbundle.bundles import find_bundle
from cellbundle.errors import CellBundleError, ConfigError
from cellbundle.mlflow_model import LoggedBundle, log_model
from cellbundle.record import BEST, LATEST

PARAMETERS = {  # name: default, what it is
    "catalog": ("main", "catalog of the volume and of the registered model"),
    "schema": ("default", "schema of both"),
    "volume": ("cells", "volume with the data; runs go there, too"),
    "bundle": ("cell_unet", "name or folder of a bundle"),
    "datalist": ("datalist.json", "data list in the volume, whose paths are relative to its folder"),
    "run": ("", "name of the run, by default that of the bundle; the same name goes on after an interruption"),
    "epochs": ("", "epochs, by default those of the bundle"),
    "overrides": ("", "further options of the training, such as --learning_rate 0.001"),
    "experiment": ("", "MLflow experiment; by default the name of the bundle"),
    "registered_name": ("", "model in the registry, by default that of the bundle; - does not register"),
    "tracking_uri": ("", "by default databricks there, and mlruns.db in the volume here"),
    "volumes": ("/Volumes", "folder of the volumes; another one to run here"),
}


def read_parameters(arguments: Sequence[str] | None = None, widgets: Any = None) -> dict[str, str]:
    """Values of all parameters, from widgets where there are any, else from the command line."""
    if widgets is not None:
        for name, (default, about) in PARAMETERS.items():
            widgets.text(name, default, about)
        return {name: widgets.get(name).strip() for name in PARAMETERS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, about) in PARAMETERS.items():
        parser.add_argument(f"--{name}", default=default, help=f"{about} (default: {default or 'see there'})")
    known, others = parser.parse_known_args(arguments)
    values = {name: str(value) for name, value in vars(known).items()}
    return values | {"overrides": f"{values['overrides']} {shlex.join(others)}".strip()}


def run_bundle(bundle: Path, mode: str, options: Sequence[str]) -> None:
    """Run a bundle as its command line does, in a process of its own; raises ``CellBundleError`` if that fails."""
    command = [sys.executable, "scripts/workflow.py", "--config_file", "configs/hyper_parameters.yaml", "--mode", mode]
    if subprocess.run([*command, *options], cwd=bundle, check=False).returncode:
        raise CellBundleError(f"{mode} of {bundle.name} failed; what it printed says why")


def train(values: dict[str, str]) -> LoggedBundle:
    """Train or go on, evaluate, register; where the model is."""
    root = Path(values["volumes"], values["catalog"], values["schema"], values["volume"]).absolute()
    if not root.is_dir():
        raise ConfigError(f"there is no volume {root}; check volumes, catalog, schema and volume")
    bundle = find_bundle(values["bundle"])
    folder = root / "runs" / (values["run"] or bundle.name)
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    uri = values["tracking_uri"] or ("databricks" if on_databricks else f"sqlite:///{root / 'mlruns.db'}")
    datalist = root / values["datalist"]
    folder.mkdir(parents=True, exist_ok=True)
    options = [
        *("--datalist", f"file://{datalist}", "--basedir", f"file://{datalist.parent}"),
        *("--ckpt_path", f"file://{folder}", "--output_dir", f"file://{folder}/eval"),
        *("--mlflow_tracking_uri", uri, "--mlflow_experiment_name", values["experiment"] or bundle.name),
        *shlex.split(values["overrides"]),
    ]
    epochs = ["--train#trainer#max_epochs", values["epochs"]] if values["epochs"] else []
    resume = ["--resume", "True"] if (folder / LATEST).is_file() else []
    run_bundle(bundle, "train", [*options, *epochs, *resume, "--final_test", "False"])
    run_bundle(bundle, "eval", options)
    name = values["registered_name"] or bundle.name
    registered = None if name == "-" else f"{values['catalog']}.{values['schema']}.{name}"
    run = json.loads((folder / "run.json").read_text()) if (folder / "run.json").is_file() else {}
    return log_model(bundle, uri, weights=folder / BEST, run_id=run.get("run_id"), registered_name=registered)


# COMMAND ----------

if __name__ == "__main__":
    try:
        model = train(read_parameters(widgets=getattr(globals().get("dbutils"), "widgets", None)))
    except CellBundleError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{model.uri}{f', version {model.version}' if model.version else ''}")
