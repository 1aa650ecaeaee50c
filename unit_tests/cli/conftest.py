"""The command line in this process."""

import pytest
from unit_tests.datasets.conftest import stage1  # noqa: F401 - a fixture
from unit_tests.packages.conftest import archive, home, newer  # noqa: F401 - fixtures

from cellbundle.cli import main


def call(*arguments) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return exit_.value.code
