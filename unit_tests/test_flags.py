"""Switches that are given as text."""

import pytest

from cellbundle.errors import ConfigError
from cellbundle.flags import as_bool


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("False", False), ("FALSE", False), (True, True), (False, False), (1, True), (None, False)],
)
def test_switches(value, expected):
    assert as_bool(value) is expected


@pytest.mark.parametrize("value", ["no", "0", "", "truth"])
def test_other_text_is_refused(value):
    with pytest.raises(ConfigError, match="true or false"):
        as_bool(value)
