"""The metadata of OME-TIFF files: which planes of an image lie in which file. No file is opened here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ...errors import ImageReadError, first_few, printable

MAX_NAMES, MAX_NAME = 3, 80  # of file names in a message, and their length
MAX_PLANES = 2**20  # of all images that the metadata describe
PLANE_AXES = "CZT"
TOO_MANY = f"has OME metadata of more than {MAX_PLANES} planes, expected one 2-D image; export the image again"


class Reference(NamedTuple):
    """A file as OME metadata name it; both are empty where they say nothing."""

    uuid: str = ""
    name: str = ""


@dataclass
class TiffData:
    """Consecutive planes of an image: attributes, and the file that holds them, None for that of the metadata."""

    attributes: Mapping[str, str]
    file: Reference | None = None

    @property
    def first_directory(self) -> int:
        """Number of the directory that holds the first of the planes."""
        return int(self.attributes.get("IFD", 0))

    def count(self, directories: int) -> int:
        """Number of the planes.

        Args:
            directories: number of directories in the file.
        """
        number = int(self.attributes.get("NumPlanes", 1 if "IFD" in self.attributes else 0))
        return int(self.attributes.get("PlaneCount", number)) or directories


@dataclass
class Pixels:
    """An image: attributes of its ``Pixels`` element, samples of a pixel in each channel, where its planes lie."""

    attributes: Mapping[str, str]
    channel_samples: list[int] = field(default_factory=list)
    data: list[TiffData] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        if len(set(self.channel_samples)) > 1:
            raise ImageReadError(f"has OME metadata of channels of {self.channel_samples} samples, expected equal ones")
        return self.channel_samples[0] if self.channel_samples else 1

    @property
    def files(self) -> set[Reference]:
        """Files that are named to hold planes of the image."""
        return {data.file for data in self.data if data.file is not None}

    @property
    def n_planes(self) -> int:
        """Number of planes."""
        return math.prod(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Number of channels, Z planes and time points, in the order in which planes are counted."""
        order = [letter for letter in self.attributes["DimensionOrder"] if letter in PLANE_AXES]
        if sorted(order) != sorted(PLANE_AXES):
            raise ImageReadError(f"has OME metadata with DimensionOrder {self.attributes['DimensionOrder']!r}")
        sizes = {letter: int(self.attributes[f"Size{letter}"]) for letter in order}
        sizes["C"] //= self.samples
        if min(sizes.values()) < 1:
            raise ImageReadError(f"has OME metadata of an image without planes (sizes {sizes})")
        return sizes


@dataclass
class Ome:
    """What OME metadata say of planes.

    Attributes:
        uuid: of the file that holds the metadata.
        metadata_file: the file with the metadata, if this one holds pixels only.
        images: with at least one ``TiffData`` element.
    """

    uuid: str = ""
    metadata_file: Reference | None = None
    images: list[Pixels] = field(default_factory=list)

    @property
    def references(self) -> list[Reference]:
        """Files that the metadata name, each once, in their order."""
        named = (data.file for image in self.images for data in image.data)
        return list(dict.fromkeys(file for file in named if file is not None))


class Plane(NamedTuple):
    """Position of a plane in its image, and the directory that holds it."""

    c: int
    z: int
    t: int
    directory: int


@dataclass
class Part:
    """The planes of an image that lie in one file.

    Attributes:
        pixels: the image.
        planes: in the file.
        positions: of the planes along C, Z and T; the planes fill this grid.
    """

    pixels: Pixels
    planes: list[Plane]
    positions: tuple[list[int], list[int], list[int]]


def parse_ome(text: str) -> Ome:
    """Read OME-XML.

    Raises:
        ImageReadError: if it has a document type (which may hold entities), or describes too many planes.
        xml.etree.ElementTree.ParseError: if it is not XML.
    """
    if "<!DOCTYPE" in text:
        raise ImageReadError("has OME metadata with a document type, which is not read; export it again")
    target = _Target()
    parser = ElementTree.XMLParser(target=target)
    parser.feed(text)
    parser.close()
    ome = target.ome
    ome.images = [image for image in ome.images if image.data]
    sizes = [[abs(int(image.attributes[f"Size{letter}"])) for letter in PLANE_AXES] for image in ome.images]
    n_named = sum(abs(data.count(1)) for image in ome.images for data in image.data)
    if max(sum(map(math.prod, sizes)), n_named) > MAX_PLANES:
        raise ImageReadError(TOO_MANY)
    return ome


