"""Classes of instances: the one that most of their pixels have."""

import numpy as np

from ..errors import ArrayError
from ..instances.labels import check_numbered


def classify_instances(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class of every instance by a vote of its pixels.

    A pixel votes for its best class but the background: whether it belongs to a nucleus is already settled.

    Args:
        labels: (H, W) integers, ids 1..N, 0 background.
        logits: (K, H, W) float, or probabilities; channel 0 is the background, 1..K-1 are the classes. NaN never wins.

    Returns:
        (N,) int64 classes in 1..K-1, of equals the lowest, and (N,) float32 shares of the pixels that voted for them.
        An id without pixels has class 0 and share 0.

    Raises:
        ArrayError: if ``labels`` is no such map, or ``logits`` is not floating point, of its size, with K >= 2.

    Source: majority vote, Graham et al., Med. Image Anal. 2019, where pixels of the background vote too.
    """
    n = check_numbered(labels)
    if logits.ndim != 3 or logits.shape[1:] != labels.shape or logits.shape[0] < 2 or logits.dtype.kind != "f":
        raise ArrayError(
            f"logits must be (K, H, W) floating point with the background and at least one class, for labels of shape "
            f"{labels.shape}; got shape {logits.shape} dtype {logits.dtype}"
        )
    inside = labels > 0
    ids, values = labels[inside].astype(np.int64), logits[1:, inside]
    choices = np.where(np.isnan(values), -np.inf, values).argmax(0)
    n_classes = logits.shape[0] - 1
    votes = np.bincount((ids - 1) * n_classes + choices, minlength=n * n_classes).reshape(n, n_classes)
    total, most = votes.sum(1), votes.max(1)
    classes = np.where(total > 0, votes.argmax(1) + 1, 0)
    return classes.astype(np.int64), (most / np.maximum(total, 1)).astype(np.float32)


def class_map(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Give every pixel the class of its instance.

    Args:
        labels: (H, W) integers, ids 1..N, 0 background.
        classes: (N,) integers, as ``classify_instances`` gives them.

    Returns:
        (H, W) int64, 0 background.

    Raises:
        ArrayError: if an id has no class.
    """
    n = check_numbered(labels)
    if classes.ndim != 1 or len(classes) < n:
        raise ArrayError(f"expected a class for each of {n} instances, got shape {classes.shape}")
    return np.concatenate([[0], classes]).astype(np.int64)[labels]
