"""Calling the runtime binary: its log read as errors, its console socket, its pid file.

The command line is that of runc(8), which the others follow.
"""

from __future__ import annotations

import array
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EACCES, ENOENT
from pathlib import Path

from lading.errors import Conflict, Invalid, LadingError, NotFound, StartFailed
from lading.hooks.isolation import Container, Stdio

#: What the core says as well.
_STARTING = "unable to start container process: "
#: Executes a command that sees an empty directory in place of another (crun makes groups there).
_HIDE = 'mount --make-private "$0" && mount -t tmpfs none "$0" && exec "$@"'
#: Seconds after which a call of the binary counts as hung.
DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Binary:
    """A runtime binary with its global arguments, and a mount point that it must not see."""

    path: str
    arguments: tuple[str, ...] = ()
    hidden: str = ""

    def command(self, container: Container, *words: str) -> list[str]:
        """The command line of one call for a container."""
        log = container.state / "log.json"
        log.unlink(missing_ok=True)
        hide = ("unshare", "--mount", "--propagation=unchanged", "sh", "-c", _HIDE, self.hidden)
        return [
            *(hide if self.hidden else ()),
            self.path,
            *self.arguments,
            f"--root={container.state / 'runtime'}",
            f"--log={log}",
            "--log-format=json",
            *words,
        ]

    def call(self, container: Container, *words: str, stdin: bytes = b"") -> bytes:
        """Run one command to its end and return its output; raises what its log says."""
        done = subprocess.run(
            self.command(container, *words),
            input=stdin,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
            restore_signals=False,  # crun must outlive a hook that does not read its state
        )
        if done.returncode != 0:
            raise failure(container, words[0], done.stderr)
        return done.stdout

    def launch(
        self,
        container: Container,
        words: Sequence[str],
        stdio: Stdio,
        before: Callable[[], None] | None = None,
    ) -> int:
        """Run a command that leaves a process behind, and return the console's master or -1.

        ``before`` runs in the child before the binary is executed. With a terminal the binary's
        own streams are ``/dev/null``, since the process gets its own; without, it gets
        ``stdio``'s, and so do its messages, which is why they are read from the log.
        """
        console = _Console() if stdio.terminal else None
        extra = [f"--console-socket={console.path}"] if console else []
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        streams = (null, null, null) if console else (stdio.stdin, stdio.stdout, stdio.stderr)
        command = self.command(container, *words[:-1], *extra, words[-1])
        try:
            status = _spawn(command, [s if s >= 0 else null for s in streams], before)
            if status != 0:
                raise failure(container, words[0], b"")
            return console.receive() if console else -1
        finally:
            os.close(null)
            if console:
                console.close()


def _spawn(command: list[str], streams: list[int], before: Callable[[], None] | None) -> int:
    """Fork, prepare, execute, and wait for the binary (not for what it leaves behind)."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            # As in call(); runtimes give it back its default in the container.
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            # Above the targets first: a stream may itself be descriptor 0, 1 or 2.
            high = [_duplicate_high(stream) for stream in streams]
            for target, source in enumerate(high):
                os.dup2(source, target)
            if before is not None:
                before()
            os.execvp(command[0], command)
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    _, result = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(result)


def _duplicate_high(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)


class _Console:
    """The listening socket on which the binary hands over the terminal's master."""

    def __init__(self) -> None:
        # A socket's path has 108 bytes at most, which the state directory may use up by itself.
        self.folder = Path(tempfile.mkdtemp(prefix="console-"))
        self.path = self.folder / "s"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(1)
        self.listener.settimeout(DEADLINE)

    def receive(self) -> int:
        connection, _ = self.listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                master = array.array("i", data[:4])[0]
                os.set_inheritable(master, False)
                return master
        raise LadingError("the OCI runtime sent no terminal over its console socket")

    def close(self) -> None:
        self.listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def read_pid(path: Path) -> int:
    """The pid that the binary wrote with ``--pid-file``."""
    return int(path.read_text())


def failure(container: Container, command: str, stderr: bytes) -> Exception:
    """What a failed call becomes: the last error of the log, or else of standard error."""
    message = _last_message(container.state / "log.json") or stderr.decode(errors="replace").strip()
    message = message or f"{command} of container {container.id} failed without a message"
    for prefix in (f"runc {command} failed: ", f"{command} failed: ", _STARTING):
        message = message.removeprefix(prefix)
    # The runtimes have no error numbers: their texts are all that tells one kind from another.
    ended = re.search(r"^the container .* is not running", message) and command != "exec"
    # crun's words when another call removes the container at this moment.
    removed = re.search(r"^error opening file `.*/status`: No such file", message)
    if ended or removed or re.search(r"container.*does not exist|container not running", message):
        return NotFound(f"{command}: {message}")
    if re.search(
        r"cannot (start|exec in) a (container|stopped|paused)|start an already running"
        r"|^the container .* is not running|cannot open .*/exec\.fifo",
        message,
    ):
        return Conflict(f"{command}: {message}")
    if command == "update":
        return Invalid(f"update: {message}")
    if command in ("create", "start", "exec", "run"):
        # Clients tell their exit code from Go's spelling of these.
        for said in ("No such file or directory", "Permission denied"):
            message = message.replace(said, said.lower())
        # A newer crun (1.21) looks at the file itself, and says so with another error's text.
        no_program = r"(not executable|not a regular file): Operation not permitted"
        message = re.sub(no_program, r"\1: permission denied", message)
        return StartFailed(message, errno=_errno(message))
    return LadingError(f"{command}: {message}")


def _errno(message: str) -> int:
    if re.search(r"executable file .*not found|[Nn]o such file or directory", message):
        return ENOENT
    if re.search(r"[Pp]ermission denied|is a directory", message):
        return EACCES
    return 0


def _last_message(log: Path) -> str:
    try:
        rows = [json.loads(line) for line in log.read_text().splitlines()]
    except (OSError, ValueError):
        return ""
    errors = [row for row in rows if row.get("level") in ("error", "fatal")]
    return str(errors[-1].get("msg", "")) if errors else ""
