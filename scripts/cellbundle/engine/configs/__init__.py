"""Configurations of bundles: base files, what a bundle changes in them, and the files that are generated from both."""

from .bases import base_files, config_files, finish_config, further_options, load_config, own_file, quiet_about_folders

__all__ = [
    "base_files",
    "config_files",
    "finish_config",
    "further_options",
    "load_config",
    "own_file",
    "quiet_about_folders",
]
