"""What the tests of the isolation kit work with: a backend, a stand-in for the monitor, a root.

``create``, ``start`` and ``exec`` run in a :class:`Keeper`, a forked, single-threaded process that
is the parent of what they start, as the contract has it; all other hooks run in the test's own
process, as they do in the daemon.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lading.hooks.common import Context, Mount
from lading.hooks.isolation import Container, Isolation, Started, Stats, Stdio
from lading.linux.cgroups import Cgroup, hierarchies
from lading.testing._isolation_keeper import Keeper, Streams
from lading.testing.daemon import BUSYBOX

Factory = Callable[[Context], Any]
Json = dict[str, Any]
Edit = Callable[[Json], object]
Kinds = type[Exception] | tuple[type[Exception], ...]

SAFE = ("nosuid", "noexec", "nodev")
CAPABILITIES = ("CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_MKNOD", "CAP_NET_RAW")
DEVICE_RULES = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    *({"allow": True, "type": "c", "major": 1, "minor": n, "access": "rwm"} for n in (3, 5, 7, 8)),
    {"allow": True, "type": "c", "major": 5, "access": "rwm"},
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
)
NAMESPACES = ("mount", "pid", "ipc", "uts", "network", "cgroup")

_serial = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    """How a process ended (128 + signal for a killed one), and what it wrote."""

    code: int
    out: str
    err: str


@dataclass
class Box:
    """One container of a test."""

    case: Case
    container: Container
    keeper: Keeper
    streams: Streams | None = None
    started: Started | None = None
    ended: bool = False

    @property
    def pid(self) -> int:
        """The init's pid on the host."""
        assert self.started is not None
        return self.started.pid

    def create(self, rootfs: Sequence[Mount], terminal: bool) -> None:
        """Call ``create`` with pipes, or for a terminal with nothing."""
        if terminal:
            self._create((), rootfs, Stdio(terminal=True))
            return
        with Streams.pipes() as (ours, theirs):
            self._create(theirs, rootfs, None)
            self.streams = ours

    def _create(self, streams: Sequence[int], rootfs: Sequence[Mount], stdio: Stdio | None) -> None:
        self.started = self.keeper.call(
            "create", streams, container=self.container, rootfs=rootfs, stdio=stdio
        )

    def start(self) -> None:
        """Call ``start``."""
        self.keeper.call("start", container=self.container)

    def finish(self, data: bytes = b"") -> Outcome:
        """Read the output to its end and wait for the init."""
        out, err = self.streams.finish(data) if self.streams else ("", "")
        return Outcome(self.wait(), out, err)

    def wait(self) -> int:
        """Wait for the init; its exit code, 128 + signal when it was killed."""
        assert self.started is not None
        self.ended = True
        return _code(self.keeper.call("wait", pid=self.started.wait_pid))

    def line(self) -> str:
        """The next line that the init writes."""
        assert self.streams is not None
        return self.streams.line()

    def exec(self, *args: str, **changes: Any) -> Outcome:
        """Run one more process to its end; ``changes`` are members of OCI ``process``."""
        process = self.case.process(args) | changes
        with Streams.pipes() as (ours, theirs):
            started = self.keeper.call(
                "exec", theirs, container=self.container, process=process, stdio=None
            )
        out, err = ours.finish()
        return Outcome(_code(self.keeper.call("wait", pid=started.wait_pid)), out, err)

    def stats(self) -> Stats:
        """Call ``stats``."""
        return self.case.backend.stats(container=self.container)

    def processes(self) -> Sequence[int]:
        """Call ``processes``."""
        return self.case.backend.processes(container=self.container)

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Call ``signal``."""
        self.case.backend.signal(container=self.container, signal=number, everyone=everyone)

    def delete(self) -> None:
        """Call ``delete``."""
        self.case.backend.delete(container=self.container)


def _name(kind: Kinds) -> str:
    return " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))


def _code(status: int) -> int:
    return status if status >= 0 else 128 - status


@dataclass
class Case:
    """One test's backend, and the containers it has made."""

    backend: Isolation
    root: Path
    rule: str
    boxes: list[Box] = field(default_factory=list)

    @classmethod
    def make(cls, factory: Factory, root: Path, rule: str, context: Context) -> Case:
        """A case below ``root``; skips, saying why, when the host cannot run the backend."""
        for place in (context.data, context.run):
            place.mkdir(mode=0o700)
        backend = factory(context)
        probe = backend.probe()
        if not probe.usable:
            pytest.skip(f"{probe.reason} ({probe.remedy})")
        case = cls(backend, root, rule)
        _fill(case.tree)
        return case

    @property
    def tree(self) -> Path:
        """The directory that is the root of this test's containers."""
        return self.root / "tree"

    @property
    def cgroup_parent(self) -> str:
        """The control group that all containers of this process's tests are below."""
        return f"lading-kit-{os.getpid()}"

    def can(self, capability: str) -> None:
        """Skip unless the backend declares a capability."""
        if capability not in self.backend.capabilities:
            pytest.skip(f'the backend does not declare "{capability}"')

    def expect(self, expected: object, got: object) -> None:
        """Fail with both values and the rule when they differ."""
        assert expected == got, f"expected {expected!r}, got {got!r}; rule: {self.rule}"

    def refused(self, kind: Kinds, call: Callable[[], object]) -> Exception:
        """Fail with the rule unless the call raises an error of this kind; return it."""
        try:
            got = call()
        except kind as error:
            return error
        except Exception as error:
            raise AssertionError(
                f"expected {_name(kind)}, got {error!r}; rule: {self.rule}"
            ) from error
        raise AssertionError(f"expected {_name(kind)}, got {got!r}; rule: {self.rule}")

    def process(self, args: Sequence[str]) -> Json:
        """OCI ``process``: root with a few capabilities."""
        return {
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
        }

    def config(self, identity: str, args: Sequence[str]) -> Json:
        """A config.json like that of an ordinary container."""
        return {
            "ociVersion": "1.0.2",
            "process": self.process(args),
            "root": {"path": "rootfs", "readonly": False},
            "hostname": "inside",
            "mounts": list(_mounts()),
            "linux": {
                "namespaces": [{"type": kind} for kind in NAMESPACES],
                "cgroupsPath": f"/{self.cgroup_parent}/{identity}",
                "resources": {"devices": list(DEVICE_RULES)},
            },
        }

    def box(self, *args: str, edit: Edit | None = None, rootfs: Sequence[Mount] = ()) -> Box:
        """A created container; ``edit`` changes its config.json beforehand."""
        identity = f"kit{os.getpid()}n{next(_serial)}"
        bundle = self.root / identity
        (bundle / "rootfs").mkdir(parents=True)
        (bundle / "state").mkdir(mode=0o700)
        config = self.config(identity, args)
        if edit is not None:
            edit(config)
        (bundle / "config.json").write_text(json.dumps(config))
        container = Container(identity, bundle, bundle / "state")
        box = Box(self, container, Keeper(self.backend))
        self.boxes.append(box)
        recipe = rootfs or (Mount("bind", str(self.tree), ("rbind", "rprivate")),)
        box.create(recipe, bool(config["process"].get("terminal")))
        return box

    def running(self, *args: str, edit: Edit | None = None) -> Box:
        """A started container."""
        box = self.box(*args, edit=edit)
        box.start()
        return box

    def sleeping(self, edit: Edit | None = None) -> Box:
        """A started container that does nothing for long."""
        return self.running("sleep", "1000", edit=edit)

    def run(self, *args: str, edit: Edit | None = None, data: bytes = b"") -> Outcome:
        """Run a container to its end and delete it."""
        box = self.running(*args, edit=edit)
        outcome = box.finish(data)
        box.delete()
        return outcome

    def sh(self, script: str, edit: Edit | None = None) -> str:
        """What a shell script, run as a container, writes; fails when it fails."""
        outcome = self.run("sh", "-c", script, edit=edit)
        assert outcome.code == 0, f"{script!r}: {outcome}; rule: {self.rule}"
        return outcome.out.rstrip("\n")

    def close(self) -> None:
        """Delete what the test made."""
        for box in self.boxes:
            try:
                box.delete()
            finally:
                box.keeper.close()
        # The parent of all their groups, which some backends leave, and what a broken one forgot.
        tops = hierarchies().mounts
        Cgroup({key: f"{top}/{self.cgroup_parent}" for key, top in tops.items()}).remove()


