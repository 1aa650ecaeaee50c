"""Public data sets, and your own, as images, label maps and data lists that every bundle reads.

The published files are found (``source``), listed (``tree``), paired by the module of the data set (``sets``),
converted in several processes (``convert``), split (``splits``) and described (``prepared``, ``manifest``, ``report``).
"""

from .facts import Facts, names, read_facts
from .manifest import Damage, verify
from .preparation import prepare
from .prepared import Prepared

__all__ = ["Damage", "Facts", "Prepared", "names", "prepare", "read_facts", "verify"]
