"""Runs of the preparation, and what they leave."""

import zipfile

from cellbundle.datasets import prepare


def run(raw, output, **options):
    return prepare("dsb2018", raw, output, **{"workers": 1} | options)


def state(folder):
    """Content and time of every file that people see."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".cellbundle" not in path.parts]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def contents(folder):
    return {name: content for name, (content, _) in state(folder).items()}


def images(folder):
    return {name: found for name, found in state(folder).items() if name.startswith(("images/", "labels/"))}


def pack(folder, archive):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder / "stage1_train"))