class _Target:
    """Receives the elements of OME-XML and keeps those of planes, so memory does not grow with the others.

    Elements are known by the ends of their names and their places, as in tifffile.
    """

    def __init__(self) -> None:
        self.ome = Ome()
        self.path: list[str] = []
        self.text: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take an element."""
        self.path.append(tag)
        _check_modulo(tag, attributes)
        images = self.ome.images
        match len(self.path):
            case 1:
                self.ome.uuid = attributes.get("UUID", "").strip()
            case 2 if tag.endswith("BinaryOnly"):
                self.ome.metadata_file = Reference(
                    attributes.get("UUID", "").strip(), attributes.get("MetadataFile", "")
                )
            case 3 if self._below("Image") and tag.endswith("Pixels"):
                images.append(Pixels(attributes))
            case 4 if self._below("Image", "Pixels") and tag.endswith("Channel"):
                images[-1].channel_samples.append(int(attributes.get("SamplesPerPixel", 1)))
            case 4 if self._below("Image", "Pixels") and tag.endswith("TiffData"):
                images[-1].data.append(TiffData(attributes))
            case 5 if self._below("Image", "Pixels", "TiffData") and tag.endswith("UUID"):
                self.text.clear()
                data = images[-1].data[-1]
                data.file = data.file or Reference("", attributes.get("FileName", ""))

    def data(self, text: str) -> None:
        """Take a part of the text of an element."""
        if len(self.path) == 5:
            self.text.append(text)

    def end(self, tag: str) -> None:
        """Leave an element."""
        if len(self.path) == 5 and self._below("Image", "Pixels", "TiffData") and tag.endswith("UUID"):
            data = self.ome.images[-1].data[-1]
            assert data.file is not None
            data.file = Reference(data.file.uuid or "".join(self.text).strip(), data.file.name)
        self.path.pop()

    def _below(self, *names: str) -> bool:
        return all(tag.endswith(name) for tag, name in zip(self.path[1:], names, strict=False))


def _check_modulo(tag: str, attributes: Mapping[str, str]) -> None:
    """Refuse a range of values that tifffile would make an array of."""
    if "Along" not in tag or "Start" not in attributes:
        return
    start, end, step = (float(attributes.get(name, 1)) for name in ("Start", "End", "Step"))
    if not (step and abs((end - start) / step) < MAX_PLANES):
        raise ImageReadError(TOO_MANY)


def own_references(ome: Ome, name: str) -> set[Reference]:
    """Find out which of the files in OME metadata is the one that holds the metadata.

    The UUID decides, so a renamed file is known. The name decides where no UUID fits, or several files have the same
    one. A file without UUID whose metadata name a single file is that file.

    Args:
        ome: the metadata.
        name: of the file that holds them.

    Returns:
        The references to the file; none if the metadata describe other files only.
    """
    references = ome.references
    same_uuid = {file for file in references if ome.uuid and file.uuid == ome.uuid}
    if len({file.name for file in same_uuid}) == 1:
        return same_uuid
    same_name = {file for file in same_uuid or references if file.name.lower() == name.lower()}
    if len(same_name) == 1:
        return same_name
    return set(references) if len(references) == 1 and not ome.uuid else set()


def other_names(ome: Ome, own: set[Reference]) -> list[str]:
    """Names of the other files of a set, as the metadata give them."""
    return [file.name or file.uuid for file in ome.references if file not in own]


def bare_name(name: str) -> str:
    """Drop the folders of a name."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def short_names(names: Sequence[str]) -> str:
    """List file names from metadata in a message: without folders, and a few only."""
    bare = [bare_name(printable(name)) for name in names[:MAX_NAMES]]
    short = ["".join(letter if letter.isprintable() else "?" for letter in name)[:MAX_NAME] or "?" for name in bare]
    return first_few([*short, *names[MAX_NAMES:]], MAX_NAMES)


