"""Let a bundle learn a few crops by heart: the quickest proof that network, targets, losses and decoder fit together.

python scripts/tools/overfit_crops.py --bundle bundles/mask_rcnn --datalist FILE --basedir DIR [--crops 4] [--size 128]

Cuts a crop with many cells from some training images, trains with ``configs/overfit.yaml`` of the bundle on top of its
configuration, and prints the scores on the same crops with the CPU time. Further arguments are overrides.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from search_decoder import read_overrides

from cellbundle.datalists.datalist import load_datalists
from cellbundle.engine.workflow import CellWorkflow
from cellbundle.io import read_image, read_labels, write_labels

SHOWN = ("mask_ap", "mask_ap50", "box_ap50", "ap50", "ap_mean")
EVERYTHING = "$find_entries(@data_list_files, 'training', 99)"  # no fold is left out


def busiest_crop(labels: np.ndarray, size: int) -> tuple[slice, slice]:
    """Rows and columns of the crop of a grid that shows most instances."""
    height, width = labels.shape
    places = [
        (slice(y, y + size), slice(x, x + size))
        for y in range(0, max(1, height - size + 1), size)
        for x in range(0, max(1, width - size + 1), size)
    ]
    return max(places, key=lambda place: len(np.unique(labels[place])))


def write_crops(entries: list[dict[str, Any]], size: int, folder: Path) -> Path:
    """Write a crop of each entry, and a data list of them."""
    listed = []
    for number, entry in enumerate(entries):
        image, labels = read_image(entry["image"]).data, read_labels(entry["label"])
        place = busiest_crop(labels, size)
        tifffile.imwrite(folder / f"{number}.tif", image[:, *place], metadata={"axes": "CYX"})
        write_labels(folder / f"{number}_labels.tif", labels[place])
        listed.append({"image": f"{number}.tif", "label": f"{number}_labels.tif", "fold": 0})
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": listed}))
    return path


def overfit(bundle: Path, datalist: Path, folder: Path, overrides: dict[str, Any]) -> dict[str, float]:
    """Train on a data list and score on the same images; the metrics of the best epoch."""
    workflow = CellWorkflow(
        config_file=str(bundle / "configs" / "overfit.yaml"),
        logging_file=False,
        datalist=str(datalist),
        basedir=str(datalist.parent),
        ckpt_path=str(folder),
        num_workers=0,
        final_test=False,
        **{"train#dataset#data": EVERYTHING, "validate#dataset#data": EVERYTHING, **overrides},
    )
    workflow.initialize()
    workflow.run()
    return dict(workflow.content("validate#evaluator").state.metrics)


def main(arguments: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Cut, train and print."""
    entries = load_datalists([{"datalist": arguments.datalist, "basedir": arguments.basedir}])
    chosen = entries[:: max(1, len(entries) // arguments.crops)][: arguments.crops]
    with tempfile.TemporaryDirectory() as name:
        started = time.process_time()
        metrics = overfit(arguments.bundle, write_crops(chosen, arguments.size, Path(name)), Path(name), overrides)
    scores = ", ".join(f"{key} {metrics[key]:.3f}" for key in SHOWN if key in metrics)
    print(f"{len(chosen)} crops of {arguments.size}², {(time.process_time() - started) / 60:.1f} CPU minutes: {scores}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--basedir", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="side of a crop, pixels")
    known, others = parser.parse_known_args()
    main(known, read_overrides(others))
