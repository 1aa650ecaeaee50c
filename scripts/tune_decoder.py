"""Find the decoder thresholds of a flow bundle that give the best mean AP on the validation fold.

python scripts/tune_decoder.py --bundle bundles/cell_unet --datalist FILE --basedir DIR [--weights FILE]

The network runs once an image; every combination of the grid is then decoded and scored. Prints the best combinations
as a table.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from cellbundle.decode.flows import clean, drop_inconsistent, drop_uncertain, group_by_sink
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.inference.predictor import one_of_batch
from cellbundle.metrics import image_scores

CELL_THRESHOLDS = (-0.5, 0.0, 0.3, 0.6)  # logits
FLOW_THRESHOLDS = (0.4, 1.6, None)  # mean squared flow error
MIN_SIZES = (15, 20, 25, 30)  # pixels
MIN_SCORES = (0.0, 0.7, 0.75, 0.8, 0.85)  # mean probability
SHOWN = 8


def predictions(workflow: CellWorkflow) -> Any:
    """Yield the prediction, (C, H, W) or the arrays of a detector by name, and labels (H, W) of every image."""
    network, inferer = workflow.content("network").eval(), workflow.content("inferer")
    device = next(network.parameters()).device
    for item in workflow.content("dataset"):
        with torch.inference_mode():
            prediction = one_of_batch(inferer(item["image"].as_tensor()[None].to(device), network), 0)
        arrays = (
            {key: value.cpu().numpy() for key, value in prediction.items()}
            if isinstance(prediction, dict)
            else prediction.cpu().numpy()
        )
        yield arrays, np.asarray(item["label"][0])


def open_workflow(arguments: argparse.Namespace, overrides: dict[str, Any] | None = None) -> CellWorkflow:
    """The workflow of a bundle, ready to predict the validation fold.

    Args:
        arguments: ``bundle``, ``datalist``, ``basedir``, ``fold`` and ``weights``.
        overrides: of the configuration.
    """
    options: dict[str, Any] = {
        "datalist": str(arguments.datalist),
        "basedir": str(arguments.basedir),
        "fold": arguments.fold,
    }
    if arguments.weights:
        options["pretrained_ckpt_path"] = str(arguments.weights)
    options |= overrides or {}
    config = str(arguments.bundle / "configs" / "hyper_parameters.yaml")
    workflow = CellWorkflow(config_file=config, mode="eval", split="validation", logging_file=False, **options)
    workflow.initialize()
    return workflow


def decode_grid(prediction: np.ndarray, across_borders: bool) -> Any:
    """Yield (cell threshold, flow threshold, minimum size, minimum score) and the label map that they give."""
    flows = np.ascontiguousarray(prediction[1:])
    for cell_threshold in CELL_THRESHOLDS:
        grouped = group_by_sink(flows, prediction[0] > cell_threshold)
        for flow_threshold in FLOW_THRESHOLDS:
            kept = grouped
            if flow_threshold is not None:
                kept = drop_inconsistent(grouped, flows, flow_threshold, across_borders)
            for min_size in MIN_SIZES:
                cleaned = clean(kept, min_size)
                for min_score in MIN_SCORES:
                    setting = (cell_threshold, flow_threshold, min_size, min_score)
                    yield setting, drop_uncertain(cleaned, prediction[0], min_score)


def main(arguments: argparse.Namespace) -> None:
    """Score the grid and print the best combinations."""
    workflow = open_workflow(arguments)
    across = workflow.content("across_borders")
    scores = defaultdict(list)
    for prediction, labels in tqdm(predictions(workflow), total=len(workflow.content("dataset")), disable=None):
        for setting, decoded in decode_grid(prediction, across):
            image = image_scores(labels, decoded)
            scores[setting].append((image["ap_mean"], image["ap50"]))
    print("| cell_threshold | flow_threshold | min_size | min_score | mean AP | AP@.5 |\n|---|---|---|---|---|---|")
    means = {setting: np.mean(values, axis=0) for setting, values in scores.items()}
    for setting in sorted(means, key=lambda s: -means[s][0])[:SHOWN]:
        print(f"| {' | '.join(map(str, setting))} | {means[setting][0]:.4f} | {means[setting][1]:.4f} |")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Parser of what ``open_workflow`` needs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--basedir", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="by default the bundle's models/model.pt")
    return parser


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """``--key value`` pairs as a dictionary; values are YAML."""
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise SystemExit(f"expected overrides as --key value, got {' '.join(words)}")
    return {key[2:]: yaml.safe_load(value) for key, value in zip(words[::2], words[1::2], strict=True)}


if __name__ == "__main__":
    main(make_parser(__doc__).parse_args())
