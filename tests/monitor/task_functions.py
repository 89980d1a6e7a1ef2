"""What the tests let tasks do."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from lading.errors import Conflict


def echo(args: Any, fds: Sequence[int]) -> Any:
    return args


def read(args: Any, fds: Sequence[int]) -> str:
    return os.read(fds[0], 100).decode()


def write(args: Any, fds: Sequence[int]) -> None:
    os.write(fds[0], b"x")


def where(args: Any, fds: Sequence[int]) -> dict[str, Any]:
    return {
        "cwd": os.getcwd(),
        "session": os.getsid(0) == os.getpid(),
        "mounts": os.readlink("/proc/self/ns/mnt"),
        "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    }


def fail(args: Any, fds: Sequence[int]) -> None:
    raise {"conflict": Conflict("taken", hint="choose another"), "os": OSError(28, "full")}.get(
        args["how"], ZeroDivisionError("no")
    )


def sleep(args: Any, fds: Sequence[int]) -> None:
    child = subprocess.Popen(["sleep", "60"])
    os.write(fds[0], f"{child.pid}\n".encode())
    time.sleep(60)


def vanish(args: Any, fds: Sequence[int]) -> None:
    os._exit(3)
