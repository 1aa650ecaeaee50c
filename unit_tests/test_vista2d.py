"""python unit_tests/test_vista2d.py: the tests of the bundle vista2d, which stand in bundles/test_vista2d*.py."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    tests = sorted(map(str, Path(__file__).parent.glob("bundles/test_vista2d*.py")))
    raise SystemExit(pytest.main([*tests, *sys.argv[1:]]))
