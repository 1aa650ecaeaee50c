"""Runs one public function on odd and bad input. ``test_odd_input.py`` starts it as a process of its own.

python odd_input.py FUNCTION     prints one JSON line: name of the input, and "equal", "differs" or the error
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cellbundle.decode.flows import decode_flows
from cellbundle.decode.hover import decode_hover
from cellbundle.instances.labels import renumber
from cellbundle.instances.measure import measure
from cellbundle.instances.overlaps import labels_to_rles, masks_to_labels, rles_to_labels
from cellbundle.instances.polygons import outlines
from cellbundle.metrics import image_scores
from cellbundle.targets.flows import labels_to_flows
from cellbundle.targets.hover import labels_to_hover


def scene() -> np.ndarray:
    """Five instances: round, touching, with a hole, at the border, of one pixel."""
    y, x = np.mgrid[:48, :61]
    labels = np.zeros((48, 61), np.int32)
    labels[(y - 14) ** 2 + (x - 15) ** 2 < 90] = 1
    labels[(y - 14) ** 2 + (x - 32) ** 2 < 80] = 2
    labels[(y - 35) ** 2 + (x - 20) ** 2 < 100] = 3
    labels[33:37, 18:22] = 0
    labels[30:, 50:] = 4
    labels[2, 58] = 5
    return labels


def prediction_of(labels: np.ndarray, targets: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(3, H, W) float32: what a perfect network answers."""
    return np.concatenate([np.where(labels > 0, 5, -5)[None], 5 * targets(labels)]).astype(np.float32)


def of_labels(function: Callable[[np.ndarray], Any], *, any_shape: bool = False) -> Callable[[], list]:
    """The function on odd label maps, each beside the plain one that it stands for, and on bad ones."""

    def cases() -> list:
        plain = scene()
        ids = np.array([0, 7, 3, 90, 41, 12])
        huge = np.array([0, 2**62, 5, 2**33, 2**40 + 1, 2**24 + 3], np.int64)
        wide = np.zeros((96, 183), np.int16)
        wide[::2, ::3] = plain
        many = np.arange(1, 265 * 265 + 1).reshape(265, 265)
        one = np.ones((1, 1), np.int32)
        point = np.zeros((5, 7), np.uint8)
        point[2, 3] = 1
        same = [(name, labels, labels.astype(np.int32)) for name, labels in (
            ("empty", np.zeros((0, 0), np.int32)),
            ("no rows", np.zeros((0, 9), np.uint8)),
            ("no instance", np.zeros((6, 7), np.int64)),
            ("one pixel", one),
            ("one pixel inside", point),
            ("as large as the image", np.ones((30, 41), np.uint16)),
            ("one row", np.array([[1, 1, 0, 2, 2, 2, 0]])),
            ("one column", np.array([[1, 1, 0, 2, 2, 2, 0]]).T),
            ("70225 instances", many),
        )]  # fmt: skip
        return [
            *same,
            ("not consecutive", ids[plain], renumber(ids[plain])[0]),
            ("huge ids", huge[plain], renumber(huge[plain])[0]),
            ("huge unsigned ids", huge[plain].astype(np.uint64) * 2, renumber(huge[plain])[0]),
            ("uint8", plain.astype(np.uint8), plain),
            ("strided", wide[::2, ::3], plain),
            ("turned", np.ascontiguousarray(plain.T).T, plain),
            ("upside down", plain[::-1, ::-1], np.ascontiguousarray(plain[::-1, ::-1])),
            ("big endian", plain.astype(">i4"), plain),
            ("read-only", read_only(plain), plain),
            ("bad: floating", plain.astype(np.float32), None),
            ("bad: negative", plain - 1, None),
            ("three axes" if any_shape else "bad: three axes", plain[None], plain),
            ("one axis" if any_shape else "bad: one axis", plain[0], plain[:1]),
            ("list" if any_shape else "bad: list", plain.tolist(), plain),
        ]

    return lambda: [(name, function, odd, same) for name, odd, same in cases()]


