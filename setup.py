"""Put the bundles into wheels and source archives; everything else about the package is in pyproject.toml."""

import shutil
import sys
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

from cellbundle.packages.files import files_under_license  # noqa: E402  (found by the line above)

TARGET = "cellbundle/_bundles"


class BuildWithBundles(build_py):
    """Copy the bundles under the licence of the package into it; an editable install uses those of the checkout."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        shutil.rmtree(Path(self.build_lib, TARGET), ignore_errors=True)  # of an earlier build
        for path, source in self._bundle_files().items():
            target = Path(self.build_lib, path)
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the paths of all files that this command writes."""
        return [*super().get_outputs(include_bytecode), *(str(Path(self.build_lib, p)) for p in self._bundle_files())]

    def get_source_files(self) -> list[str]:
        """Return the paths of all files that a source archive must contain."""
        return [*super().get_source_files(), *(str(p.relative_to(ROOT)) for p in self._bundle_files().values())]

    def _bundle_files(self) -> dict[str, Path]:
        """Return the source of each file below ``cellbundle/_bundles``, by its path in the package."""
        if self.editable_mode:
            return {}
        license_ = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
        return {f"{TARGET}/{path}": file for path, file in files_under_license(ROOT / "bundles", license_).items()}


setup(cmdclass={"build_py": BuildWithBundles})
