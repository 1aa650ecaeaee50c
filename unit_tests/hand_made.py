"""Label maps that are read by eye."""

import numpy as np


def digits(*rows):
    """(H, W) int32 from strings of digits; a dot is background."""
    return np.array([[int(c) if c != "." else 0 for c in row] for row in rows], np.int32)