def of_predictions(
    decode: Callable[[np.ndarray], np.ndarray], targets: Callable[[np.ndarray], np.ndarray]
) -> Callable[[], list]:
    """A decoder on odd predictions, each beside the plain one that it stands for, and on bad ones."""

    def cases() -> list:
        plain = prediction_of(scene(), targets)
        background = plain.copy()
        background[0] = -1
        lost = plain.copy()
        lost[0, :, :30] = np.nan
        left_out = plain.copy()
        left_out[0, :, :30] = -5
        lame, still = plain.copy(), plain.copy()
        lame[1:], still[1:] = np.nan, 0
        random = np.random.default_rng(0).normal(0, 3, (3, 40, 40)).astype(np.float32)
        wild = random.copy()
        wild[1:, ::3, ::2], wild[1:, 1::5] = np.inf, -3e38
        calm = [np.full((3, *shape), 2, np.float32) for shape in ((0, 0), (0, 4), (1, 1), (1, 9), (9, 1), (2, 2))]
        return [
            *((f"shape {array.shape}", array, array.copy()) for array in calm),
            ("no cell", background, np.full_like(plain, -5)),
            ("NaN logits", lost, left_out),
            ("NaN flows", lame, still),
            ("infinite flows", wild, wild.copy()),
            ("noise", random, random.copy()),
            ("double precision", plain.astype(np.float64), plain),
            ("turned", np.ascontiguousarray(plain.T).T, plain),
            ("read-only", read_only(plain), plain),
            ("bad: integers", plain.astype(np.int32), None),
            ("bad: two channels", plain[:2], None),
            ("bad: two axes", plain[0], None),
            ("bad: a batch", plain[None], None),
        ]  # fmt: skip

    return lambda: [(name, decode, odd, same) for name, odd, same in cases()]


def read_only(array: np.ndarray) -> np.ndarray:
    """A copy that cannot be written."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def shapes(labels: np.ndarray) -> Any:
    """Measurements without the names of the instances."""
    image = np.arange(np.size(labels), dtype=np.float64).reshape(1, *np.shape(labels))
    return measure(labels, image).drop(columns="label").to_numpy()


def numbered(function: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """A function that wants ids 1..N: huge ones are renumbered first, as its message asks for."""
    return lambda labels: function(renumber(labels)[0] if np.max(labels, initial=0) > np.size(labels) else labels)


def rings(labels: np.ndarray) -> Any:
    """Polygons of the ids that have pixels, as lists."""
    return [
        [[ring.tolist() for ring in (part.exterior, *part.holes)] for part in parts]
        for parts in outlines(labels)
        if parts
    ]


def texts(labels: np.ndarray) -> Any:
    """Run lengths, there and back."""
    found = []
    for form in ("coco", "kaggle", "kaggle_rows"):
        rles = labels_to_rles(labels, form)
        back, kept = rles_to_labels(rles, np.arange(len(rles), 0, -1), labels.shape, form)
        assert np.array_equal(back > 0, labels > 0)
        found.append([rles[i] for i in kept])
    return found


def from_masks(labels: np.ndarray) -> Any:
    """The label map from a mask for each of the first instances."""
    values = np.unique(labels)[:9]
    return masks_to_labels([labels == value for value in values if value], range(len(values[values > 0])), labels.shape)


FUNCTIONS = {
    "labels_to_flows": of_labels(labels_to_flows),
    "labels_to_flows as cellpose": of_labels(lambda labels: labels_to_flows(labels, across_borders=True)),
    "labels_to_hover": of_labels(labels_to_hover),
    "image_scores": of_labels(lambda labels: list(image_scores(labels, np.roll(labels, 1)).values()), any_shape=True),
    "measure": of_labels(shapes),
    "outlines": of_labels(numbered(rings)),
    "run lengths": of_labels(numbered(texts)),
    "decode_flows": of_predictions(decode_flows, labels_to_flows),
    "decode_hover": of_predictions(decode_hover, lambda labels: labels_to_hover(labels) / 5),
}


def outcome(function: Callable[[Any], Any], odd: Any, same: Any) -> str:
    """What happens: the error, or whether the result is that of the plain input."""
    try:
        result = function(odd)
    except ValueError as error:
        return f"ValueError: {error}"
    expected = function(same)
    try:
        np.testing.assert_equal(result, expected)
    except AssertionError:
        return "differs"
    return "equal"


if __name__ == "__main__":
    listed = FUNCTIONS[sys.argv[1]]()
    json.dump({name: outcome(function, odd, same) for name, function, odd, same in listed}, sys.stdout)
