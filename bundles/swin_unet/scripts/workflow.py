"""swin_unet on the command line.

python -m monai.bundle run_workflow "scripts.workflow.CellSwinUNet" --config_file configs/hyper_parameters.yaml \
    --datalist FILE --basedir DIR
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file, Python does not look where the package `scripts` is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellbundle.engine.workflow import CellWorkflow


class CellSwinUNet(CellWorkflow):
    """Trains, evaluates and runs swin_unet: a compact U-Net of Swin transformer blocks."""


if __name__ == "__main__":
    import fire
    from monai.bundle import run_workflow

    fire.Fire(lambda **options: run_workflow("scripts.workflow.CellSwinUNet", **options))
