# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one way to ultralytics, which is optional, AGPL-3.0, and goes to the network unless it is told not to."""

import importlib
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from cellbundle.errors import DependencyError

logger = logging.getLogger(__name__)

INSTALL = "pip install 'cellbundle[yolo]' (ultralytics is AGPL-3.0, see the README of yolo_seg)"
NOTICE = (
    "yolo_seg uses ultralytics %s and is AGPL-3.0 as that is: a program with it, passed on or offered over a network, "
    "comes under the AGPL; see the README of the bundle"
)
# Read when ultralytics is imported. What the user has set stays.
QUIET = {
    "YOLO_OFFLINE": "true",  # no downloads of weights and fonts, no usage statistics
    "YOLO_AUTOINSTALL": "false",  # no pip install of what some function misses
}


def require_ultralytics() -> ModuleType:
    """The package ``ultralytics``, imported such that it does nothing unasked.

    It loads nothing from the network, installs nothing, sends nothing, and keeps its settings in the user's cache
    (``YOLO_CONFIG_DIR``) instead of the configuration folder. What it changes in NumPy and Pillow is put back.

    Raises:
        DependencyError: if it, or something that it needs, is not installed.
    """
    known = sys.modules.get("ultralytics")
    if known is not None and hasattr(known, "__version__"):
        return known
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache / "cellbundle"))
    module = _import()
    if "YOLO_VERBOSE" not in os.environ and not sys.stdout.isatty():
        logging.getLogger("ultralytics").setLevel(logging.WARNING)
    logger.info(NOTICE, module.__version__)
    return module


def _import() -> ModuleType:
    # Its own Image.open answers a damaged file with a missing package (pi_heif), and no longer as Pillow does.
    image_open = Image.open
    try:
        with np.printoptions():
            module = importlib.import_module("ultralytics")
            importlib.import_module("ultralytics.utils")  # where all this happens
    except ImportError as error:
        if error.name == "ultralytics":
            raise DependencyError(f"yolo_seg needs the package ultralytics; {INSTALL}") from None
        raise DependencyError(f"ultralytics cannot be imported ({error}); {INSTALL}") from error
    finally:
        Image.open = image_open
    return module
