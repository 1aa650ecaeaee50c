"""Write what is made from other files: the self-contained configurations of bundles.

python scripts/generate.py [NAME ...] [--check]

configs/inference.json        segments one image; MONAI Label, the Model Zoo and `cellbundle predict` read it alone
configs/inference_trt.json    put on inference.json for TensorRT
configs/train.json            trains in MONAI Label
configs/multi_gpu_train.json  put on train.json where MONAI Label starts a process for each GPU
"""

import argparse
import sys
from pathlib import Path

from cellbundle.engine.configs.generate import generated_files
from cellbundle.errors import CellBundleError
from cellbundle.io import atomic_path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    """Command line; exits with 1 if --check finds a file that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/hyper_parameters.yaml"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"bundles; by default all: {', '.join(names)}")
    parser.add_argument("--check", action="store_true", help="write nothing; say which files are not up to date")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(names)):
        parser.error(f"unknown bundles: {', '.join(unknown)}; choose some of {', '.join(names)}")
    old = []
    try:
        for name in options.names or names:
            for path, text in generated_files(ROOT / "bundles" / name).items():
                if not path.is_file() or path.read_text(encoding="utf-8") != text:
                    old.append(path.relative_to(ROOT))
                    if not options.check:
                        with atomic_path(path) as temporary:
                            temporary.write_text(text, encoding="utf-8")
    except CellBundleError as error:
        parser.exit(1, f"error: {error}\n")
    for path in old:
        print(f"{path} is {'not up to date' if options.check else 'written'}")
    if old and options.check:
        sys.exit("run python scripts/generate.py")


if __name__ == "__main__":
    main()
