"""Which flow rule for touching cells loses less: labels → flows → labels, scored against the labels.

python scripts/benchmarks/border_rules.py LABELS [--every 5]     LABELS is a folder of label maps
"""

import argparse
from pathlib import Path

import numpy as np

from cellbundle.decode.flows import FLOW_SCALE, decode_flows
from cellbundle.io import read_labels
from cellbundle.metrics import image_scores
from cellbundle.targets.flows import labels_to_flows

SCORES = ("ap50", "ap75", "ap90", "ap95")


def round_trip(labels: np.ndarray, across_borders: bool) -> list[float]:
    """Scores of what a perfect prediction of one label map decodes to."""
    flows = labels_to_flows(labels, across_borders=across_borders)
    logit = np.where(labels > 0, 5.0, -5.0).astype(np.float32)
    prediction = np.concatenate([logit[None], np.float32(FLOW_SCALE) * flows])
    scores = image_scores(labels, decode_flows(prediction, flow_threshold=None, min_size=0))
    return [scores[name] for name in SCORES]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take only every n-th label map")
    arguments = parser.parse_args()
    maps = [read_labels(path) for path in sorted(arguments.labels.iterdir())[:: arguments.every]]
    print(f"| rule, {len(maps)} label maps | " + " | ".join(SCORES) + " |\n|---|" + "---|" * len(SCORES))
    for name, across in (("each cell alone (default)", False), ("across borders (cellpose)", True)):
        means = np.mean([round_trip(labels, across) for labels in maps], axis=0)
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in means) + " |")
