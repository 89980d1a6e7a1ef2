"""The backend object: the isolation contract in terms of one runtime binary's commands."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal as signals
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lading.bundle.control import set_limits
from lading.errors import LadingError, NotFound
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stats, Stdio
from lading.linux.cgroups import UNIFIED, Cgroup, hierarchies
from lading.linux.mounts import IDMAP, mount_recipe
from lading.linux.namespaces import IdMap, new_user_namespace, unshare_mounts
from lading_isolation_oci.binary import Binary, read_pid

log = logging.getLogger(__name__)

#: Binaries whose name is not the backend's.
USUAL_BINARIES = {"kata": "kata-runtime"}


def _unwanted() -> str:
    """What crun must not see: it refuses a host with both versions of cgroups when the second has
    any controller, and works with the first alone (crun's libcrun/cgroup-utils.c)."""
    found = hierarchies()
    return found.mounts[UNIFIED] if found.mode == "hybrid" else ""


def _config(container: Container) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((container.bundle / "config.json").read_bytes())
    return found


def _id_maps(container: Container) -> tuple[IdMap, IdMap]:
    linux = _config(container).get("linux") or {}

    def rows(member: str) -> IdMap:
        members = ("containerID", "hostID", "size")
        return [tuple(row[m] for m in members) for row in linux.get(member) or ()]

    return rows("uidMappings"), rows("gidMappings")


class Runtime:
    """Isolation through an OCI runtime binary."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"userns", "netns-path", "seccomp", "update", "pause", "devices", "hooks", "rshared"}
    )

    def __init__(self, context: Context) -> None:
        wanted = str(context.options.get("path", USUAL_BINARIES.get(context.name, context.name)))
        self.name = context.name
        self.wanted = wanted
        arguments = tuple(str(a) for a in context.options.get("arguments", ()))
        self.crun = os.path.basename(wanted).startswith("crun")
        hidden = _unwanted() if self.crun else ""
        self.binary = Binary(shutil.which(wanted) or wanted, arguments, hidden)

    @hookimpl
    def probe(self) -> Probe:
        """Usable when the binary exists and tells its version."""
        if shutil.which(self.wanted) is None:
            return Probe(
                usable=False,
                reason=f'the runtime binary "{self.wanted}" is not installed',
                remedy=f"install the package that brings {self.wanted}, or set "
                f"isolation.{self.name}.path in the configuration",
            )
        done = subprocess.run([self.binary.path, "--version"], capture_output=True, check=False)
        lines = done.stdout.decode(errors="replace").splitlines()
        if done.returncode != 0 or not lines:
            return Probe(
                usable=False,
                reason=f'"{self.binary.path} --version" failed with exit code {done.returncode}',
                remedy=f"reinstall {self.wanted}",
            )
        return Probe(
            usable=True, version=lines[0].split()[-1], details={"binary": self.binary.path}
        )

    @hookimpl
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        """``create``: the root is mounted where only the binary and its init see it."""
        target = container.bundle / "rootfs"

        def mount_root() -> None:
            mapped = any(IDMAP & set(entry.options) for entry in rootfs)
            # Not the container's own, which the binary is yet to make, but one with its maps.
            userns = new_user_namespace(*_id_maps(container)) if mapped else -1
            unshare_mounts()
            mount_recipe(rootfs, target, userns)

        pid_file = container.state / "pid"
        words = ("create", f"--bundle={container.bundle}", f"--pid-file={pid_file}", container.id)
        try:
            console = self.binary.launch(container, words, stdio, mount_root)
        except Exception:
            self.delete(container)
            path = (_config(container).get("linux") or {}).get("cgroupsPath")
            if self.crun and path:
                # crun forgets it when it is a limit that the kernel refused.
                Cgroup.at(path).remove()
            raise
        pid = read_pid(pid_file)
        return Started(pid, pid, console)

    @hookimpl
    def start(self, container: Container) -> None:
        """``start``."""
        self.binary.call(container, "start", container.id)

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """``exec --detach``: the process becomes the monitor's child when the binary ends."""
        stem = container.state / f"exec-{os.getpid()}-{os.urandom(4).hex()}"
        description, pid_file = stem.with_suffix(".json"), stem.with_suffix(".pid")
        description.write_text(json.dumps(process))
        words = (
            "exec",
            "--detach",
            f"--process={description}",
            f"--pid-file={pid_file}",
            container.id,
        )
        score = process.get("oomScoreAdj")

        def set_score() -> None:
            # The binaries do not for an exec, and what they start inherits theirs.
            if score is not None:
                Path("/proc/self/oom_score_adj").write_text(str(score))

        try:
            console = self.binary.launch(container, words, stdio, set_score)
            pid = read_pid(pid_file)
        finally:
            description.unlink(missing_ok=True)
            pid_file.unlink(missing_ok=True)
        return Started(pid, pid, console)

    @hookimpl
    def signal(self, container: Container, signal: int, everyone: bool) -> None:
        """Signal the init, or all processes of the cgroup; a frozen container is thawed to die."""
        pids = self.processes(container=container) if everyone else [self._init(container)]
        if not pids:
            raise NotFound(f'container "{container.id}" has no process')
        for pid in pids:
            try:
                os.kill(pid, signal)
            except ProcessLookupError as error:
                if not everyone:
                    raise NotFound(f'the init of container "{container.id}" has ended') from error
        if signal == signals.SIGKILL and self._is_paused(container):
            self.resume(container=container)

    @hookimpl
    def pause(self, container: Container) -> None:
        """``pause``."""
        if self._status(container) != "paused":
            self.binary.call(container, "pause", container.id)

    @hookimpl
    def resume(self, container: Container) -> None:
        """``resume``."""
        if self._status(container) == "paused":
            self.binary.call(container, "resume", container.id)

    @hookimpl
    def update(self, container: Container, resources: Mapping[str, Any]) -> None:
        """``update`` with the resources on standard input."""
        if self.crun:
            # It leaves what it has set already when the kernel refuses the next value.
            set_limits(container, self._cgroup(container), resources)
            return
        document = json.dumps(resources).encode()
        self.binary.call(container, "update", "--resources=-", container.id, stdin=document)

    @hookimpl
    def processes(self, container: Container) -> Sequence[int]:
        """The pids in the container's cgroup."""
        return self._cgroup(container).processes()

    @hookimpl
    def stats(self, container: Container) -> Stats:
        """Read from the cgroup: quicker than the binary's ``events``, and the same everywhere."""
        return self._cgroup(container).stats()

    @hookimpl
    def delete(self, container: Container) -> None:
        """``delete --force``; what the binary does not know is gone already."""
        try:
            self.binary.call(container, "delete", "--force", container.id)
        except (NotFound, FileNotFoundError):
            pass
        except LadingError as error:
            # runc since 1.3 runs these hooks last, and fails with them.
            if not (self._has_poststop(container) and self._is_gone(container)):
                raise
            log.warning("container %s is deleted, although: %s", container.id, error)
        shutil.rmtree(container.state / "runtime", ignore_errors=True)
        for name in ("pid", "log.json"):
            (container.state / name).unlink(missing_ok=True)

    def _init(self, container: Container) -> int:
        try:
            return read_pid(container.state / "pid")
        except (OSError, ValueError) as error:
            raise NotFound(f'container "{container.id}" was not created') from error

    def _cgroup(self, container: Container) -> Cgroup:
        """By its name where config.json has one: the init's own word ends with it."""
        pid = self._init(container)
        path = (_config(container).get("linux") or {}).get("cgroupsPath")
        return Cgroup.at(path) if path else Cgroup.of_process(pid)

    def _has_poststop(self, container: Container) -> bool:
        return bool((_config(container).get("hooks") or {}).get("poststop"))

    def _is_gone(self, container: Container) -> bool:
        """Whether the binary has forgotten it and none of its processes is left."""
        try:
            self._status(container)
        except NotFound:
            path = (_config(container).get("linux") or {}).get("cgroupsPath")
            return not (path and Cgroup.at(path).processes())
        return False

    def _is_paused(self, container: Container) -> bool:
        """Whether it is frozen; no longer, when it has ended and was deleted meanwhile."""
        try:
            return self._status(container) == "paused"
        except NotFound:
            return False
        except LadingError:
            if (container.state / "pid").exists():
                raise
            return False

    def _status(self, container: Container) -> str:
        state = json.loads(self.binary.call(container, "state", container.id))
        status = state.get("status")
        if not isinstance(status, str):
            raise LadingError(f"state of container {container.id}: no status in the answer")
        return status
