"""The isolation role: run a container's processes, apart from the host's.

Life cycle (OCI runtime-spec, "Runtime and Lifecycle")::

    create ──▶ created ──start──▶ running ◀──pause/resume──▶ paused
                  │                  │ the init process ends
                  └────── delete ────┴──▶ stopped ──delete──▶ (gone)

Glossary

``container``  a :class:`Container`: its id, its bundle and the directory for the backend's
               own run state. All hooks take it; a backend must find its way from nothing
               else, since the daemon may have been restarted between two calls.
``bundle``     directory with ``config.json`` (OCI runtime-spec 1.2), written by the core.
               ``root.path`` is ``rootfs`` under the bundle, an empty directory.
``rootfs``     the recipe that becomes the root: mounts that the backend makes on the
               container's root *inside the container's mount namespace* (or one of its own),
               so that the host's mount table stays as it was. A source may be a block device,
               which the container's own list of devices does not have.
``init``       the container's first process.

Where hooks run. ``create``, ``start`` and ``exec`` run in single-threaded children of the
container's monitor: ``create`` and the ``start`` after it in one, so that an object may keep in
memory what leads from one to the other, each ``exec`` in one of its own. Such a child ends when the
hook has returned; what it has started becomes a child of the monitor (a subreaper), which waits
for it and owns its stdio. One that takes longer than the configuration's ``hook-timeout`` gets a
TimeoutError, and is killed when it goes on all the same. ``stats`` is called once more by the
monitor at the end, within 2 seconds. The other hooks run in the daemon, from any thread, also after
a daemon restart. A call for one container is never made twice at the same time by
``create``/``start``/``delete``.

Worked walk: ``docker run``. The daemon writes the bundle and has a network namespace at
hand, named in ``config.json``. The spawner forks a monitor, whose child calls ``create`` and, once
the daemon has attached what needs attaching, ``start``. The monitor sees the init end through
:attr:`Started.wait_pid`, writes the status down, tells the daemon, which calls ``delete``.

Errors. Every hook may raise :class:`~lading.errors.LadingError` or ``OSError``. After a
failed ``create`` nothing is left behind: no process, cgroup, mount or file outside
``Container.state``. ``Unsupported`` is raised by ``create`` *before anything starts* when
``config.json`` asks for what the backend cannot hold; it never runs a container with less
isolation than asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lading.hooks.common import Mount, Probe, hookspec

SPEC_VERSION = 1


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the backend sees it.

    ``state`` is a directory on tmpfs, made before ``create`` and removed after ``delete``;
    the backend keeps there what later calls need (for instance pid and start time).
    """

    id: str
    bundle: Path
    state: Path


@dataclass(frozen=True, slots=True)
class Stdio:
    """The process's standard streams, as descriptors of the calling process.

    Without ``terminal`` the three become 0, 1 and 2. With it they are unused (-1); the
    backend allocates a pseudo-terminal from the *container's* devpts, makes it the
    controlling terminal, and returns the master in :attr:`Started.console`. The caller keeps
    ownership of all descriptors that it passes.
    """

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """A process that exists.

    ``pid`` is the process itself, in the host's pid namespace; ``wait_pid`` the child (or orphaned
    descendant) of the caller whose exit status is the process's (often the same). ``console`` is
    the master descriptor of its terminal, owned by the caller from now on, or -1.
    """

    pid: int
    wait_pid: int
    console: int = -1


