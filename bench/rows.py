"""A row of the benchmark, and the docker client that it measures with."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from peers import Engine


@dataclass(frozen=True)
class Row:
    """One measurement: ``once`` returns a number in ``unit`` (ms unless it says otherwise).

    ``limit`` is the most that ours may be of the peer's (or, with ``more``, the least).
    """

    name: str
    title: str
    once: Callable[[Engine], float]
    goal: str = ""
    limit: float = 0.0
    more: bool = False
    absolute: bool = False
    unit: str = "ms"
    runs: int = 15
    warm_up: int = 2
    prepare: Callable[[Engine], None] = field(default=lambda engine: None)
    clean: Callable[[Engine], None] = field(default=lambda engine: None)

    def met(self, ours: float, theirs: float) -> bool:
        """Whether the goal is reached."""
        bound = self.limit if self.absolute else self.limit * theirs
        return ours >= bound if self.more else ours <= bound


def docker(engine: Engine, *arguments: str, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["docker", "-H", engine.host, *arguments], input=stdin, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{engine.name}: docker {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout


def timed(engine: Engine, *arguments: str, stdin: bytes | None = None) -> float:
    began = time.perf_counter()
    docker(engine, *arguments, stdin=stdin)
    return (time.perf_counter() - began) * 1000