def parts_in(ome: Ome, own: set[Reference], directories: int) -> list[Part]:
    """List the planes that lie in one file, for each image that has any there.

    Args:
        ome: metadata of the set.
        own: references to the file; planes without a reference lie in it too.
        directories: number of directories in the file.

    Raises:
        ImageReadError: if the file lacks planes that the metadata name, or its planes form no grid.
    """
    parts = []
    for pixels in ome.images:
        mine = [data for data in pixels.data if data.file is None or data.file in own]
        planes = [plane for data in mine for plane in _planes(data, pixels.sizes, directories)]
        if planes:
            parts.append(_part(pixels, planes, directories))
    return parts


def first_plane(data: TiffData, sizes: Mapping[str, int]) -> int:
    """Number of the first plane among those of its image; the first letter of ``sizes`` changes fastest."""
    first = [int(data.attributes.get(f"First{letter}", 0)) for letter in sizes]
    return int(np.ravel_multi_index(first, tuple(sizes.values()), order="F"))


def as_xml(parts: Sequence[Part]) -> str:
    """Describe planes of one file as OME-XML of a file that refers to no other.

    Args:
        parts: from ``parts_in``, one for each image.
    """
    return f"<OME>{''.join(map(_image_xml, parts))}</OME>"


def _planes(data: TiffData, sizes: Mapping[str, int], directories: int) -> list[Plane]:
    """Positions of consecutive planes."""
    start, count = first_plane(data, sizes), data.count(directories)
    indices = np.unravel_index(range(start, start + count), tuple(sizes.values()), order="F")
    along = dict(zip(sizes, (index.tolist() for index in indices), strict=True))
    numbers = range(data.first_directory, data.first_directory + count)
    return [Plane(*plane) for plane in zip(along["C"], along["Z"], along["T"], numbers, strict=True)]


def _part(pixels: Pixels, planes: list[Plane], directories: int) -> Part:
    """Check the planes of an image in one file."""
    numbers = {plane.directory for plane in planes}
    if min(numbers) < 0 or max(numbers) >= directories:
        raise ImageReadError(
            f"lacks planes that its metadata names: directory {max(numbers)} of {directories}; the file is incomplete, "
            "export it again"
        )
    positions = {plane[:3] for plane in planes}
    c, z, t = (sorted(set(along)) for along in zip(*positions, strict=True))
    grid = (c, z, t)
    if not len(planes) == len(numbers) == len(positions) == math.prod(map(len, grid)):
        raise ImageReadError(
            f"holds {len(numbers)} planes of a set of files that make no image of their own; put the planes of the "
            "set into one file"
        )
    return Part(pixels, planes, grid)


def _image_xml(part: Part) -> str:
    pixels, planes = part.pixels, sorted(part.planes)
    sizes = {letter: len(along) for letter, along in zip(PLANE_AXES, part.positions, strict=True)}
    sizes["C"] *= pixels.samples
    order = "".join(pixels.sizes)
    data = "".join(_tiff_data_xml(plane, part.positions) for plane in planes)
    shape = " ".join(f'Size{letter}="{size}"' for letter, size in sizes.items())
    width, height = (int(pixels.attributes[f"Size{letter}"]) for letter in "XY")
    return (
        f'<Image><Pixels DimensionOrder="XY{order}" SizeX="{width}" SizeY="{height}" {shape}>'
        f'<Channel SamplesPerPixel="{pixels.samples}"/>{data}</Pixels></Image>'
    )


def _tiff_data_xml(plane: Plane, positions: Sequence[list[int]]) -> str:
    c, z, t = (along.index(at) for along, at in zip(positions, plane[:3], strict=True))
    return f'<TiffData IFD="{plane.directory}" PlaneCount="1" FirstC="{c}" FirstZ="{z}" FirstT="{t}"/>'
