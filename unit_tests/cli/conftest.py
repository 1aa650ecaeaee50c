"""The command line in this process."""

import pytest

from cellbundle.cli import main


def call(*arguments) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return exit_.value.code
