"""Archives of every kind, sound and odd, and what came out of them."""

import gzip
import io
import tarfile
import zipfile

KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
FILES = {"images/a.png": b"A" * 700, "images/Zürich 細胞.png": b"B" * 900, "labels/a.tif": b"C" * 1100, "empty": b""}


def make(path, files=FILES, kind="zip"):
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as file:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, **changes):
    """A zip with one member, "a.png", whose entry in the directory is changed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"A" * 5000)
        for key, value in changes.items():
            setattr(file.infolist()[0], key, value)
    return path


def make_tar(path, size=0, kind=tarfile.REGTYPE, end=bytes(1024), pax=None):
    """A compressed tar with the header of one member, "a.png", and nothing but the end after it."""
    info = tarfile.TarInfo("a.png")
    info.type, info.size, info.linkname, info.pax_headers = kind, size, "target", pax or {}
    path.write_bytes(gzip.compress(info.tobuf() + end))
    return path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stop_after(count):
    """A progress that stops the extraction when that many bytes are done."""

    def progress(done, _total):
        if done >= count:
            raise KeyboardInterrupt

    return progress
