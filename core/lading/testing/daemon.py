"""A real ``ladingd`` on scratch directories, its clients, and proof that it left nothing behind.

Used by the tests, the demo and the benchmarks; nothing here knows the engine's inside. All paths,
the bridge and the socket are the daemon's own, so it runs beside a user's containers.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lading.http.client import Client
from lading.testing.waiting import PATIENCE_SECONDS

BUSYBOX = "/bin/busybox"
#: Emulated processors need more.
START_SECONDS = float(os.environ.get("LADING_START_SECONDS", "30"))
GRACE_SECONDS = PATIENCE_SECONDS


class Daemon:
    """One ``ladingd``; a context manager that starts it and, at the end, removes every trace."""

    def __init__(
        self, *flags: str, root: Path | None = None, environment: dict[str, str] | None = None
    ):
        self.root = root or Path(tempfile.mkdtemp(prefix="lading-"))
        self.root.chmod(0o711)
        self.bridge = f"ldt{secrets.token_hex(3)}"
        self.cgroup_parent = f"/{self.bridge}"
        self.socket = self.root / "s"
        self.flags = flags
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """What ``-H`` takes."""
        return f"unix://{self.socket}"

    def command(self) -> list[str]:
        """The command line of the daemon."""
        return [
            str(Path(sys.executable).with_name("ladingd")),
            f"--data-root={self.root / 'data'}",
            f"--exec-root={self.root / 'run'}",
            f"--pidfile={self.root / 'pid'}",
            f"--bridge={self.bridge}",
            f"--cgroup-parent={self.cgroup_parent}",
            f"--host={self.host}",
            *self.flags,
        ]

    def start(self) -> None:
        """Start it and return when it answers; raises RuntimeError with its log if it does not."""
        log = (self.root / "log").open("ab")
        self.process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **self.environment},
        )
        log.close()
        give_up = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"ladingd did not start:\n{self.log()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether ``GET /_ping`` is answered."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self.socket))
                client.sendall(b"GET /_ping HTTP/1.1\r\nHost: lading\r\nConnection: close\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def stop(self) -> None:
        """Ask it to end and wait; containers go on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(60)
        self.process = None

    def log(self) -> str:
        """What it has written to its standard error so far."""
        return (self.root / "log").read_text(errors="replace")

    def client(
        self,
        program: str,
        *arguments: str,
        input: bytes | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client (``docker``, ``lading``, or a path) against this daemon.

        With ``check`` a non-zero exit raises AssertionError that shows the output.
        """
        done = subprocess.run(
            [find_client(program), "-H", self.host, *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{program} {' '.join(arguments)}: exit {done.returncode}\n"
                f"{done.stdout.decode(errors='replace')}{done.stderr.decode(errors='replace')}"
            )
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start ``lading`` against this daemon without waiting for its end; it has no input."""
        return subprocess.Popen(
            [find_client("lading"), "-H", self.host, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def api(self, method: str, path: str, body: object = None) -> Any:
        """The JSON that one call of the API answers, also with an error; None without any."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        with (
            Client(self.host, timeout=60) as client,
            client.request(method, path, headers=headers, body=data) as response,
        ):
            answer = response.read()
        return json.loads(answer) if answer.startswith((b"{", b"[")) else None

    def remove_all(self) -> None:
        """Remove all containers and networks, through the API."""
        listed = self.client("lading", "ps", "-aq", "--no-trunc").stdout.decode().split()
        if listed:
            self.client("lading", "rm", "-f", "-v", *listed)
        self.client("lading", "network", "prune", "-f")

    def close(self) -> None:
        """End it, and remove its directories; fails if it has left anything else behind."""
        left: list[str] = []
        try:
            if self.process is not None:
                self.remove_all()
                self.stop()
                left = self.left_behind()
        finally:
            self.kill()
            unmount_below(self.root)
            shutil.rmtree(self.root, ignore_errors=True)
        if left:
            raise AssertionError("left behind:\n" + "\n".join(left))

    def left_behind(self) -> list[str]:
        """Mounts and control groups of this daemon that are there, after a moment's grace."""
        give_up = time.monotonic() + GRACE_SECONDS
        while True:
            left = [f"mount: {point}" for point in mounts_below(self.root)]
            left += [f"cgroup: {path}" for path in Path("/sys/fs/cgroup").glob(self._groups)]
            left += [f"cgroup: {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{self._groups}")]
            if not left or time.monotonic() > give_up:
                return left
            time.sleep(0.05)

    @property
    def _groups(self) -> str:
        return self.cgroup_parent.strip("/")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def find_client(program: str) -> str:
    """The path of a client; ``lading`` is the one beside this interpreter."""
    if program == "lading":
        return str(Path(sys.executable).with_name("lading"))
    return program


def mounts_below(root: Path) -> list[str]:
    """The mount points under ``root``, deepest first."""
    with open("/proc/self/mountinfo", "rb") as table:
        points = [os.fsdecode(line.split()[4].decode("unicode_escape").encode()) for line in table]
    return sorted((p for p in points if p.startswith(f"{root}/")), reverse=True)


def unmount_below(root: Path) -> None:
    """Detach every mount under ``root``."""
    for point in mounts_below(root):
        subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)


def busybox_image() -> bytes:
    """A small root file system as tar: the host's static busybox with all its applets."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, check=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "root", "home", "var", "usr"):
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, Path(BUSYBOX).read_bytes())
        for applet in applets.stdout.decode().split():
            if applet != "busybox":
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        _add(tar, "etc/passwd", tarfile.REGTYPE, 0o644, passwd)
        _add(tar, "etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nnogroup:x:65534:\n")
    return out.getvalue()


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: bytes = b"", *, link: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    entry.mtime = 1_400_000_000
    tar.addfile(entry, io.BytesIO(content))


def network_traces() -> dict[str, str]:
    """Interfaces, with the bridge that they are on, and firewall tables of this namespace."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, check=False)
    links = subprocess.run(["ip", "-json", "link"], capture_output=True, check=True)
    found = {link["ifname"]: link.get("master", "") for link in json.loads(links.stdout)}
    return found | dict.fromkeys(tables.stdout.decode().splitlines(), "")


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail if the body leaves interfaces or firewall tables; other traces a daemon checks itself.

    For a network namespace in which nobody else is at work but daemons that were there before: what
    comes to their bridges is theirs.
    """
    before = network_traces()

    def left() -> list[str]:
        now = network_traces().items()
        return sorted(name for name, bridge in now if not {name, bridge} & before.keys())

    yield
    give_up = time.monotonic() + GRACE_SECONDS
    while (rows := left()) and time.monotonic() < give_up:
        time.sleep(0.1)
    if rows:
        raise AssertionError("left behind:\n" + "\n".join(rows))


def docker_clients() -> Sequence[str]:
    """The docker clients of this host, oldest first: Debian's and any other on PATH.

    ``LADING_CLIENTS=lading`` leaves them out, for hosts on which each costs seconds.
    """
    if os.environ.get("LADING_CLIENTS") == "lading":
        return []
    found = [p for p in ("/usr/bin/docker", "/usr/local/bin/docker") if os.access(p, os.X_OK)]
    return found or [p for p in [shutil.which("docker")] if p]
