"""python unit_tests/test_vista2d.py: the contract for vista2d, and bundles/test_vista2d*.py."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    tests = sorted(map(str, Path(__file__).parent.glob("bundles/test_vista2d*.py")))
    contract = Path(__file__).with_name("bundles") / "test_contract.py::Test_vista2d"
    raise SystemExit(pytest.main([str(contract), *tests, *sys.argv[1:]]))
