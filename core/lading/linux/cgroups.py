"""Control groups, version 1, version 2 and both at once, behind one class.

A :class:`Cgroup` is one group in every hierarchy that the host has mounted: eight directories on a
version 1 host, one on version 2 (cgroups(7)). On a *hybrid* host the controllers are in version 1
hierarchies and an empty version 2 one is mounted beside them; it is left alone.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from lading.errors import Invalid
from lading.hooks.isolation import Stats
from lading.linux import cgroup_devices, cgroup_limits, cgroup_stats

#: The key of the version 2 hierarchy in :class:`Hierarchies`.
UNIFIED = ""

#: Controllers that Lading sets or reads on version 2.
WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")

REMOVE_SECONDS = 5.0
FREEZE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where hierarchies are mounted: by controller (or ``name=...``), :data:`UNIFIED` for v2.

    ``roots`` says which group of a hierarchy its mount shows: not the topmost in a container.
    """

    mounts: Mapping[str, str]
    roots: Mapping[str, str] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """``v1``, ``v2``, ``hybrid`` or ``none``."""
        legacy = any(key and not key.startswith("name=") for key in self.mounts)
        if UNIFIED in self.mounts:
            return "hybrid" if legacy else "v2"
        return "v1" if legacy else "none"


@cache
def hierarchies() -> Hierarchies:
    """What this host has mounted, read once."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return parse_mountinfo(table.read())


def parse_mountinfo(table: str) -> Hierarchies:
    """The hierarchies in the text of ``/proc/<pid>/mountinfo``."""
    mounts: dict[str, str] = {}
    roots: dict[str, str] = {}
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        _, _, _, root, place, *_ = left.split(" ")
        if kind == "cgroup2":
            keys = [UNIFIED]
        elif kind == "cgroup":
            words = options.split(",")
            keys = [w for w in words if w in _V1_CONTROLLERS or w.startswith("name=")]
        else:
            continue
        for key in keys:
            mounts.setdefault(key, place)
            roots.setdefault(key, root)
    return Hierarchies(mounts, roots)


_V1_CONTROLLERS = (
    "cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls",
    "perf_event", "net_prio", "hugetlb", "pids", "rdma", "misc",
)  # fmt: skip


class Cgroup:
    """One group. ``directories`` maps the keys of :class:`Hierarchies` to its directories."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        self.directories = dict(directories)
        legacy = any(k and not k.startswith("name=") for k in self.directories)
        self.unified = UNIFIED in self.directories and not legacy
        #: Each directory once, under one of its keys: controllers may share a hierarchy.
        self._each = {directory: key for key, directory in self.directories.items()}

    @classmethod
    def at(cls, path: str, where: Hierarchies | None = None) -> Cgroup:
        """The group of that name (``/lading/<id>``) in every hierarchy, made or not."""
        name = path.strip("/")
        if not name or ".." in name.split("/"):
            raise OSError(errno.EINVAL, "a cgroup path must name a group below the root", path)
        chosen = where or hierarchies()
        # Moving a process into a version 2 group waits for an RCU grace period, some 10 ms. On a
        # hybrid host that hierarchy has no controllers, so it would be for nothing.
        hybrid = chosen.mode == "hybrid"
        return cls(
            {
                key: f"{top}/{name}"
                for key, top in chosen.mounts.items()
                if not (hybrid and key == UNIFIED)
            }
        )

    @classmethod
    def of_process(cls, pid: int) -> Cgroup:
        """The group that a process is in. Raises FileNotFoundError when there is no process."""
        return cls.of_table(Path(f"/proc/{pid}/cgroup").read_text(), hierarchies())

    @classmethod
    def of_table(cls, table: str, where: Hierarchies) -> Cgroup:
        """The group that the text of ``/proc/<pid>/cgroup`` names."""
        directories = {}
        for line in table.splitlines():
            _, controllers, path = line.split(":", 2)
            for key in controllers.split(","):
                if key in where.mounts and not (key == UNIFIED and where.mode == "hybrid"):
                    root = where.roots.get(key, "/")
                    inside = path.removeprefix(root) if root != "/" else path
                    directories[key] = f"{where.mounts[key]}/{inside.strip('/')}".rstrip("/")
        return cls(directories)

    def create(self) -> bool:
        """Make the directories; on version 2 hand the controllers down to them.

        Returns whether all of them are new.
        """
        new = True
        for directory, key in self._each.items():
            top = hierarchies().mounts.get(key, os.path.dirname(directory))
            new &= self._create_one(key, directory, top)
        return new

    def _create_one(self, key: str, directory: str, top: str) -> bool:
        for _ in range(100):
            try:
                # Mostly the parent is there already.
                os.mkdir(directory, 0o755)
                break
            except FileExistsError:
                return False
            except FileNotFoundError:
                parent = os.path.dirname(directory)
                if parent == directory or not parent.startswith(top):
                    raise
                # It may be removed again by another container's end: hence the loop.
                self._create_one(key, parent, top)
                _mark_as_made(parent)
        if self.directories.get("cpuset") == directory or key == "cpuset":
            _inherit_cpuset(directory)
        elif key == UNIFIED and self.unified:
            _delegate(os.path.dirname(directory))
        return True

    def join(self) -> None:
        """Move the calling, single-threaded process here.

        On version 1 a thread moves itself by ``tasks``: unlike ``cgroup.procs`` that takes no lock
        which waits for an RCU grace period, which saves milliseconds.
        """
        for directory, key in self._each.items():
            name = "cgroup.procs" if key == UNIFIED else "tasks"
            write(f"{directory}/{name}", "0")

    def add(self, pid: int) -> None:
        """Move a process here, with all its threads."""
        for directory in self._each:
            write(f"{directory}/cgroup.procs", str(pid))

    def processes(self) -> list[int]:
        """The pids in this group and those below it."""
        pids: set[int] = set()
        for top, _, _ in os.walk(self._main()):
            try:
                with open(f"{top}/cgroup.procs") as file:
                    pids.update(map(int, file.read().split()))
            except (FileNotFoundError, OSError):
                continue
        return sorted(pids)

    def _main(self) -> str:
        for key in ("pids", "memory", "freezer", UNIFIED):
            if key in self.directories:
                return self.directories[key]
        return next(iter(self.directories.values()), "/nonexistent")

    def kill(self) -> None:
        """Kill every process in the group; returns when the signals are sent."""
        unified = self.directories.get(UNIFIED)
        if unified and os.path.exists(f"{unified}/cgroup.kill"):
            try:
                write(f"{unified}/cgroup.kill", "1")
                return
            except FileNotFoundError:
                return
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        legacy = self.directories.get("freezer")
        if legacy and os.path.exists(legacy):
            # A frozen process of version 1 dies when it is thawed. (In version 2 it just dies.)
            try:
                write(f"{legacy}/freezer.state", "THAWED")
            except FileNotFoundError:
                pass

    def remove(self) -> None:
        """Remove the group, killing what is left in it; a group that is gone is fine.

        An empty parent that was made for it goes as well, so nothing stays on the host.
        """
        give_up = time.monotonic() + REMOVE_SECONDS
        for directory in self._each:
            while not _remove_tree(directory):
                if time.monotonic() > give_up:
                    raise OSError(errno.EBUSY, "the cgroup has processes left", directory)
                self.kill()
                time.sleep(0.002)
            _remove_made_parents(os.path.dirname(directory))

    def freeze(self) -> None:
        """Stop all processes; returns when they stand still. Raises OSError EBUSY if they don't."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let all processes go on."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        legacy = self.directories.get("freezer")
        if legacy:
            file, text = f"{legacy}/freezer.state", "FROZEN" if frozen else "THAWED"
        elif UNIFIED in self.directories:
            file = f"{self.directories[UNIFIED]}/cgroup.freeze"
            text = "1" if frozen else "0"
        else:
            raise OSError(errno.ENOTSUP, "this host has no freezer cgroup")
        give_up = time.monotonic() + FREEZE_SECONDS
        write(file, text)
        while self.frozen() != frozen:
            if time.monotonic() > give_up:
                if frozen:
                    write(file, "THAWED" if legacy else "0")
                raise OSError(errno.EBUSY, "the processes do not stand still", file)
            time.sleep(0.001)
            if legacy:
                # A version 1 freezer that was caught in between needs to be told again.
                write(file, text)

    def frozen(self) -> bool:
        """Whether all processes stand still."""
        legacy = self.directories.get("freezer")
        if legacy:
            return read(f"{legacy}/freezer.state") == "FROZEN"
        events = cgroup_stats.pairs(f"{self.directories[UNIFIED]}/cgroup.events")
        return events.get("frozen") == 1

    def apply(self, resources: Mapping[str, Any]) -> None:
        """Set limits: OCI runtime-spec ``linux.resources``; absent members stay as they are.

        Raises Invalid for a value that the kernel refuses, OSError for other failures (ENOTSUP
        where the host has no such controller), both with the file and the value; what was set
        before that is set back.
        """
        settings = (
            cgroup_limits.unified(resources, self._value)
            if self.unified
            else cgroup_limits.legacy(resources, self._value)
        )
        done: list[tuple[str, str]] = []
        try:
            for key, name, text in settings:
                directory = self.directories.get(key)
                if directory is None:
                    raise OSError(errno.ENOTSUP, f"this host has no {key} cgroup controller", name)
                present = self._value(key, name)
                write(f"{directory}/{name}", text)
                done.append((f"{directory}/{name}", present))
        except OSError as error:
            for path, present in reversed(done):
                _set_back(path, present)
            if error.errno in (errno.EINVAL, errno.ERANGE, errno.EOVERFLOW):
                raise Invalid(f"limit {name}: the kernel refuses {text}") from error
            raise

    def apply_devices(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Set the device allow-list: OCI runtime-spec ``linux.resources.devices``."""
        if "devices" in self.directories:
            for file, rows in groupby(cgroup_devices.legacy(rules), itemgetter(0)):
                write(f"{self.directories['devices']}/{file}", *(text for _, text in rows))
        elif self.unified:
            cgroup_devices.set_program(self.directories[UNIFIED], rules)

    def _value(self, key: str, name: str) -> str:
        try:
            return read(f"{self.directories[key]}/{name}")
        except (KeyError, OSError):
            return ""

    def stats(self) -> Stats:
        """Read resource use."""
        if self.unified:
            return cgroup_stats.unified(self.directories[UNIFIED])
        return cgroup_stats.legacy(self.directories)

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        if self.unified:
            return cgroup_stats.pairs(f"{self.directories[UNIFIED]}/memory.events").get(
                "oom_kill", 0
            )
        memory = self.directories.get("memory")
        return cgroup_stats.pairs(f"{memory}/memory.oom_control").get("oom_kill", 0)


