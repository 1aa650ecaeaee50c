"""How yolo_seg imports ultralytics: quietly, offline, and with an explanation where that fails."""

import os
import sys
from pathlib import Path

import pytest

from cellbundle.errors import DependencyError

pytest.importorskip("ultralytics", reason="the extra yolo is not installed")
from .. import forked
from .contract import REPOSITORY, bundle_modules

(access,) = bundle_modules("yolo_seg", "ultralytics_access")
CODE = """
import logging, os, socket, sys
import numpy as np
from PIL import Image
logging.basicConfig(level=logging.INFO)
def refuse(*arguments, **options):
    raise SystemExit(f"asked for the network: {arguments}")
socket.getaddrinfo = socket.socket.connect = refuse
image_open, options = Image.open, np.get_printoptions()
from scripts.ultralytics_access import require_ultralytics
assert require_ultralytics() is require_ultralytics()
assert Image.open is image_open and np.get_printoptions() == options
from ultralytics.utils import AUTOINSTALL, ONLINE
assert (AUTOINSTALL, ONLINE) == (False, False)
"""


@pytest.mark.slow
def test_it_asks_for_no_network_and_writes_to_the_cache_only(tmp_path: Path):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "XDG_"))}
    environment = {**kept, "HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / ".cache" / "matplotlib")}
    folder = REPOSITORY / "bundles" / "yolo_seg"
    command = [sys.executable, "-c", CODE]
    done = forked.run(command, folder, environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is AGPL-3.0") == 1, "the notice, once a process"
    written = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert (".cache", "cellbundle") in written
    assert {parts[0] for parts in written} == {".cache"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ModuleNotFoundError("No module named 'ultralytics'", name="ultralytics"),
            "yolo_seg.*package ultralytics.*pip",
        ),
        (ImportError("libGL.so.1: cannot open shared object file"), r"ultralytics.*libGL\.so\.1.*pip"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, error: ImportError, text: str):
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(access.importlib, "import_module", fail)
    monkeypatch.delitem(sys.modules, "ultralytics")
    with pytest.raises(DependencyError, match=text) as caught:
        access.require_ultralytics()
    assert "cellbundle[yolo]" in str(caught.value)
    assert "AGPL-3.0" in str(caught.value)
