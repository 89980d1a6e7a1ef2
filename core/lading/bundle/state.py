"""What a backend remembers of a container, so that calls after a daemon restart find it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lading.errors import NotFound
from lading.hooks.isolation import Container
from lading.linux.cgroups import Cgroup

NAME = "init.json"
#: Exists from ``create`` to ``start``.
WAITING = "init.created"


@dataclass(frozen=True, slots=True)
class State:
    """``start_time`` (clock ticks since boot, proc_pid_stat(5)) tells a pid from its reuse.

    While the container is being made ``pid`` is 0, and the cgroup is all that may exist.
    """

    cgroup: str
    pid: int = 0
    start_time: int = 0

    @classmethod
    def of(cls, pid: int, cgroup: str) -> State:
        """The state of a process that exists now."""
        return cls(cgroup, pid, start_time(pid))

    def save(self, container: Container, *, waiting: bool = False) -> None:
        """Write it to the container's state directory; ``waiting`` for an init not yet started."""
        path = f"{container.state}/{NAME}"
        descriptor = os.open(
            f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        os.write(descriptor, json.dumps(asdict(self)).encode())
        os.close(descriptor)
        os.rename(f"{path}.new", path)
        if waiting:
            (container.state / WAITING).touch()

    @staticmethod
    def known(container: Container) -> bool:
        """Whether there is one to load."""
        return (container.state / NAME).exists()

    @classmethod
    def load(cls, container: Container) -> State:
        """Read it. Raises NotFound for a container that was not created."""
        try:
            return cls(**json.loads((container.state / NAME).read_bytes()))
        except FileNotFoundError as error:
            raise NotFound(f'container "{container.id}" was not created') from error

    @staticmethod
    def forget(container: Container) -> None:
        """Remove what was written."""
        for name in (WAITING, NAME):
            (container.state / name).unlink(missing_ok=True)

    @property
    def group(self) -> Cgroup:
        """The container's control group."""
        return Cgroup.at(self.cgroup)

    def pidfd(self) -> int:
        """A descriptor of the init. Raises NotFound when it has ended."""
        try:
            if not self.pid:
                raise ProcessLookupError
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            raise NotFound("the init of the container has ended") from error
        # Looked at after the descriptor holds it: before, the pid could have changed hands.
        if start_time(self.pid) != self.start_time:
            os.close(descriptor)
            raise NotFound("the init of the container has ended")
        return descriptor


def start_time(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; 0 when there is no such process, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