def write(path: str, *texts: str) -> None:
    """Write values to a control file, one after another; the OSError names file and value."""
    text = ""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for text in texts:
                os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        number = _when_gone(error)
        raise OSError(number, f'write "{text or texts[0]}": {os.strerror(number)}', path) from error


def read(path: str) -> str:
    """The text of a control file, stripped. Raises OSError; FileNotFoundError without the group."""
    try:
        # Not by open(): all that it is made of would become a fresh process's own memory.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = iter(lambda: os.read(descriptor, 1 << 16), b"")
            return b"".join(parts).decode().strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        number = _when_gone(error)
        raise OSError(number, os.strerror(number), path) from error


def _when_gone(error: OSError) -> int:
    """ENOENT for the ENODEV of a file whose group is removed between its opening and its use."""
    number = error.errno or errno.EIO
    return errno.ENOENT if number == errno.ENODEV else number


def _inherit_cpuset(directory: str) -> None:
    """A new version 1 cpuset is empty, and no process may enter it: take the parent's."""
    parent = os.path.dirname(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{directory}/{name}"):
            write(f"{directory}/{name}", read(f"{parent}/{name}"))


def _set_back(path: str, text: str) -> None:
    # Files that take one row per device cannot be read back as they are written: these stay.
    try:
        write(path, text)
    except OSError:
        pass


#: An extended attribute of the groups that were made as the parent of another.
_MADE = "trusted.lading"


def _mark_as_made(directory: str) -> None:
    try:
        os.setxattr(directory, _MADE, b"1")
    except OSError:
        # Gone already, or a kernel without attributes there: then it just stays.
        pass


def _remove_made_parents(directory: str) -> None:
    try:
        while os.getxattr(directory, _MADE):
            os.rmdir(directory)
            directory = os.path.dirname(directory)
    except OSError:
        # Not ours, or in use.
        pass


def _delegate(parent: str) -> None:
    available = set(read(f"{parent}/cgroup.controllers").split())
    active = set(read(f"{parent}/cgroup.subtree_control").split())
    wanted = [f"+{name}" for name in WANTED if name in available - active]
    if wanted:
        write(f"{parent}/cgroup.subtree_control", " ".join(wanted))


def _remove_tree(directory: str) -> bool:
    """Remove a group with those below it; False when processes are still in it."""
    try:
        os.rmdir(directory)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    done = True
    for top, folders, _ in os.walk(directory, topdown=False):
        for folder in folders:
            try:
                os.rmdir(f"{top}/{folder}")
            except OSError:
                done = False
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return done
