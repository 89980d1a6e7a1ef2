"""Every fork of the engine: the spawner, a monitor beside each container, and tasks.

The daemon has threads and must not fork. It starts one :class:`Spawner` early, a small
single-threaded process with all that is needed imported, which forks on request:

* a *monitor* for each container. It is the parent of the container's init, owns the standard
  streams, writes the log and the exit status, serves attached clients, and outlives the daemon;
  :class:`Monitor` is the daemon's connection to one, made anew after a restart;
* a *task*: one function call in a process of its own, for what wants a private mount namespace,
  another root directory or another processor; :class:`Task` is the daemon's end of it.

Names are imported when first used, since the spawner imports this package too and its memory is
every monitor's memory: it must not hold what only the daemon needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lading.monitor.client import ExecStarted, Monitor
    from lading.monitor.exit import read_exit
    from lading.monitor.launch import (
        DETACH_KEYS,
        AttachSpec,
        Exit,
        IsolationSpec,
        Launch,
        LogConfig,
        MonitorEvent,
        State,
    )
    from lading.monitor.logs import Follower, LogLine, read_logs
    from lading.monitor.spawner import Spawner
    from lading.monitor.task import Task

__all__ = [
    "DETACH_KEYS",
    "AttachSpec",
    "ExecStarted",
    "Exit",
    "Follower",
    "IsolationSpec",
    "Launch",
    "LogConfig",
    "LogLine",
    "Monitor",
    "MonitorEvent",
    "Spawner",
    "State",
    "Task",
    "read_exit",
    "read_logs",
]

_HOMES = {
    "client": ("ExecStarted", "Monitor"),
    "exit": ("read_exit",),
    "launch": (
        "DETACH_KEYS",
        "AttachSpec",
        "Exit",
        "IsolationSpec",
        "Launch",
        "LogConfig",
        "MonitorEvent",
        "State",
    ),
    "logs": ("Follower", "LogLine", "read_logs"),
    "spawner": ("Spawner",),
    "task": ("Task",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
