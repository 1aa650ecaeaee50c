"""What the modules of the data sets and the preparation exchange."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from .tree import Tree

Section = Literal["training", "testing"]


@dataclass(frozen=True)
class Item:
    """One image with its instances, before conversion.

    Attributes:
        name: of its output files, ``images/<name>.*`` and ``labels/<name>.tif``; unique without regard to case.
        image: file that holds the image.
        labels: files that hold the instances, sorted.
        group: what must stay together: a field of view, well, slide or patient. By default the image alone.
        section: where it belongs, or None if that is to be decided.
        fold: of a training image, or None if that is to be decided.
        subsets: names of the lists it belongs to beside the list of all, the finest first.
        detail: what else the conversion needs; must be what JSON can hold.
    """

    name: str
    image: Path
    labels: tuple[Path, ...]
    group: str = ""
    section: Section | None = None
    fold: int | None = None
    subsets: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.name)


@dataclass(frozen=True)
class Sample:
    """A converted image.

    Attributes:
        image: an image file that is copied as it is; or (H, W) or (C, H, W) array of integers or float32.
        labels: (H, W) integers, 0 background, one id an instance; ids are numbered 1..N, in their order, when written.
        remarks: what is odd but no error, such as instances that are wholly covered by others.
    """

    image: Path | NDArray
    labels: NDArray
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A broken pair: it is left out, reported, and makes the preparation end with an error."""

    name: str
    reason: str


@dataclass
class Found:
    """What ``locate`` finds in the published files.

    Attributes:
        items: in any order.
        problems: broken pairs.
        remarks: what is odd but no error.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class DatasetModule(Protocol):
    """The functions of a module in ``datasets/sets``; its facts are in the YAML file of the same name."""

    def locate(self, tree: Tree, variant: str, options: Mapping[str, Any], work: Path) -> Found:
        """Find images and labels.

        Args:
            tree: the published files.
            variant: key of ``variants`` in the facts whose signature the files have.
            options: every option of the facts with its value.
            work: an empty or earlier used folder for what conversion needs and the tree does not have as a file, such
                as the annotations of one image of a file for all.

        Raises:
            DatasetError: if nothing can be found. Single broken pairs are returned as problems.
        """

    def convert(self, item: Item, options: Mapping[str, Any]) -> Sample:
        """Read one image and its instances; runs in a process of its own.

        Raises:
            CellBundleError: if the files are damaged; the message names the file.
        """

    def split(self, items: Sequence[Item], n_folds: int, seed: int) -> list[Item]:
        """The same items, in the same order, each with a section and each training item with a fold.

        What is to be held out for testing has its section already.

        Items of one group are never split, unless the published split does. Neither the order of the items nor of
        directories changes the result.
        """
