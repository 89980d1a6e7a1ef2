"""What a task writes, as pieces for a reader."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from lading.operations import carried

_CHUNK = 1 << 20


def piped(write: Callable[[int], object]) -> Iterator[bytes]:
    """What ``write`` puts into the descriptor that it is given; it runs in a thread of its own.

    The pipe's size is all that is ever buffered. Raises what ``write`` raises, after all that it
    has written; a reader that has gone breaks the pipe, which ends a task.
    """
    source, sink = os.pipe2(os.O_CLOEXEC)
    # Room for a whole chunk means fewer turns between the two; of all pipes together a user may be
    # out of room, root is not (pipe(7)).
    with suppress(OSError):
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _CHUNK)
    errors: list[Exception] = []

    def run() -> None:
        try:
            write(sink)
        except Exception as error:
            errors.append(error)
        finally:
            os.close(sink)

    thread = threading.Thread(target=carried(run), name="archive", daemon=True)
    thread.start()
    return _pieces(source, thread, errors)


def _pieces(source: int, thread: threading.Thread, errors: list[Exception]) -> Iterator[bytes]:
    try:
        while data := os.read(source, _CHUNK):
            yield data
    finally:
        os.close(source)
    thread.join()
    if errors:
        raise errors[0]
