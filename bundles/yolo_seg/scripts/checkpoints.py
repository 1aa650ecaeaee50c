# SPDX-License-Identifier: AGPL-3.0-or-later
"""Weights for ``YoloNetwork``: our files, which hold tensors only, and ultralytics' own, which are pickles."""

import logging
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from cellbundle.engine.network import MAX_SHOWN, assign_weights, prepare_network, read_weights
from cellbundle.errors import CheckpointError
from cellbundle.flags import as_bool

from .network import CLASS_HEAD, YoloNetwork, architectures
from .ultralytics_access import require_ultralytics

logger = logging.getLogger(__name__)

TASKS = {
    "DetectionModel": "boxes without masks",
    "ClassificationModel": "classes of whole images",
    "PoseModel": "key points",
    "OBBModel": "rotated boxes",
    "SemanticSegmentationModel": "classes of pixels",
}
PROTOTYPES = ".proto."  # layers that only networks with masks have
LEAST_SHARE = 0.5  # of the tensors that must fit for a network to start from another one's weights

State = dict[str, torch.Tensor]


def prepare_yolo(
    network: YoloNetwork,
    device: torch.device,
    weights: str | None = None,
    trust_checkpoint: bool = False,
    partial: bool = False,
) -> nn.Module:
    """``cellbundle.engine.network.prepare_network`` with ``load_yolo_weights``."""
    if weights is not None:
        load_yolo_weights(network, weights, as_bool(trust_checkpoint), partial)
    return prepare_network(network, device)


def load_yolo_weights(network: YoloNetwork, path: str | Path, trust: bool = False, partial: bool = False) -> None:
    """Load a checkpoint.

    Args:
        network: gets the weights.
        path: a state dict as this bundle writes it, or a checkpoint of ultralytics.
        trust: also read pickles.
        partial: load what fits, to train it for other classes, and say what does not; otherwise all must fit.

    Raises:
        CheckpointError: if the file is damaged, a pickle that is not trusted, of another task than instance
            segmentation, or of another network.
    """
    weights = read_yolo_weights(path, trust)
    own = network.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    has_masks = any(PROTOTYPES in key for key in fitting)
    if not partial or not has_masks or len(fitting) < LEAST_SHARE * len(own):
        assign_weights(network, weights, path, network.explain_weights)
    else:
        network.load_state_dict(fitting, strict=False)
        others = [key for key in own if key not in fitting]
        if others:
            shown = ", ".join(others[:MAX_SHOWN]) + (", …" if len(others) > MAX_SHOWN else "")
            logger.warning("%d of %d tensors do not fit and start anew: %s", len(others), len(own), shown)
    logger.info("%d of %d tensors from %s", len(fitting), len(own), path)


def read_yolo_weights(path: str | Path, trust: bool = False) -> State:
    """State dict of a ``YoloNetwork`` from a file; see ``load_yolo_weights``."""
    classes = pickled_classes(path)
    if not classes:
        return read_weights(path)
    if not trust:
        raise CheckpointError(
            f"{path} is a pickle, as ultralytics writes them ({', '.join(classes[:MAX_SHOWN])}): loading it can run "
            "code that somebody has put into it. If you made it yourself, or trust whoever made it and the place that "
            "you have it from, give --trust_checkpoint True"
        )
    return read_pickle(path)


def pickled_classes(path: str | Path) -> list[str]:
    """What a checkpoint holds besides tensors and plain values, read without running it; [] also if it is damaged."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return []
    return sorted(found, key=lambda name: (not name.startswith("ultralytics."), name))


def read_pickle(path: str | Path) -> State:
    """State dict of the averaged model, or the model, in a checkpoint of ultralytics.

    Ultralytics' loader is used in its restricted way, which makes only objects of its own and of torch's classes.

    Raises:
        CheckpointError: if that is not enough, the file is damaged, or the model is not for instance segmentation.
    """
    require_ultralytics()
    from ultralytics.nn.tasks import SegmentationModel, torch_safe_load  # noqa: PLC0415  (AGPL-3.0, optional)

    allowed = torch.serialization.get_safe_globals()
    with TemporaryDirectory() as folder:
        # Under a name of our own: by some names it would look for another file, and download it.
        copy = str(shutil.copyfile(path, Path(folder) / "weights.pt"))
        try:
            content, _ = torch_safe_load(copy, safe_only=True)
        except Exception as error:  # what it raises has no common base
            reason = f"{type(error).__name__}: {str(error).replace(copy, str(path))}"
            raise CheckpointError(
                f"{path} cannot be read by ultralytics ({reason}); it may be damaged, of another version of "
                "ultralytics, or hold other things than its models"
            ) from error
        finally:  # it allows its classes for every file that is read later, trusted or not
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed)
    model = content.get("model") if content.get("ema") is None else content["ema"]
    if type(model) is not SegmentationModel:
        kind = type(model).__name__
        raise CheckpointError(
            f"{path} holds a {kind} ({TASKS.get(kind, 'not for instance segmentation')}), expected ultralytics' "
            "SegmentationModel; take weights whose name ends with -seg, or train some"
        )
    return {f"model.{key}": value for key, value in model.float().state_dict().items()}


def explain(weights: Mapping[str, torch.Tensor], architecture: str, num_classes: int) -> str | None:
    """What a state dict that does not fit probably is, and what to set.

    Args:
        weights: a state dict.
        architecture: of the network that it does not fit.
        num_classes: likewise.
    """
    heads = [len(value) for key, value in weights.items() if CLASS_HEAD.fullmatch(key)]
    if not heads:
        return None
    if not any(PROTOTYPES in key for key in weights):
        return "it is of a network that detects boxes without masks; take one for instance segmentation"
    found = identify(weights, heads[0])
    if found is None:
        return f"it is of a network of ultralytics with {heads[0]} classes that is not known here; set architecture"
    wanted = [f"architecture to {found}"] * (found != architecture)
    wanted += [f"class_names, or the data list, to {heads[0]} classes"] * (heads[0] != num_classes)
    return (
        f"it is of {found} with {heads[0]} classes, this network is {architecture} with {num_classes}; set "
        f"{' and '.join(wanted)}"
    )


def identify(weights: Mapping[str, torch.Tensor], num_classes: int) -> str | None:
    """Name of the network of ultralytics that has these keys and shapes, if there is one."""
    from ultralytics.nn.tasks import parse_model, yaml_model_load  # noqa: PLC0415  (AGPL-3.0, optional)

    shapes = {key: value.shape for key, value in weights.items()}
    for name in architectures()[0]:
        config = {**yaml_model_load(f"{name}.yaml"), "nc": num_classes}
        with torch.device("meta"):
            layers = parse_model(config, ch=3, verbose=False)[0]
        if shapes == {f"model.model.{key}": value.shape for key, value in layers.state_dict().items()}:
            return name
    return None
