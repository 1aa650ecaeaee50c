"""Real images, where there are some."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data():
    """Call it with the parts of a path in ``$CELLBUNDLE_TEST_DATA``: the path, or the test is skipped without it."""
    root = os.environ.get("CELLBUNDLE_TEST_DATA")

    def find(*parts):
        if not root or not Path(root, *parts).exists():
            pytest.skip(f"CELLBUNDLE_TEST_DATA has no {'/'.join(parts)}")
        return Path(root, *parts)

    return find
