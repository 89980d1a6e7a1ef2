"""Directories of ``RUN --mount=type=cache``: they outlive builds, and are nobody's layers."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lading.build.cache import Record
from lading.build.run_mounts import RunMount
from lading.errors import Cancelled

#: How often one that waits for its turn looks whether its client is still there, in seconds.
LOOK_EVERY = 1.0
_MODE = 0o755
#: What Docker calls such a directory in its list.
CACHE_MOUNT = "exec.cachemount"


class CacheMounts:
    """The cache directories of one daemon, by id; thread safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._freed = threading.Condition()
        #: How many builds use a directory; -1 is one that wants nobody beside it.
        self._users: dict[str, int] = {}
        #: Two that come at once make one directory.
        self._making = threading.Lock()

    @contextmanager
    def used(
        self,
        mount: RunMount,
        owner: tuple[int, int],
        fill: Callable[[Path], None],
        gone: threading.Event,
    ) -> Iterator[Path]:
        """A directory while a RUN has it mounted; ``fill`` puts the first content into it.

        ``shared`` ones are used side by side, for a ``locked`` one its turn is waited for, a
        ``private`` one is another when somebody uses it. Raises Cancelled when ``gone``.
        """
        name = hashlib.sha256((mount.id or mount.target).encode()).hexdigest()
        name = self._taken(name, mount.sharing, gone)
        try:
            place = self._made(name, mount, owner, fill)
            # When it was last used, for those who prune.
            os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))
            yield place
        finally:
            with self._freed:
                left = self._users.pop(name)
                if left > 1:
                    self._users[name] = left - 1
                self._freed.notify_all()

    def _taken(self, name: str, sharing: str, gone: threading.Event) -> str:
        with self._freed:
            number, chosen = 0, name
            while (users := self._users.get(chosen, 0)) and (sharing != "shared" or users < 0):
                if gone.is_set():
                    raise Cancelled("the client went away")
                if sharing == "private":
                    number += 1
                    chosen = f"{name}-{number}"
                else:
                    self._freed.wait(LOOK_EVERY)
            self._users[chosen] = users + 1 if sharing == "shared" else -1
            return chosen

    def _made(
        self, name: str, mount: RunMount, owner: tuple[int, int], fill: Callable[[Path], None]
    ) -> Path:
        place = self._root / name
        with self._making:
            if not place.is_dir():
                self._make(place, mount, owner, fill)
        return place

    def _make(
        self, place: Path, mount: RunMount, owner: tuple[int, int], fill: Callable[[Path], None]
    ) -> None:
        # Under another name until it is whole: a crash leaves nothing that looks filled.
        new = self._root / f"new-{place.name}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        fill(new)
        os.chown(new, *owner)
        os.chmod(new, _MODE if mount.mode < 0 else mount.mode)
        new.rename(place)

    def records(self) -> list[Record]:
        """All directories, the least recently used first."""
        found = []
        for place in self._root.iterdir() if self._root.is_dir() else ():
            name = place.name.removeprefix("new-")
            with self._freed:
                busy = name in self._users
            try:
                status = place.stat()
            except FileNotFoundError:
                continue
            found.append(
                Record(
                    name, "", "cache directory of RUN", _size(place), busy, status.st_mtime,
                    status.st_atime, 0, CACHE_MOUNT,
                )
            )  # fmt: skip
        return sorted(found, key=lambda record: record.used)

    def remove(self, name: str) -> bool:
        """Remove a directory, unless a build uses it."""
        with self._freed:
            if name in self._users:
                return False
            for place in (self._root / name, self._root / f"new-{name}"):
                shutil.rmtree(place, ignore_errors=True)
        return True


def _size(place: Path) -> int:
    total = 0
    for above, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_blocks * 512
            except OSError:
                continue
    return total
