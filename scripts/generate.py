"""Write what is made from other files: the self-contained configurations of bundles, and the tables that list them.

python scripts/generate.py [NAME ...] [--check]

configs/inference.json        segments one image; MONAI Label, the Model Zoo and `cellbundle predict` read it alone
configs/inference_trt.json    put on inference.json for TensorRT
configs/train.json            trains in MONAI Label
configs/multi_gpu_train.json  put on train.json where MONAI Label starts a process for each GPU
README.md, docs/*.md          tables between <!-- generated: ... -->, from the metadata and figures of all bundles
"""

import argparse
import sys
from pathlib import Path

from cellbundle.engine.configs.bases import HYPER_PARAMETERS
from cellbundle.engine.configs.generate import generated_files
from cellbundle.errors import CellBundleError
from cellbundle.io import atomic_path
from tools import tables

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    """Command line; exits with 1 if --check finds a file that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.name for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"bundles; by default all: {', '.join(names)}")
    parser.add_argument("--check", action="store_true", help="write nothing; say which files are not up to date")
    options = parser.parse_args(arguments)
    for name in names:
        for file in (HYPER_PARAMETERS, "metadata.json"):
            if not (ROOT / "bundles" / name / "configs" / file).is_file():
                parser.exit(1, f"error: bundles/{name}/configs has no {file}\n")
    if unknown := sorted(set(options.names) - set(names)):
        parser.error(f"unknown bundles: {', '.join(unknown)}; choose some of {', '.join(names)}")
    try:
        files = tables.render(ROOT)
        for name in options.names or names:
            files |= generated_files(ROOT / "bundles" / name)
    except CellBundleError as error:
        parser.exit(1, f"error: {error}\n")
    old = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{path.relative_to(ROOT)} is {'not up to date' if options.check else 'written'}")
        if not options.check:
            with atomic_path(path) as temporary:
                temporary.write_text(files[path], encoding="utf-8")
    if old and options.check:
        sys.exit("run python scripts/generate.py")


if __name__ == "__main__":
    main()