def _mounts() -> Iterator[Json]:
    for where, kind, options in (
        ("/proc", "proc", SAFE),
        ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
        ("/dev/shm", "tmpfs", (*SAFE, "mode=1777", "size=1m")),
        ("/dev/mqueue", "mqueue", SAFE),
        ("/sys", "sysfs", (*SAFE, "ro")),
        ("/sys/fs/cgroup", "cgroup", (*SAFE, "ro")),
    ):
        yield {"destination": where, "type": kind, "source": kind, "options": list(options)}


def _fill(tree: Path) -> None:
    """A root with busybox, its applets, and a few places of a usual image."""
    if not os.path.exists(BUSYBOX):
        pytest.skip(f"{BUSYBOX} is missing (install busybox-static)")
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
        (tree / name).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    for applet in _applets():
        (tree / "bin" / applet).symlink_to("busybox")


def _applets() -> Sequence[str]:
    if not _APPLETS:
        listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
        _APPLETS.extend(name for name in listed.stdout.split() if name != "busybox")
    return _APPLETS


_APPLETS: list[str] = []


class KitBase:
    """Fixtures that every part of the kit has."""

    #: The backend's short name and its table in the configuration.
    name: str = "conformance"
    options: Mapping[str, Any] = {}

    @pytest.fixture
    def factory(self) -> Factory:
        """The maker of the backend: what a subclass must give."""
        raise NotImplementedError("give a fixture `factory` that returns the backend's class")

    @pytest.fixture
    def case(self, factory: Factory, request: pytest.FixtureRequest) -> Iterator[Case]:
        """The test's own backend, and the rule that the test's docstring states."""
        rule = " ".join((request.function.__doc__ or "").split())
        # Not pytest's own place, through which only root may walk.
        root = Path(tempfile.mkdtemp(prefix="lading-kit-"))
        root.chmod(0o711)
        try:
            context = Context(self.name, root / "data", root / "run", self.options)
            made = Case.make(factory, root, rule, context)
            yield made
            made.close()
        finally:
            shutil.rmtree(root)
