"""The backend object: the isolation contract in terms of lxc-start and lxc-attach."""

from __future__ import annotations

import errno
import json
import os
import select
import shlex
import shutil
import signal as signals
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lading.errors import Conflict, Invalid, NotFound, Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stats, Stdio
from lading.linux.cgroups import Cgroup
from lading.linux.mounts import mount_recipe
from lading.linux.namespaces import unshare_mounts
from lading_isolation_lxc import config, launch

_GATE = f"/bin/sh {shlex.quote(str(Path(__file__).with_name('gate.sh')))}"
_KEEP = str(Path(__file__).with_name("keep.sh"))
_PROGRAMS = ("lxc-start", "lxc-attach")


class Lxc:
    """Isolation through LXC."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"netns-path", "seccomp", "update", "pause", "devices"}
    )

    def __init__(self, context: Context) -> None:
        self.start_path, self.attach_path = (shutil.which(name) or name for name in _PROGRAMS)

    @hookimpl
    def probe(self) -> Probe:
        """Usable when both programs exist, for root."""
        for name in _PROGRAMS:
            if shutil.which(name) is None:
                return Probe(
                    usable=False,
                    reason=f'"{name}" is not installed',
                    remedy="install LXC 5 (Debian: apt-get install lxc)",
                )
        if os.geteuid() != 0:
            return Probe(usable=False, reason="not root", remedy="run the daemon as root")
        done = subprocess.run([self.start_path, "--version"], capture_output=True, check=False)
        version = done.stdout.decode(errors="replace").strip()
        if done.returncode != 0 or int(version.split(".")[0] or 0) < 5:
            return Probe(
                usable=False,
                reason=f'LXC "{version}" is older than 5.0',
                remedy="install LXC 5 or newer",
            )
        return Probe(usable=True, version=version, details={"binary": self.start_path})

    @hookimpl
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        """``lxc-start``, which the ``start-host`` hook holds before the program is executed."""
        spec = _spec(container)
        config.check(spec)
        state = container.state
        (state / "lxc" / container.id).mkdir(parents=True, exist_ok=True)
        for name in ("ready", "gate"):
            os.mkfifo(state / name, 0o600)
        (state / "lxc.conf").write_text(config.text(container, spec, _GATE))

        def mount_root() -> None:
            os.umask(spec["process"]["user"].get("umask", 0o022))
            unshare_mounts()
            mount_recipe(rootfs, container.bundle / "rootfs")

        words = ["/bin/sh", _KEEP, str(state / "log"), self.start_path, "-F", "-q"]
        words += self._common(container, "log", "INFO")
        words += ["-f", str(state / "lxc.conf"), "--", *spec["process"]["args"]]
        keeper, console = launch.spawn(words, stdio, mount_root)
        (state / "keeper").write_text(str(keeper))
        try:
            pid = self._await_ready(container, keeper)
            (state / "pid").write_text(str(pid))
            self._limit(spec, pid)
        except BaseException:
            if console >= 0:
                os.close(console)
            self.delete(container=container)
            os.waitpid(keeper, 0)
            raise
        return Started(pid, keeper, console)

    def _common(self, container: Container, log: str, level: str) -> list[str]:
        state = container.state
        name = [f"--name={container.id}", f"--lxcpath={state / 'lxc'}"]
        return [*name, f"--logfile={state / log}", f"--logpriority={level}"]

    def _await_ready(self, container: Container, keeper: int) -> int:
        """The init's pid, once everything but the program's execution is done."""
        ready = os.open(container.state / "ready", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        pidfd = os.pidfd_open(keeper)
        try:
            found, _, _ = select.select([ready, pidfd], [], [], launch.DEADLINE)
            if ready in found:
                return int(os.read(ready, 32))
        finally:
            os.close(ready)
            os.close(pidfd)
        try:
            number, reason, name = json.loads((container.state / "error").read_text())
        except FileNotFoundError:
            launch.raise_failure(container.state / "log", only_exec=False)
        raise OSError(number, reason, name)

    def _limit(self, spec: Mapping[str, Any], pid: int) -> None:
        resources = (spec.get("linux") or {}).get("resources") or {}
        group = Cgroup.of_process(pid)
        group.apply({k: v for k, v in resources.items() if k != "devices"})
        if rules := resources.get("devices"):
            group.apply_devices(rules)
        if score := spec["process"].get("oomScoreAdj"):
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))

    @hookimpl
    def start(self, container: Container) -> None:
        """Open the gate, and see the program executed."""
        pid, keeper = _number(container, "pid"), _number(container, "keeper")
        try:
            gate = os.open(container.state / "gate", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Conflict(f'container "{container.id}" was started already') from error
        try:
            os.write(gate, b"go\n")
            launch.await_execution(lambda: pid, keeper, self.start_path, container.state / "log")
        finally:
            os.close(gate)
            (container.state / "gate").unlink(missing_ok=True)

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """``lxc-attach``, with the init's capabilities and filter."""
        if not os.path.exists(f"/proc/{_number(container, 'pid')}/ns/mnt"):
            raise Conflict(f'container "{container.id}" is not running')
        self._check_exec(container, process)
        log = f"exec-{os.getpid()}-{os.urandom(4).hex()}"
        words = [self.attach_path, "-q", *self._common(container, log, "ERROR"), "--clear-env"]
        words += [f"--rcfile={container.state / 'lxc.conf'}"]
        user = process.get("user") or {}
        words += [f"--uid={user.get('uid', 0)}", f"--gid={user.get('gid', 0)}"]
        words += [f"--set-var={row}" for row in process.get("env") or ()]
        cwd = process.get("cwd") or "/"
        words += ["--", *process["args"]]
        keeper, console = launch.spawn(words, stdio, lambda: _enter_like(cwd))
        try:
            pid = launch.await_execution(
                lambda: launch.child_of(keeper), keeper, self.attach_path, container.state / log
            )
        except BaseException:
            if console >= 0:
                os.close(console)
            os.waitpid(keeper, 0)
            raise
        finally:
            (container.state / log).unlink(missing_ok=True)
        return Started(pid, keeper, console)

    def _check_exec(self, container: Container, process: Mapping[str, Any]) -> None:
        config.check_process(process)
        wanted = (process.get("capabilities") or {}).get("bounding")
        own = (_spec(container)["process"].get("capabilities") or {}).get("bounding")
        if wanted is not None and set(wanted) != set(own or ()):
            raise Unsupported('isolation "lxc" gives a later process the capabilities of the init')

    @hookimpl
    def signal(self, container: Container, signal: int, everyone: bool) -> None:
        """Signal the init, or all processes of the cgroup; a frozen container is thawed to die."""
        pid = _number(container, "pid")
        pids = self.processes(container=container) if everyone else [pid]
        try:
            frozen = signal == signals.SIGKILL and Cgroup.of_process(pid).frozen()
            for each in pids:
                os.kill(each, signal)
        except (ProcessLookupError, FileNotFoundError) as error:
            if not everyone:
                raise NotFound(f'the init of container "{container.id}" has ended') from error
            return
        if frozen:
            try:
                self.resume(container=container)
            except FileNotFoundError:
                pass  # lxc-start has removed the group of a container that died at once

    @hookimpl
    def pause(self, container: Container) -> None:
        """Freeze the cgroup."""
        _group(container).freeze()

    @hookimpl
    def resume(self, container: Container) -> None:
        """Thaw the cgroup."""
        _group(container).thaw()

    @hookimpl
    def update(self, container: Container, resources: Mapping[str, Any]) -> None:
        """Write the cgroup's limits."""
        try:
            _group(container).apply(resources)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ERANGE):
                raise
            raise Invalid(f'update container "{container.id}": {error.strerror}') from error

    @hookimpl
    def processes(self, container: Container) -> Sequence[int]:
        """The pids in the container's cgroup."""
        return _group(container).processes()

    @hookimpl
    def stats(self, container: Container) -> Stats:
        """Read from the cgroup."""
        return _group(container).stats()

    @hookimpl
    def delete(self, container: Container) -> None:
        """Kill and remove all groups; the root went with lxc-start's mount namespace."""
        try:
            path = str(_spec(container)["linux"]["cgroupsPath"])
        except FileNotFoundError:
            return
        for suffix in (".monitor", "", ".pivot"):
            Cgroup.at(path + suffix).remove()
        for name in ("ready", "gate", "pid", "keeper", "error", "lxc.conf", "seccomp", "log"):
            (container.state / name).unlink(missing_ok=True)
        shutil.rmtree(container.state / "lxc", ignore_errors=True)


def _enter_like(cwd: str) -> None:
    """Have a working directory of that name: lxc-attach enters its namesake in the container.

    Where the host lacks it, it is made on a view of the host's root that nobody else sees.
    """
    if os.path.isdir(cwd):
        os.chdir(cwd)
        return
    unshare_mounts()
    above = Path(cwd)
    while not above.is_dir():
        above = above.parent
    if above != Path("/"):
        from lading.linux.mounts import mount_one

        mount_one(Mount("tmpfs", "tmpfs", ("mode=755",)), str(above))
        os.makedirs(cwd)
    os.chdir(cwd)


def _spec(container: Container) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((container.bundle / "config.json").read_text())
    return spec


def _number(container: Container, name: str) -> int:
    try:
        return int((container.state / name).read_text())
    except (OSError, ValueError) as error:
        raise NotFound(f'container "{container.id}" was not created') from error


def _group(container: Container) -> Cgroup:
    return Cgroup.at(_spec(container)["linux"]["cgroupsPath"])
