"""The axis rules on shapes alone."""

import numpy as np
import pytest

from cellbundle.errors import ImageReadError
from cellbundle.io.images.axes import channels_first, resolve_axes


@pytest.mark.parametrize(
    ("shape", "stated", "option", "letters", "source"),
    [
        ((9, 8), "YX", None, "YX", "metadata"),
        ((1, 1), "YX", None, "YX", "metadata"),
        ((9, 8, 3), "YXS", None, "YXS", "metadata"),
        ((2, 2, 3), "CYX", None, "CYX", "metadata"),  # metadata needs no size to be plausible
        ((1, 40, 1, 9, 8), "TCZYX", None, "TCZYX", "metadata"),
        ((3, 9, 8), "QYX", None, "CYX", "guess"),
        ((9, 8, 2), "QYX", None, "YXC", "guess"),  # tifffile's letters of a nameless (H, W, 2)
        ((9, 8, 1), "YXQ", None, "YXQ", "metadata"),
        ((1, 4, 9, 8), "QQYX", None, "QCYX", "guess"),
        ((9, 8, 5), "QYX", "yxc", "YXC", "option"),
        ((5, 9, 8), "ZYX", "CYX", "CYX", "option"),
    ],
)
def test_axes_are_resolved(shape, stated, option, letters, source):
    assert resolve_axes(shape, stated, option) == (letters, source)


@pytest.mark.parametrize(
    ("shape", "stated", "option", "message"),
    [
        ((3, 9, 4), "QYX", None, r"\(3, 9, 4\).*unclear.*axes="),  # both ends are small
        ((3, 3, 3), "IYX", None, "unclear.*axes="),
        ((5, 9, 8), "IYX", None, "unclear.*axes="),  # neither end is small
        ((2, 3, 9, 8), "QQYX", None, "unclear.*axes="),
        ((9,), "X", None, "unclear.*axes="),
        ((5, 9, 8), "ZYX", None, r"z-stack.*\(5, 9, 8\).*plane.*axes='CYX'"),
        ((5, 9, 8), "TYX", None, "time series.*plane"),
        ((5, 9, 8), "RYX", None, "stack.*axis R"),
        ((2, 9, 8, 3), "CYXS", None, r"2 channel dimensions.*\(2, 9, 8, 3\)"),
        ((9, 8), "YX", "CYX", r"axes='CYX'.* 3 .*\(9, 8\)"),
        ((9, 8, 3), "YXS", "YYX", "unclear"),
        ((2, 2, 9, 8), "QQYX", "CCYX", "unclear"),
    ],
)
def test_axes_are_refused(shape, stated, option, message):
    with pytest.raises(ImageReadError, match=message):
        resolve_axes(shape, stated, option)


@pytest.mark.parametrize("letters", ["CYX", "YXC", "YXS", "SYX", "TCZYX", "XYC", "CYXS"])
def test_channels_come_first(letters):
    sizes = {"C": 2, "S": 1 if "C" in letters else 2, "Y": 3, "X": 4, "T": 1, "Z": 1}
    shape = [sizes[letter] for letter in letters]
    chw = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    order = ["CYX".index("C" if letter == "S" else letter) for letter in letters if sizes[letter] > 1]
    np.testing.assert_array_equal(channels_first(chw.transpose(order).reshape(shape), letters), chw)


def test_a_plane_gets_a_channel():
    assert channels_first(np.zeros((3, 4)), "YX").shape == (1, 3, 4)
    assert channels_first(np.zeros((1, 1, 1)), "YXC").shape == (1, 1, 1)
