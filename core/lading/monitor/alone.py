"""Keep handlers out of ``fork`` that only processes with threads need.

The standard library's ``threading`` and ``logging`` renew their locks in each forked child, for the
case that another thread held one. The spawner has one thread whenever it forks; what these handlers
touch in the child is 0.4 MB of memory that would stay shared without them, in each monitor.

To be imported before anything that imports those two.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

_SPARED: Final = frozenset({"threading", "logging"})
_register = os.register_at_fork


def _register_unless_spared(**handlers: Any) -> None:
    if sys._getframe(1).f_globals.get("__name__") not in _SPARED:
        _register(**handlers)


def keep() -> None:
    """Begin to turn such handlers away."""
    os.register_at_fork = _register_unless_spared
