"""hover_uni on the command line.

python -m monai.bundle run_workflow "scripts.workflow.HoverUni" --config_file configs/hyper_parameters.yaml \
    --datalist FILE --basedir DIR
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file, Python does not look where the package `scripts` is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellbundle.engine.phases import PhasedWorkflow


class HoverUni(PhasedWorkflow):
    """Trains, evaluates and runs hover_uni: a ViT for pathology with a pyramid and the heads of HoVer-Net."""


if __name__ == "__main__":
    import fire
    from monai.bundle import run_workflow

    fire.Fire(lambda **options: run_workflow("scripts.workflow.HoverUni", **options))
