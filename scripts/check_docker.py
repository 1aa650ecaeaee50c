"""Check Dockerfile, .dockerignore and compose.yaml, and do what they say, without a Docker engine.

python scripts/check_docker.py                                   only reads them; uses hadolint where it is installed
python scripts/check_docker.py --run [--build-arg NAME=VALUE]…   also builds and starts the image (Linux, as root)

The second form does every step for real on a throw-away copy of this machine's files, which stands in for the base
image: it installs all packages, starts the service as its user with the limits of compose.yaml in a network of its own,
waits for the health check, segments an image, and stops the service. It takes some minutes and about 8 GB of disk.
"""

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

from docker_check import container, rootfs
from docker_check.dockerfile import assignments
from docker_check.lint import lint

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "bundles" / "cell_unet" / "docs" / "example.png"
CLONE_NEWNET = 0x40000000  # of Linux's sched.h; Python has os.unshare from 3.12 on
# All mounts and processes end with the command, so that nothing of them is there when the folder is removed.
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def build_and_start(folder: Path, given: dict[str, str]) -> list[str]:
    """Build the image and start it in a network of its own; what was wrong."""
    image = rootfs.build(ROOT, folder, given)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network")
    return container.check(image, EXAMPLE)


def main(arguments: argparse.Namespace) -> int:
    """Print what is wrong; 1 if anything is."""
    if arguments.inside:
        given = {name: value for one in arguments.build_arg for name, value in assignments(one).items()}
        problems = build_and_start(arguments.inside, given)
    else:
        problems = lint(ROOT)
    for problem in problems:
        print(problem)
    if problems or arguments.inside or not arguments.run:
        return 1 if problems else 0
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([*ALONE, sys.executable, *sys.argv, "--inside", folder], check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="do every step as well")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    code = main(parser.parse_args())
    print("failed" if code else "ok")
    raise SystemExit(code)
