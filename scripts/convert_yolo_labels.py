"""Turn YOLO segmentation polygons into label maps and a datalist that the bundles read.

python scripts/convert_yolo_labels.py SOURCE OUTPUT

SOURCE holds ``images/<name>.png``, ``labels/<name>.txt`` (one nucleus a line, ``class x1 y1 x2 y2 …`` in shares of
width and height) and ``split.json`` (a datalist). OUTPUT gets ``images`` (links), ``labels/<name>.tif`` and ``<name of
SOURCE>.json``, the datalist.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from cellbundle.io import atomic_path, read_image, write_labels


def polygons_to_labels(lines: list[str], shape: tuple[int, int]) -> np.ndarray:
    """Draw polygons, the largest first, so that no small nucleus disappears under a large one.

    Args:
        lines: ``class x1 y1 x2 y2 …`` in shares of width and height.
        shape: (H, W) in pixels.

    Returns:
        (H, W) int32 label map.
    """
    height, width = shape
    corners = [np.array(line.split()[1:], dtype=float).reshape(-1, 2) for line in lines if line.strip()]
    drawn = [polygon(c[:, 1] * height - 0.5, c[:, 0] * width - 0.5, shape) for c in corners]
    labels = np.zeros(shape, np.int32)
    for number, (ys, xs) in enumerate(sorted(drawn, key=lambda pixels: -len(pixels[0])), start=1):
        labels[ys, xs] = number
    return labels


def convert(source: Path, output: Path) -> None:
    """Convert a whole data set; see the module's docstring."""
    for folder in ("images", "labels"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    datalist = json.loads((source / "split.json").read_text())
    for section in ("training", "testing"):
        for entry in datalist[section]:
            image = source / entry["image"]
            link = output / entry["image"]
            if not link.exists():
                link.symlink_to(image.resolve())
            lines = (source / entry["label"]).read_text().splitlines()
            entry["label"] = f"labels/{image.stem}.tif"
            write_labels(output / entry["label"], polygons_to_labels(lines, read_image(image).data.shape[1:]))
    with atomic_path(output / f"{source.name}.json") as temporary:
        temporary.write_text(json.dumps({k: datalist[k] for k in ("training", "testing")}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    convert(arguments.source, arguments.output)
