"""Network namespaces: made by a thread that leaves the host's and comes back, kept by a mount.

A namespace is bind-mounted on a file, so it lives without a process in it; the file's path is what
``config.json`` names. Unmounting the file when the processes have ended lets the kernel take the
namespace away with its interfaces, in the background and many at a time.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lading.errors import NotFound
from lading.linux import syscalls
from lading.linux.mounts import MS_BIND, MS_PRIVATE

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
_THREAD = "/proc/thread-self/ns/net"
_DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"

log = logging.getLogger(__name__)


class Namespaces:
    """The directory of namespaces of one daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._home = os.open(_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        self._private = False

    def close(self) -> None:
        """Let go of the host's namespace, and of the directory's mount when it is empty."""
        os.close(self._home)
        if not self.names():
            try:
                syscalls.umount2(self._directory, syscalls.MNT_DETACH)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise

    def path(self, name: str) -> Path:
        """Where a namespace is mounted."""
        return self._directory / name

    def make(self, name: str) -> Path:
        """A new namespace with ``lo`` up, and IPv6 off on interfaces until an address wants it."""
        self._make_private()
        path = self.path(name)
        path.touch(mode=0o444)
        try:
            with self._left_home():
                syscalls.mount(_THREAD, path, None, MS_BIND)
                bring_up_lo()
                _quiet_ipv6()
        except OSError:
            self.remove(name)
            raise
        return path

    @contextmanager
    def _left_home(self) -> Iterator[None]:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)

    def _make_private(self) -> None:
        # Else each mount would be copied into every mount namespace that the host's propagates to,
        # and kept alive there.
        if self._private:
            return
        try:
            syscalls.mount(None, self._directory, None, MS_PRIVATE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Not a mount yet: an earlier daemon of this directory may have made it one.
            syscalls.mount(self._directory, self._directory, None, MS_BIND)
            syscalls.mount(None, self._directory, None, MS_PRIVATE)
        self._private = True

    def set_up_lo(self, path: str) -> None:
        """Bring up ``lo`` of a namespace that somebody else made. Raises NotFound."""
        try:
            target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f'no network namespace "{path}"') from error
        try:
            syscalls.setns(target, syscalls.CLONE_NEWNET)
            try:
                bring_up_lo()
            finally:
                syscalls.setns(self._home, syscalls.CLONE_NEWNET)
        finally:
            os.close(target)

    def remove(self, name: str) -> None:
        """Let go of a namespace; silent when it is not there."""
        path = self.path(name)
        try:
            syscalls.umount2(path, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        path.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All that are there."""
        return sorted(p.name for p in self._directory.iterdir())

    def alive(self, name: str) -> bool:
        """Whether a namespace is mounted: not so after the host has been rebooted."""
        try:
            return self.path(name).stat().st_dev != self._directory.stat().st_dev
        except FileNotFoundError:
            return False


def bring_up_lo() -> None:
    """Bring up the loopback interface of the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _quiet_ipv6() -> None:
    try:
        descriptor = os.open(_DISABLE_IPV6, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # a kernel without IPv6
    try:
        os.write(descriptor, b"1")
    finally:
        os.close(descriptor)
