"""Wait for changes in a directory: inotify(7), or a look now and then where that is exhausted."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Final

from lading.linux.syscalls import check, libc

_IN_MODIFY = 0x02
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100

#: Milliseconds between looks without inotify: a user has few instances (max_user_instances).
_PAUSE: Final = 200


class Watch:
    """Wakes up when files of a directory are written, made or renamed."""

    def __init__(self, directory: Path) -> None:
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            return
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        try:
            check(libc.inotify_add_watch(self._fd, os.fsencode(directory), mask), "inotify")
        except OSError:
            self.close()

    def wait(self, other: int) -> None:
        """Block until something changes, or the descriptor ``other`` is readable.

        May return early. What changed since the last return counts.
        """
        poll = select.poll()
        poll.register(other, select.POLLIN)
        if self._fd < 0:
            poll.poll(_PAUSE)
            return
        poll.register(self._fd, select.POLLIN)
        poll.poll()
        try:
            os.read(self._fd, 1 << 16)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Watch no longer. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
