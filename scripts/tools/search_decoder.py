"""Search the options of a bundle's decoder that give the best scores on the validation fold, with Optuna.

python scripts/tools/search_decoder.py --bundle bundles/hover_uni --datalist FILE --basedir DIR [--trials N]

The network runs once an image. The first trial has the options of the configuration, so the result is never worse.
Prints the best trials as a table, and the best options as overrides for the command line. Further arguments are
overrides of the configuration, for example --backbone vit_tiny_4.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from cellbundle.decode.flows import decode_flows
from cellbundle.decode.hover import decode_hover
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.inference.segment import one_of_batch
from cellbundle.metrics import image_scores
from cellbundle.transforms.detections import DecodeDetectionsd

Prediction = np.ndarray | dict[str, np.ndarray]  # (C, H, W), or what a detector gives
Image = tuple[Prediction, np.ndarray]  # with the labels (H, W)
Choice = tuple[str, Any, Any] | list[Any]  # (int or float, lowest, highest), or what to choose from

SHOWN = 8


def decode_masks(prediction: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    """Label map of the detections of an image; options as for ``DecodeDetectionsd``."""
    return DecodeDetectionsd(**options)({"pred": prediction})["pred"][0].numpy()


# What is searched, by the decoder's transform: the function, how many channels it takes (None: all that there is), and
# its options.
SPACES: dict[str, tuple[Callable[..., np.ndarray], int | None, dict[str, Choice]]] = {
    "DecodeHoverd": (
        decode_hover,
        3,
        {
            "cell_threshold": ("float", -1.5, 1.5),
            "kernel_size": [3, 5, 7],
            "marker_threshold": ("float", -0.02, 0.1),
            "marker_radius": [0, 1, 2],
            "min_size": ("int", 0, 60),
            "min_marker_size": ("int", 1, 12),
            "smoothing": ("float", 0.0, 2.0),
            "merge_drop": ("float", 0.0, 0.5),
            "merge_reach": ("int", 1, 4),
            "keep_unmarked": [True, False],
        },
    ),
    "DecodeFlowsd": (
        decode_flows,
        3,
        {
            "cell_threshold": ("float", -1.0, 1.5),
            "flow_threshold": [0.4, 0.8, 1.6, None],
            "min_size": ("int", 0, 60),
            "min_score": ("float", 0.0, 0.9),
        },
    ),
    "DecodeDetectionsd": (
        decode_masks,
        None,
        {
            "score_threshold": ("float", 0.05, 0.95),  # from lowest_score on
            "mask_threshold": ("float", 0.3, 0.7),
            "max_overlap": ("float", 0.0, 1.0),
            "min_size": ("int", 0, 60),
        },
    ),
}


def predictions(workflow: CellWorkflow) -> Iterator[Image]:
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


def suggest(trial: Any, space: dict[str, Choice]) -> dict[str, Any]:
    """Options of a trial."""
    options = {}
    for name, choice in space.items():
        if isinstance(choice, list):
            options[name] = trial.suggest_categorical(name, choice)
        else:
            draw = trial.suggest_int if choice[0] == "int" else trial.suggest_float
            options[name] = draw(name, *choice[1:])
    return options


def fits(value: Any, choice: Choice) -> bool:
    """Whether a trial may have a value."""
    return value in choice if isinstance(choice, list) else value is not None and choice[1] <= value <= choice[2]


def score(decode: Callable[[Prediction], np.ndarray], images: Sequence[Image], metric: str) -> float:
    """Mean of a score over the images."""
    return fmean(image_scores(labels, decode(prediction))[metric] for prediction, labels in images)


def search(
    decode: Callable[..., np.ndarray],
    space: dict[str, Choice],
    start: dict[str, Any],
    images: Sequence[Image],
    trials: int,
    metric: str = "ap_mean",
    seed: int = 0,
) -> Any:
    """Let Optuna look for the options with the best mean score.

    Args:
        decode: a prediction and options to a label map (H, W).
        space: what to choose the options from.
        start: options of the first trial; those that are not searched stay.
        images: predictions with their labels.
        trials: how many settings are tried.
        metric: a score of ``image_scores``.
        seed: of the sampler; the same trials again for the same seed.

    Returns:
        The finished ``optuna.Study``.
    """
    try:
        import optuna  # noqa: PLC0415
    except ImportError:
        raise SystemExit("the search needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    searched = {name: choice for name, choice in space.items() if name not in start or fits(start[name], choice)}
    fixed = {name: value for name, value in start.items() if name not in searched}
    study.enqueue_trial({name: value for name, value in start.items() if name in searched})

    def objective(trial: Any) -> float:
        options = fixed | suggest(trial, searched)
        return score(lambda prediction: decode(prediction, **options), images, metric)

    bar = tqdm(total=trials, disable=None)
    study.optimize(objective, n_trials=trials, callbacks=[lambda *_: bar.update()])
    bar.close()
    return study


def start_options(decode: Callable[..., np.ndarray], given: dict[str, Any]) -> dict[str, Any]:
    """All options of a decoder: those that its transform has, and the defaults of the others."""
    defaults = {p.name: p.default for p in signature(decode).parameters.values() if p.default is not p.empty}
    return defaults | given


def table(study: Any, metric: str) -> Iterable[str]:
    """The best trials as lines of Markdown; the first trial, which the configuration set, comes last."""
    names = list(study.best_trial.params)
    yield "| trial | " + " | ".join(names) + f" | {metric} |"
    yield "|---|" + "---|" * (len(names) + 1)
    ranked = sorted(study.trials, key=lambda trial: -trial.value)[:SHOWN]
    for trial in [*ranked, study.trials[0]]:
        values = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in (trial.params[name] for name in names))
        label = "configuration" if trial.number == 0 else trial.number
        yield f"| {label} | " + " | ".join(values) + f" | {trial.value:.4f} |"


def main(arguments: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Predict, search and print."""
    known_metrics = image_scores(np.zeros((1, 1), int), np.zeros((1, 1), int))
    if arguments.metric not in known_metrics:
        raise SystemExit(f"metric is {arguments.metric!r}; give one of {', '.join(known_metrics)}")
    workflow = open_workflow(arguments, overrides)
    decoder = workflow.content("decoder")
    name = type(decoder).__name__
    if name not in SPACES:
        raise SystemExit(f"the decoder is {name}; there are search spaces for {', '.join(SPACES)}")
    decode, channels, space = SPACES[name]
    total = len(workflow.content("dataset"))
    images = [
        (prediction if channels is None else prediction[:channels], labels)
        for prediction, labels in tqdm(predictions(workflow), total=total, disable=None)
    ]
    start = start_options(decode, decoder.options)
    if "lowest_score" in start:  # what is below it is not there to choose
        space = space | {"score_threshold": ("float", start["lowest_score"], 0.95)}
    study = search(decode, space, start, images, arguments.trials, arguments.metric, arguments.seed)
    print("\n".join(table(study, arguments.metric)))
    best = {key: "$None" if value is None else value for key, value in study.best_params.items()}
    print("\n" + " ".join(f"--decoder#{key} {value}" for key, value in best.items()))


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
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--metric", default="ap_mean", help="a score of image_scores, for example ap50, pq, aji")
    parser.add_argument("--seed", type=int, default=0)
    known, others = parser.parse_known_args()
    main(known, read_overrides(others))
