"""Segment a real image and synthetic ones with cell_unet, and say how well the synthetic ones came out.

Called by quickstart.sh. The real image is ``skimage.data.immunohistochemistry()``, which comes inside the scikit-image
wheel.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import immunohistochemistry

from cellbundle.engine.workflow import CellWorkflow
from cellbundle.io import read_image, read_labels, write_overlay
from cellbundle.metrics import image_scores
from cellbundle.synthetic import write_dataset

REPOSITORY = Path(__file__).resolve().parent.parent
KINDS = ("fluorescence", "he")  # cell_unet has not seen phase contrast


def prepare(folder: Path) -> dict[str, Path]:
    """Write the images; return the true label map of each synthetic one by the stem of its image."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    Image.fromarray(immunohistochemistry()).save(images / "immunohistochemistry.png")
    datalist = write_dataset(
        folder / "synthetic", n_training=0, n_testing=len(KINDS), kinds=KINDS, size=(320, 400), seed=1
    )
    truth = {}
    for entry in json.loads(datalist.read_text())["testing"]:
        source = datalist.parent / entry["image"]
        (images / source.name).write_bytes(source.read_bytes())
        truth[source.stem] = datalist.parent / entry["label"]
    return truth


def main(folder: Path) -> None:
    """Prepare, segment, draw and score."""
    truth = prepare(folder)
    config = REPOSITORY / "bundles" / "cell_unet" / "configs" / "hyper_parameters.yaml"
    options = {"input_dir": str(folder / "images"), "output_dir": str(folder)}
    workflow = CellWorkflow(config_file=str(config), mode="infer", logging_file=False, **options)
    workflow.initialize()
    workflow.run()
    print(f"\n{'image':32s} {'cells':>6s}  AP at IoU 0.5 against the exact labels")
    for path in sorted((folder / "images").iterdir()):
        labels = read_labels(folder / f"{path.stem}_labels.tif")
        write_overlay(folder / f"{path.stem}_overlay.png", read_image(path).data, labels)
        score = (
            f"{image_scores(read_labels(truth[path.stem]), labels)['ap50']:.2f}"
            if path.stem in truth
            else "(no labels)"
        )
        print(f"{path.name:32s} {len(np.unique(labels)) - 1:6d}  {score}")
    print(f"\nLabel maps (*_labels.tif) and pictures of the outlines (*_overlay.png) are in\n{folder.resolve()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("quickstart_results"))
    main(parser.parse_args().output)
