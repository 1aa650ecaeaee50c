"""Packages of bundles: build, check and install them."""
