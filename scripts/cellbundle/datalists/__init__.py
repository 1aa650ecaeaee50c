"""Datalists: read, write, inspect and validate them."""
