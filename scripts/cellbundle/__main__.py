"""``python -m cellbundle`` is the command ``cellbundle``."""

from .cli import main

main()
