"""Where LXC has its files of a container."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from lading.hooks.isolation import Container

#: LXC's own directory of what is running. The mapped root of a container with a user namespace must
#: be able to walk to its configuration's directory (LXC insists), which it cannot to the engine's.
_RUN = Path("/run/lxc")
#: LXC keeps a lock for each container that it opens below this, by the container's own path.
_LOCKS = _RUN / "lock"
_TRIES = 5


class Places:
    """``containers`` is what LXC calls the lxcpath; ``run`` is the backend's own directory."""

    def __init__(self, run: Path) -> None:
        mark = hashlib.sha256(str(run).encode()).hexdigest()[:12]
        self.containers = _RUN / f"lading-{mark}"
        self.filters = run / "seccomp"

    @staticmethod
    def log(container: Container) -> Path:
        """LXC's log of a container."""
        return container.state / "lxc.log"

    def configure(self, container: Container, text: str) -> None:
        """Write a container's configuration."""
        directory = self.containers / container.id
        for last in (*[False] * _TRIES, True):
            try:
                _RUN.mkdir(exist_ok=True)
                self.containers.mkdir(mode=0o711, exist_ok=True)
                directory.mkdir(mode=0o700, exist_ok=True)
                break
            except FileNotFoundError:
                if last:  # else another container's end has removed it that moment
                    raise
        (directory / "config").write_text(text)

    def remove(self, container: Container) -> None:
        """Remove what there is of a container, and of the directories above what is empty."""
        shutil.rmtree(self.containers / container.id, ignore_errors=True)
        self.log(container).unlink(missing_ok=True)
        locks = _LOCKS / self.containers.relative_to("/")
        (locks / f".{container.id}").unlink(missing_ok=True)
        _remove_empty(d for d in (locks, *locks.parents) if _LOCKS in d.parents)
        _remove_empty([self.containers])


def _remove_empty(directories: Iterable[Path]) -> None:
    try:
        for directory in directories:
            directory.rmdir()
    except OSError:
        pass  # another container's files are there, or it is gone
