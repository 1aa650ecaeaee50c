"""Average the weights of several trainings that started from the same ones ("model soup").

python scripts/tools/average_weights.py WEIGHTS.pt WEIGHTS.pt ... AVERAGE.pt

Running statistics of batch normalisation are averaged too. Source: Wortsman et al., ICML 2022, the uniform soup.
"""

import argparse
import os
from pathlib import Path

import torch

from cellbundle.engine.network import read_weights


def average(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Mean of the floating tensors of all files in double precision, in the type of the first one; others as there."""
    first, *others = (read_weights(path) for path in paths)
    if any(weights.keys() != first.keys() for weights in others):
        raise SystemExit(f"the files must hold the same network, got other keys in {', '.join(map(str, paths))}")
    result = {}
    for name, tensor in first.items():
        stacked = torch.stack([tensor.double(), *(weights[name].double() for weights in others)])
        result[name] = stacked.mean(0).to(tensor.dtype) if tensor.is_floating_point() else tensor
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("average", type=Path)
    arguments = parser.parse_args()
    if os.path.lexists(arguments.average):  # the last of several weights, where AVERAGE.pt was forgotten
        parser.error(f"{arguments.average} exists; give another name for the average, or remove the file first")
    torch.save(average(arguments.weights), arguments.average)
