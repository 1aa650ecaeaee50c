"""Published images, for the tests that prepare a data set."""

from unit_tests.datasets.conftest import stage1  # noqa: F401 - a fixture
