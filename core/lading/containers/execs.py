"""Processes added to running containers.

The processes are the monitor's and outlive the daemon; so do the records, one file each in the
container's run directory, which the next daemon reads beside what the monitor tells.
"""

from __future__ import annotations

import errno
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lading.containers import merge, resources, security, spec, tell
from lading.containers.parts import Parts
from lading.containers.records import Exec, Status
from lading.containers.streams import frame, parse_detach_keys, write_all
from lading.containers.table import Live, Table
from lading.containers.users import Users
from lading.errors import Conflict, Invalid, LadingError, NotFound, StartFailed
from lading.model.docker import ExecConfig
from lading.monitor import AttachSpec, Exit, Monitor, State

#: Flag of include/linux/sched.h, in the ninth field of /proc/<pid>/stat.
PF_EXITING = 0x4

#: How long ``inspect`` waits for a process that is ending, in seconds.
ENDING_SECONDS = 5.0

#: Records of finished execs that are kept for ``inspect``, per container, as by its monitor.
KEPT = 64

_RECORD = msgspec.json.Decoder(Exec)


class Execs:
    """All execs of the daemon."""

    def __init__(self, parts: Parts, table: Table, users: Users) -> None:
        self._parts = parts
        self._table = table
        self._users = users
        self._lock = threading.Lock()
        self._records: dict[str, Exec] = {}
        #: Execs whose start was asked for, and the monitor has not answered yet.
        self._starting: dict[str, threading.Event] = {}

    def create(self, live: Live, config: ExecConfig) -> str:
        """See :meth:`lading.containers.Containers.exec_create`."""
        require_running(live)
        if not config.cmd:
            raise Invalid("No exec command specified")
        if config.working_dir and not config.working_dir.startswith("/"):
            raise Invalid(f'Cwd must be an absolute path: "{config.working_dir}"')
        parse_detach_keys(config.detach_keys)
        self._parts.veto("exec", {**tell.request(live.record), "Cmd": list(config.cmd)})
        size = config.console_size
        record = Exec(
            id=secrets.token_hex(32),
            container=live.id,
            command=tuple(config.cmd),
            tty=config.tty,
            open_stdin=config.attach_stdin,
            open_stdout=config.attach_stdout,
            open_stderr=config.attach_stderr,
            privileged=config.privileged,
            user=config.user,
            working_dir=config.working_dir,
            env=tuple(config.env),
            detach_keys=config.detach_keys,
            console_size=(size[0], size[1]) if len(size) == 2 else None,
        )
        try:
            self._write(record)
        except FileNotFoundError:
            raise Conflict(f"container {live.id} is not running") from None  # any more
        with self._lock:
            self._records[record.id] = record
            self._forget_oldest(live.id)
        self._tell(live, "exec_create", record)
        return record.id

    def _forget_oldest(self, container: str) -> None:
        finished = [
            r.id for r in self._records.values() if r.container == container and r.can_remove
        ]
        for exec_id in finished[:-KEPT]:
            del self._records[exec_id]
            self._file(container, exec_id).unlink(missing_ok=True)

    def _file(self, container: str, exec_id: str) -> Path:
        return self._parts.run(container) / "execs" / exec_id

    def _write(self, record: Exec) -> None:
        path = self._file(record.container, record.id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(msgspec.json.encode(record))

    def take_up(self, container: str, seen: State) -> None:
        """Know the execs of a container that outlived its daemon, by what its monitor says."""
        for path in (self._parts.run(container) / "execs").glob("*"):
            try:
                record = _RECORD.decode(path.read_bytes())
            except msgspec.DecodeError:
                continue  # its creation was cut off, so nobody knows of it
            if (pid := seen.execs.get(record.id)) is not None and record.id not in seen.finished:
                record = msgspec.structs.replace(record, running=True, pid=pid)
            elif (exit := seen.finished.get(record.id)) is not None:
                record = msgspec.structs.replace(record, exit_code=exit.code, can_remove=True)
            with self._lock:
                self._records.setdefault(record.id, record)

    def get(self, exec_id: str) -> Exec:
        """The record as it is now. Raises NotFound."""
        with self._lock:
            record = self._records.get(exec_id)
        if record is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return record

    def inspect(self, exec_id: str) -> Exec:
        """The record; what the monitor has told up to now is in it. Raises NotFound."""
        record = self._after_start(exec_id)
        if record.running:
            live = self._table.lookup(record.container)
            monitor = live.monitor if live else None
            if monitor is not None:
                self._catch_up(monitor, record)
            record = self.get(exec_id)
        return record

    def _after_start(self, exec_id: str) -> Exec:
        """The record as it is when a start that goes on is through. Raises NotFound.

        A client that has read the head of the answer to its start may ask on another connection
        before we hear that the process runs, or after a short one is over.
        """
        if (starting := self._starting.get(exec_id)) is not None:
            starting.wait(ENDING_SECONDS)
        return self.get(exec_id)

    def ids(self, container: str) -> Sequence[str]:
        """Those of a container that run or wait for their start."""
        with self._lock:
            return [
                r.id
                for r in self._records.values()
                if r.container == container and not r.can_remove
            ]

    def start(
        self, exec_id: str, *, detach: bool, tty: bool | None, size: tuple[int, int] | None
    ) -> ExecStream | None:
        """See :meth:`lading.containers.Containers.exec_start`."""
        record = self.get(exec_id)
        live = self._table.lookup(record.container)
        if live is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        if record.running:
            raise Conflict(f"Error: Exec command {exec_id} is already running")
        if record.can_remove:
            raise Conflict(f"Error: Exec command {exec_id} has already run")
        require_running(live)
        # Docker frames the output by what the start says, whatever the exec was made with.
        raw = record.tty if tty is None else tty
        stream = ExecStream(self, live, record, size or record.console_size, raw=raw)
        if not detach:
            self._starting[exec_id] = threading.Event()
            return stream
        stream.run(None, -1)
        return None

    def wait(self, exec_id: str, timeout: float) -> int:
        """Block for the exit code. Raises TimeoutError, NotFound."""
        record = self.get(exec_id)
        if record.exit_code is not None:
            return record.exit_code
        live = self._table.lookup(record.container)
        if live is None or live.monitor is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return live.monitor.exec_wait(exec_id, timeout).code

    def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of its terminal. Raises Conflict when it does not run."""
        record = self._after_start(exec_id)
        live = self._table.lookup(record.container)
        if live is None or live.monitor is None or not record.running:
            raise Conflict(f"exec {exec_id} is not running")
        live.monitor.resize(rows, columns, exec_id)

    def process(
        self, live: Live, record: Exec, size: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """The OCI process object of an exec; ``size`` is the terminal's, rows and columns.

        Raises Invalid for an unknown user.
        """
        container = live.record
        host, config = container.host_config, container.config
        user = self._users.in_running(container, record.user or config.user)
        env = merge.environment(msgspec.structs.replace(config, tty=record.tty), config.hostname)
        options = security.parse_options(
            host.security_opt, no_new_privileges=self._parts.defaults.no_new_privileges
        )
        capabilities = security.capabilities(host, privileged=record.privileged or host.privileged)
        process: dict[str, Any] = {
            "terminal": record.tty,
            "user": spec.oci_user(user),
            "args": list(record.command),
            "env": merge.with_home(merge.merge_env(env, record.env), user.home),
            "cwd": record.working_dir or config.working_dir or "/",
            "capabilities": security.oci_capabilities(capabilities, uid=user.uid),
            "rlimits": resources.rlimits(self._parts.defaults.ulimits, host.ulimits),
            "noNewPrivileges": options.no_new_privileges,
        }
        if host.oom_score_adj:
            process["oomScoreAdj"] = host.oom_score_adj
        if record.tty and size is not None:
            process["consoleSize"] = spec.console_size(size)
        if profile := spec.apparmor_profile(host, options):
            process["apparmorProfile"] = profile
        if container.process_label:
            process["selinuxLabel"] = container.process_label
        return process

    @contextmanager
    def starting(self, exec_id: str) -> Iterator[None]:
        """Around a start: who asks meanwhile waits for what comes of it."""
        started = self._starting.setdefault(exec_id, threading.Event())
        try:
            yield
        finally:
            self._starting.pop(exec_id, None)
            started.set()

    def note_start(self, live: Live, record: Exec, pid: int) -> None:
        """Its program runs."""
        with self._lock:
            # A short one may have ended already: then its exit is what counts.
            known = self._records.get(record.id)
            if known is not None and known.exit_code is None:
                self._records[record.id] = msgspec.structs.replace(known, running=True, pid=pid)
        self._tell(live, "exec_start", record)

    def note_failure(self, record: Exec, code: int) -> None:
        """Its program could not be executed."""
        failed = msgspec.structs.replace(record, running=False, exit_code=code, can_remove=True)
        with self._lock:
            self._records[record.id] = failed
        try:
            self._write(failed)
        except OSError:
            pass  # the container has ended, and its run directory is gone

    def ended(self, live: Live, exec_id: str, exit: Exit) -> None:
        """It has ended; called from the thread that serves all monitors."""
        record = self._note_exit(exec_id, exit)
        if record is not None:
            self._tell(live, "exec_die", record, exitCode=str(exit.code))

    def _note_exit(self, exec_id: str, exit: Exit) -> Exec | None:
        with self._lock:
            record = self._records.get(exec_id)
            if record is not None:
                self._records[exec_id] = msgspec.structs.replace(
                    record, running=False, exit_code=exit.code, pid=0, can_remove=True
                )
            return record

    def _catch_up(self, monitor: Monitor, record: Exec) -> None:
        """Wait for the exit of an exec that is just ending.

        Clients ask for the exit code right after the end of the stream. They see that without the
        daemon, and before the monitor can know of the exit: the kernel closes files first.
        """
        try:
            if is_exiting(record.pid):
                self._note_exit(record.id, monitor.exec_wait(record.id, ENDING_SECONDS))
            else:
                # Its answer comes behind the event of an exit that the monitor knows.
                monitor.state()
        except (LadingError, TimeoutError):
            # The monitor has gone, or the process takes long to die: the record says what is known.
            return

    def container_ended(self, container: str) -> None:
        """Its execs have gone with it."""
        with self._lock:
            for record in list(self._records.values()):
                if record.container == container and record.running:
                    self._records[record.id] = msgspec.structs.replace(
                        record, running=False, exit_code=137, pid=0, can_remove=True
                    )

    def forget(self, container: str) -> None:
        """Drop the records of a container that is removed."""
        with self._lock:
            for record in list(self._records.values()):
                if record.container == container:
                    del self._records[record.id]
                    if (starting := self._starting.pop(record.id, None)) is not None:
                        # Its client has gone before it came to a start.
                        starting.set()

    def _tell(self, live: Live, action: str, record: Exec, **attributes: str) -> None:
        shown = action if action == "exec_die" else f"{action}: {' '.join(record.command)}"
        tell.event(self._parts.events, live.record, shown, execID=record.id, **attributes)


class ExecStream:
    """An exec that starts when its client is connected."""

    def __init__(
        self,
        execs: Execs,
        live: Live,
        record: Exec,
        size: tuple[int, int] | None,
        *,
        raw: bool,
    ) -> None:
        self.tty = raw
        self._execs = execs
        self._live = live
        self._record = record
        self._size = size

    def connect(self) -> socket.socket:
        """This side of a connection to the process, which runs from now on."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._run_for(theirs.fileno(), b"")
        return ours

    def hand_over(self, descriptor: int, head: bytes) -> None:
        """Run the process on a client's own socket."""
        self._run_for(descriptor, head)

    def _run_for(self, descriptor: int, head: bytes) -> None:
        record = self._record
        attach = AttachSpec(
            "attach",
            stdin=record.open_stdin,
            stdout=record.open_stdout,
            stderr=record.open_stderr,
            detach_keys=parse_detach_keys(record.detach_keys),
            prelude=head,
            framed=not self.tty,
        )
        try:
            self.run(attach, descriptor)
        except (LadingError, OSError) as error:
            # The client counts on a stream by now: it reads the reason there, and the exit code
            # from the record.
            text = f"{error}\r\n".encode()
            write_all(descriptor, head + (text if self.tty else frame("stdout", text)))

    def run(self, attach: AttachSpec | None, client: int) -> None:
        """Run the process. Raises StartFailed, LadingError; the record keeps the exit code."""
        with self._execs.starting(self._record.id):
            self._start(attach, client)

    def _start(self, attach: AttachSpec | None, client: int) -> None:
        monitor: Monitor | None = self._live.monitor
        try:
            if monitor is None:
                raise Conflict(f"Container {self._live.id} is not running")
            started = monitor.exec(
                self._record.id,
                self._execs.process(self._live, self._record, self._size),
                stdin=self._record.open_stdin,
                attach=attach,
                client=client,
            )
        except StartFailed as error:
            self._execs.note_failure(self._record, exit_code(error.errno))
            raise StartFailed(
                "OCI runtime exec failed: exec failed: unable to start container process: "
                f"{error.message}: unknown",
                errno=error.errno,
            ) from error
        except (LadingError, OSError):
            self._execs.note_failure(self._record, 126)
            raise
        self._execs.note_start(self._live, self._record, started.pid)


def is_exiting(pid: int) -> bool:
    """Whether a process has ended or is past the point of no return (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & PF_EXITING)


def exit_code(number: int) -> int:
    """The exit code of a program that could not be executed, by errno."""
    return 127 if number == errno.ENOENT else 126


def require_running(live: Live) -> None:
    """Raises Conflict unless processes can be added now."""
    status = live.record.state.status
    if status is Status.PAUSED:
        raise Conflict(f"Container {live.id} is paused, unpause the container before exec")
    if status is Status.RESTARTING:
        raise Conflict(f"Container {live.id} is restarting, wait until the container is running")
    if status is not Status.RUNNING:
        raise Conflict(f"container {live.id} is not running")
