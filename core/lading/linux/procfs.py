"""The host's procfs, held by a descriptor from before a container's root came into sight.

What lies at ``/proc`` inside a container may be anything: an image, a volume or a racing process
can put a file of its own where a label or a limit is about to be written (CVE-2019-16884,
CVE-2025-52881). A descriptor opened while ``/proc`` was still the host's cannot be exchanged.
"""

from __future__ import annotations

import errno
import os

from lading.linux import syscalls

_MAGIC = 0x9FA0
_ROOT_INODE = 1
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_MAGICLINKS


def open_procfs() -> int:
    """A descriptor of ``/proc``. Raises OSError EINVAL when that is not the root of a procfs."""
    descriptor = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if syscalls.filesystem_type(descriptor) != _MAGIC or os.fstat(descriptor).st_ino != _ROOT_INODE:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not the root of a procfs", "/proc")
    return descriptor


def write(procfs: int, name: str, text: str) -> None:
    """Write to a file of it, for instance ``self/attr/exec``.

    The path cannot lead out of the directory ``procfs``, and nothing may be mounted on it.
    """
    descriptor = syscalls.openat2(procfs, name, os.O_WRONLY, 0, _RESOLVE)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), name) from error
    finally:
        os.close(descriptor)