@dataclass(frozen=True, slots=True)
class Stats:
    """A reading of a container's resources; sizes in bytes, times in nanoseconds.

    ``memory_limit`` is 0 for none. ``io`` maps ``"major:minor"`` to counters named
    ``read_bytes write_bytes reads writes``. ``memory_stat`` are the kernel's own rows
    (memory.stat), as they are. ``oom_kills`` counts since create.
    """

    cpu_usage: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_percpu: Sequence[int] = ()
    throttled_periods: int = 0
    throttled_time: int = 0
    periods: int = 0
    memory_usage: int = 0
    memory_max_usage: int = 0
    memory_limit: int = 0
    memory_stat: Mapping[str, int] = field(default_factory=dict)
    oom_kills: int = 0
    pids: int = 0
    pids_limit: int = 0
    io: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Isolation(Protocol):
    """The hooks every isolation backend has.

    Capabilities (optional specs of their own, or promises about ``config.json``):
    ``checkpoint`` (:class:`Checkpoint`); ``userns`` (linux.namespaces "user" and id mappings
    are honoured, also by mounts of ``rootfs`` with the option ``idmap``); ``netns-path`` (a
    "network" namespace may name a path); ``seccomp``, ``update``, ``pause``, ``devices``,
    ``hooks`` (OCI hooks are run at their points, with the state on stdin, their ``env`` alone and
    within their ``timeout``. One that fails at ``prestart``, ``createRuntime`` or
    ``createContainer`` makes ``create`` fail. After one that fails at ``startContainer`` or
    ``poststart`` the container does not go on: ``create`` or ``start`` raises, or the init ends
    with an exit code that is not 0. One that fails at ``poststop`` is only warned of);
    ``init`` (:data:`INIT_ANNOTATION`: process 1 is the backend's, forwards signals, reaps orphans,
    and ends as its child, the user's program, has ended);
    ``rshared`` (linux.rootfsPropagation may be "shared").
    """

    spec_version: ClassVar[int]
    capabilities: ClassVar[frozenset[str]]

    @hookspec(firstresult=True)
    def probe(self) -> Probe:
        """Tell whether this backend works here; at most 1 s, no lasting effect."""
        ...

    @hookspec(firstresult=True)
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        """Set up namespaces, cgroup and root, and an init that waits to be started.

        Runs in the monitor. When it returns, ``/proc/<pid>/ns/*`` are the container's and the
        user's program has not been executed. Called once per life of the container.

        Raises Unsupported for a config it cannot hold, StartFailed when the program,
        its working directory or its user is found wrong already now, OSError otherwise.
        """
        ...

    @hookspec(firstresult=True)
    def start(self, container: Container) -> None:
        """Let the init execute the user's program; returns when ``execve`` succeeded.

        Raises StartFailed with ``errno`` when the program cannot be executed (the init has
        then ended with 127 for ENOENT and 126 otherwise), Conflict when not in state created.
        """
        ...

    @hookspec(firstresult=True)
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """Run one more process in a running container; returns when ``execve`` succeeded.

        ``process`` is an OCI runtime-spec ``process`` object; its ``terminal`` agrees with
        ``stdio``. Runs in the monitor, any number at a time.

        Raises StartFailed with ``errno``, Conflict when the container is not running.
        """
        ...

    @hookspec(firstresult=True)
    def signal(self, container: Container, signal: int, everyone: bool) -> None:
        """Send a signal (number) to the init, or to every process when ``everyone``.

        A frozen container gets SIGKILL too. Raises NotFound when the init has ended.
        """
        ...

    @hookspec(firstresult=True)
    def pause(self, container: Container) -> None:
        """Freeze all processes; returns when they stand still. A second call does nothing.

        Raises NotFound when the init has ended, OSError when they do not stand still.
        """
        ...

    @hookspec(firstresult=True)
    def resume(self, container: Container) -> None:
        """Thaw all processes; on a container that is not frozen it does nothing.

        Raises NotFound when it was not created, or is deleted.
        """
        ...

    @hookspec(firstresult=True)
    def update(self, container: Container, resources: Mapping[str, Any]) -> None:
        """Change limits of a created or running container: all of them or none.

        ``resources`` is OCI runtime-spec ``linux.resources``; absent members stay as they
        are. Raises Invalid for a value the kernel refuses, naming it; Unsupported.
        """
        ...

    @hookspec(firstresult=True)
    def processes(self, container: Container) -> Sequence[int]:
        """List the host pids of all processes of the container, threads left out.

        Raises NotFound when it was not created, or is deleted.
        """
        ...

    @hookspec(firstresult=True)
    def stats(self, container: Container) -> Stats:
        """Read the container's resource use; at most a few milliseconds.

        Also after its init has ended, until ``delete``: how it ended may be told from it.
        Raises NotFound when it was not created, or is deleted.
        """
        ...

    @hookspec(firstresult=True)
    def delete(self, container: Container) -> None:
        """Kill what still runs and remove every trace: cgroups, mounts, state.

        May be called in any state, again after a crash, and for a container that never
        came to be; it then succeeds silently. Raises OSError for what cannot be removed.
        """
        ...


class Checkpoint(Protocol):
    """Capability ``checkpoint``: write a running container's processes to disk and back."""

    @hookspec(firstresult=True)
    def checkpoint(self, container: Container, images: Path, leave_running: bool) -> None:
        """Dump all processes into the directory ``images``. Raises Unsupported, OSError."""
        ...

    @hookspec(firstresult=True)
    def restore(
        self, container: Container, rootfs: Sequence[Mount], images: Path, stdio: Stdio
    ) -> Started:
        """Like ``create`` and ``start`` in one, from ``images``. Runs in the monitor.

        Raises Unsupported, OSError.
        """
        ...


#: The annotation of config.json that is "true" for a container that wants such an init.
INIT_ANNOTATION = "org.lading.init"

OPTIONAL: Mapping[str, type] = {"checkpoint": Checkpoint}

#: What each capability promises; a request that needs one which the backend lacks is refused.
CAPABILITIES: Mapping[str, str] = {
    "checkpoint": "running containers are written to disk and back",
    "userns": "user namespaces and id mappings are honoured",
    "netns-path": "a container may join a network namespace that a path names",
    "seccomp": "system calls are filtered by config.json's profile",
    "update": "limits of a running container can be changed",
    "pause": "all processes of a container can be frozen and thawed",
    "devices": "access to devices is held to config.json's list",
    "hooks": "OCI hooks of config.json are run",
    "rshared": "what is mounted in a container's volume can appear on the host",
    "init": "process 1 can be an init that reaps, with the user's program as its child",
}
