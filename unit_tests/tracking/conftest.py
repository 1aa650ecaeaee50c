"""Fixtures of the engine's tests, for tests of tracked trainings."""

from ..engine.conftest import data, make

__all__ = ["data", "make"]
