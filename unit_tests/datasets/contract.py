"""Calls that the tests of all published data sets have in common, and what each preparation must give."""

import json

import numpy as np
import tifffile
from PIL import Image

from cellbundle.datasets import prepare
from cellbundle.datasets.convert import load_module
from cellbundle.datasets.facts import read_facts
from cellbundle.datasets.model import Problem
from cellbundle.datasets.tree import Tree, list_files
from cellbundle.io import read_labels

from ..words import Like


def save(path, array, **options):
    """Write an image or a label map, and its folder; the options go to ``tifffile``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path)


def check_labels(folder, name, expected):
    """Compare the label map of a prepared image with the expected ids."""
    np.testing.assert_array_equal(read_labels(folder / "labels" / f"{name}.tif"), expected)


def sizes(lists):
    """Numbers of images for training and for testing of each list."""
    return {name: (len(content["training"]), len(content["testing"])) for name, content in lists.items()}


class DataSet:
    """A data set with the defaults of its options and, unless another one is given, its first variant."""

    def __init__(self, name, variant=None):
        facts = read_facts(name)
        self.name, self.variant = name, variant or next(iter(facts.variants))
        self.defaults = {key: option.default for key, option in facts.options.items()}
        self.module = load_module(name)
        self.split = self.module.split

    def locate(self, folder, variant=None, work=None, **options):
        tree = Tree(folder, list_files(folder))
        work = work or folder.parent / "work"
        return self.module.locate(tree, variant or self.variant, self.defaults | options, work)

    def check_found(self, folder, names, problems):
        """Locate just these images, and problems with these patterns for their reasons, both in order."""
        found = self.locate(folder)
        assert [item.name for item in found.items] == names
        assert found.problems == [Problem(name, Like(pattern)) for name, pattern in problems.items()], found.problems

    def convert(self, item, **options):
        return self.module.convert(item, self.defaults | options)

    def convert_only(self, folder, **options):
        """Convert the only image of a folder."""
        (item,) = self.locate(folder, **options).items
        return self.convert(item, **options)

    def prepare(self, raw, output, problems=(), **options):
        """Prepare with one worker, with just these problems; return the result, and the content of each list."""
        prepared = prepare(self.name, raw, output, **{"workers": 1} | options)
        assert prepared.problems == list(problems), prepared.problems
        return prepared, {name: json.loads(path.read_text()) for name, path in prepared.datalists.items()}

    def prepare_in_any_order(self, shuffled_listing, raw, folder, **options):
        """Prepare with three orders of the published files: all lists are equal byte by byte."""
        written = []
        for seed in range(3):
            if seed:
                shuffled_listing(seed)
            prepared, lists = self.prepare(raw, folder / f"out{seed}", **options)
            written.append({name: path.read_bytes() for name, path in prepared.datalists.items()})
        assert written[0] == written[1] == written[2]
        return prepared, lists
