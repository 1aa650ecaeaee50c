"""The HTTP service: the application (``http``), processes that segment (``workers``), paths, files and settings."""
