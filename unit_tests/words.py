"""Comparing a message by the words that a user needs, wherever it stands: in a list, a dictionary or a data class."""

import re


class Like:
    """Equals every text in which the regular expression finds something: ``["ab"] == [Like("b")]``."""

    __hash__ = None

    def __init__(self, pattern):
        self.pattern = pattern

    def __eq__(self, other):
        return isinstance(other, str) and re.search(self.pattern, other) is not None

    def __repr__(self):
        return f"Like({self.pattern!r})"
