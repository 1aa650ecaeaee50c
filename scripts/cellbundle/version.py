"""Version of cellbundle."""

__version__ = "0.1.0"
