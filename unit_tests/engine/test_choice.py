"""Options that name one of several things."""

import pytest

from cellbundle.engine.choice import choose
from cellbundle.errors import ConfigError


def test_choices():
    assert choose("image_mode", "tile", {"tile": 1, "resize": 2}) == 1
    with pytest.raises(ConfigError, match="image_mode is 'tiles'; choose one of tile, resize"):
        choose("image_mode", "tiles", {"tile": 1, "resize": 2})
