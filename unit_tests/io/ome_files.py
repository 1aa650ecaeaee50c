"""OME-TIFF files that name other files, written plane by plane."""

import os
import sys
from contextlib import contextmanager

import numpy as np
import tifffile

SHAPE = (24, 32)
KINDS = ("absolute", "relative", "beside", "fifo", "missing", "text")  # of a reference to another file
_opened: list[list[str]] = []


def cells(n, value=200):
    """(24, 32) image of n bright squares."""
    image = np.full(SHAPE, 10, np.uint8)
    for i in range(n):
        image[2 + 8 * (i // 4) :, 2 + 8 * (i % 4) :][:5, :5] = value
    return image


OWN, OTHER = cells(2), cells(7)


def uuid(name):
    return f"urn:uuid:{name}"


def ome_xml(images, own, *, size=SHAPE, kind="uint8", attributes=""):
    """OME-XML of images.

    ``images`` is a list of images, each a list of planes ``(c, z, t, name of the file, directory)``; ``own`` is the
    name of the file whose UUID the root element has, None for no UUID.
    """
    parts = []
    for number, planes in enumerate(images):
        c, z, t = (1 + max(plane[axis] for plane in planes) for axis in range(3))
        data = "".join(
            f'<TiffData FirstC="{plane[0]}" FirstZ="{plane[1]}" FirstT="{plane[2]}" IFD="{plane[4]}" PlaneCount="1">'
            f'<UUID FileName="{plane[3]}">{uuid(plane[3])}</UUID></TiffData>'
            for plane in planes
        )
        parts.append(
            f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="{kind}" SizeC="{c}" '
            f'SizeZ="{z}" SizeT="{t}" SizeX="{size[1]}" SizeY="{size[0]}" {attributes}>{data}</Pixels></Image>'
        )
    return _root(own, "".join(parts))


def binary_only(own, metadata_file):
    """OME-XML of a file whose metadata are in another file."""
    return _root(own, f'<BinaryOnly MetadataFile="{metadata_file}" UUID="{uuid(metadata_file)}"/>')


def _root(own, content):
    identity = f' UUID="{uuid(own)}"' if own else ""
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{schema}"{identity}>{content}</OME>'


def write_ome(path, planes, xml):
    """Write planes (n, H, W) with a description."""
    with tifffile.TiffWriter(path) as tiff:
        for number, plane in enumerate(planes):
            tiff.write(plane, description=xml if number == 0 else None, metadata=None, contiguous=False)
    return path


def write_set(folder, images, pixels, *, main=None, **options):
    """Write all files of a set; those other than ``main``, if it is given, name it as the one with the metadata.

    ``pixels`` has the planes (n, H, W) of each file by name.
    """
    for name, planes in pixels.items():
        xml = ome_xml(images, name, **options) if main in (None, name) else binary_only(name, main)
        write_ome(folder / name, planes, xml)


def channels(folder, names=("a.ome.tif", "b.ome.tif"), planes=(OWN, OTHER), **options):
    """Write a set with one file a channel."""
    image = [(c, 0, 0, name, 0) for c, name in enumerate(names)]
    write_set(folder, [image], {name: [plane] for name, plane in zip(names, planes, strict=True)}, **options)


def referring(folder, kind, name="a.ome.tif"):
    """Write a file that names another one as its second channel; that one is in the folder, elsewhere or no image."""
    folder.mkdir(exist_ok=True, parents=True)
    secret = folder.parent / "secret.tif"
    write_ome(secret, [OTHER], ome_xml([[(0, 0, 0, "secret.tif", 0)]], "secret.tif"))
    other = {"absolute": str(secret), "relative": "../secret.tif", "beside": "b.tif", "fifo": "pipe"}.get(kind, kind)
    if kind == "beside":
        (folder / other).write_bytes(secret.read_bytes())
    elif kind == "fifo":
        os.mkfifo(folder / other)  # opening it would wait for ever
    elif kind == "text":
        (folder / other).write_text("no image")
    return write_ome(folder / name, [OWN], ome_xml([[(0, 0, 0, name, 0), (1, 0, 0, other, 0)]], name))


def _hook(event, arguments):
    if _opened and event == "open":
        _opened[-1].append(str(arguments[0]))


@contextmanager
def opened():
    """Paths that this process opens inside the block."""
    if not getattr(_hook, "added", False):
        sys.addaudithook(_hook)  # there is no way to remove one
        _hook.added = True
    _opened.append([])
    try:
        yield _opened[-1]
    finally:
        _opened.pop()
