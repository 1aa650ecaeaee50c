"""scripts/package_bundle.py, scripts/verify_bundle.py, and what their tests need."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_script(path, name):
    """A module by its file: `scripts` is the name of several packages here."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where other scripts of the folder find it
    spec.loader.exec_module(module)
    return module


package_bundle = load_script(ROOT / "scripts" / "package_bundle.py", "package_bundle")
package, BUNDLES = package_bundle.package, package_bundle.BUNDLES
verify_bundle = load_script(ROOT / "scripts" / "verify_bundle.py", "verify_bundle")


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
