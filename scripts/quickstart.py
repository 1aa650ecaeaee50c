"""Make the images of the quickstart: a real one, and synthetic ones with exact labels.

Called by quickstart.sh. The real image is ``skimage.data.immunohistochemistry()``, which comes inside the scikit-image
wheel. What is there already is left as it is.
"""

import argparse
from pathlib import Path

from PIL import Image
from skimage.data import immunohistochemistry

from cellbundle.io import atomic_path
from cellbundle.synthetic import write_dataset

KINDS = ("fluorescence", "he")  # cell_unet has not seen phase contrast


def main(folder: Path) -> None:
    """Write ``immunohistochemistry.png`` and the data set ``synthetic``."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "immunohistochemistry.png").is_file():
        with atomic_path(folder / "immunohistochemistry.png") as temporary:
            Image.fromarray(immunohistochemistry()).save(temporary)
    if not (folder / "synthetic" / "datalist.json").is_file():
        write_dataset(folder / "synthetic", n_training=0, n_testing=len(KINDS), kinds=KINDS, size=(320, 400), seed=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
