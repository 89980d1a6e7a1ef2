"""The engine's face: everything that can be done with containers, by name or id.

``ref`` is a full id, a name (with or without a leading slash), or a unique prefix of an id. Every
method may be called from any thread. All raise NotFound for an unknown ``ref``; their other errors
are Docker's, in kind and wording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lading.archive import Change, PathStat
from lading.containers.options import (
    AttachOptions,
    CommitOptions,
    Listed,
    ListOptions,
    LogOptions,
    Output,
    Stream,
    Wait,
)
from lading.containers.records import Container, Created, Exec, Processes, Pruned, Size
from lading.images import Image
from lading.model.docker import ContainerConfig, ExecConfig, HostConfig, NetworkingConfig, Update


class Containers:
    """All containers of one daemon."""

    def create(
        self,
        name: str,
        config: ContainerConfig,
        host_config: HostConfig,
        networking: NetworkingConfig,
        platform: str = "",
    ) -> Created:
        """Make a container from an image, without starting it; "" gets a generated name.

        Raises Invalid for wrong or contradicting options, NotFound for the image or a network,
        Conflict for a name in use.
        """
        ...

    def get(self, ref: str) -> Container:
        """The record of a container, as it is now. Raises NotFound; Conflict when ambiguous."""
        ...

    def size(self, ref: str) -> Size:
        """Measure a container; may walk its layer."""
        ...

    def list(self, options: ListOptions) -> Sequence[Listed]:
        """List containers, newest first. Raises Invalid for an unknown filter."""
        ...

    def start(self, ref: str, checkpoint: str = "", checkpoint_dir: str = "") -> None:
        """Run it; returns once the program has been executed.

        Raises NotModified when it runs already, Conflict when paused or dead, StartFailed when
        the program cannot be executed: then the state keeps exit code and error.
        """
        ...

    def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Ask it to end, kill it after ``timeout`` seconds (-1: never). NotModified if stopped."""
        ...

    def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop and start it."""
        ...

    def kill(self, ref: str, signal: str = "") -> None:
        """Send a signal (name or number; KILL) to its init. Raises Conflict when not running."""
        ...

    def pause(self, ref: str) -> None:
        """Freeze its processes. Raises Conflict when paused already or not running."""
        ...

    def unpause(self, ref: str) -> None:
        """Thaw its processes. Raises Conflict when not paused."""
        ...

    def rename(self, ref: str, name: str) -> None:
        """Give it another name. Raises Invalid, Conflict."""
        ...

    def update(self, ref: str, update: Update) -> Sequence[str]:
        """Change limits and the restart policy, also while it runs; returns warnings."""
        ...

    def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove it; with ``volumes`` its anonymous volumes too, with ``force`` a running one.

        Raises Conflict when it runs, or is being removed already.
        """
        ...

    def wait(self, ref: str, condition: str = "not-running") -> Wait:
        """Promise the exit: ``not-running``, ``next-exit`` or ``removed``.

        The promise holds from the moment of the call, so that a start which follows is seen.
        Raises Invalid for another condition.
        """
        ...

    def logs(self, ref: str, options: LogOptions) -> Output:
        """Read what it has written. Raises Invalid, Unsupported (log driver "none")."""
        ...

    def attach(self, ref: str, options: AttachOptions) -> Stream:
        """Reach its streams, also before it is started. Raises Conflict when paused."""
        ...

    def resize(self, ref: str, rows: int, columns: int) -> None:
        """Set the size of its terminal. Raises Conflict when not running."""
        ...

    def exec_create(self, ref: str, config: ExecConfig) -> str:
        """Prepare a process in a running container and return its id. Raises Conflict."""
        ...

    def exec_start(
        self,
        exec_id: str,
        *,
        detach: bool = False,
        tty: bool | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> Stream | None:
        """Run a prepared process: at once with ``detach``, else when the stream is connected.

        Raises NotFound, Conflict when it ran already; with ``detach`` also StartFailed. On a
        connected stream a failure to start is written to the client, and is in ``exec_inspect``.
        """
        ...

    def exec_inspect(self, exec_id: str) -> Exec:
        """The record of an exec. Raises NotFound."""
        ...

    def exec_ids(self, ref: str) -> Sequence[str]:
        """The ids of a container's execs that run or wait."""
        ...

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of an exec's terminal."""
        ...

    def top(self, ref: str, ps_args: str = "-ef") -> Processes:
        """List its processes with ps(1)'s columns. Raises Conflict when not running."""
        ...

    def stats(self, ref: str, *, stream: bool, one_shot: bool = False) -> Iterator[dict[str, Any]]:
        """Yield readings of its resources as Docker's JSON, one a second when ``stream``."""
        ...

    def changes(self, ref: str) -> Sequence[Change]:
        """What differs from the image."""
        ...

    def export(self, ref: str) -> Iterator[bytes]:
        """Its whole root as a tar stream."""
        ...

    def archive_stat(self, ref: str, path: str) -> PathStat:
        """Look at one path of its root. Raises NotFound for the path."""
        ...

    def archive_get(self, ref: str, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """One path of its root as a tar stream."""
        ...

    def archive_put(
        self,
        ref: str,
        path: str,
        stream: Any,
        *,
        no_overwrite_dir_nondir: bool = False,
        copy_uidgid: bool = False,
    ) -> None:
        """Unpack a tar stream (an object with ``read(n)``) into a directory of its root.

        Raises NotFound, Invalid, Denied when that part of the root is read-only.
        """
        ...

    def commit(self, ref: str, options: CommitOptions) -> Image:
        """Make an image of it."""
        ...

    def prune(self, filters: Mapping[str, Sequence[str]]) -> Pruned:
        """Remove all stopped containers that pass the filters (``until``, ``label``)."""
        ...
