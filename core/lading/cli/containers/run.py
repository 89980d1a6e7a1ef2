"""``lading run`` and ``lading create``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from lading.cli.command import at_least, command
from lading.cli.creation.config import Body, attached, creation_body
from lading.cli.creation.flags import CREATE, RUN
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call
from lading.cli.session import Session
from lading.cli.streams.attachment import Attachment
from lading.cli.streams.signals import SignalProxy
from lading.cli.streams.terminal import WindowWatch, is_terminal
from lading.http.client import Response, Upgraded

CANNOT_RUN = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
PULL_POLICIES = ("always", "missing", "never", "if-not-present", "")


@command(
    "Make a container of an image and start it",
    usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    arguments=at_least(1),
    flags=RUN,
    interspersed=False,
    completes="images",
)
def run(call: Call) -> int:
    """Create, attach, wait, start: in this order, so that nothing is missed."""
    streams = attached(call)
    if call.on("tty") and streams[0] and not is_terminal(0):
        raise Failure("the input device is not a TTY")
    try:
        identity, body = create_container(call)
    except Failure as error:
        raise _as_run_error(call, error) from error
    started = _Run(call, identity, body, streams)
    return started.detached() if call.on("detach") or not any(streams) else started.attached()


@command(
    "Make a container without starting it",
    usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    arguments=at_least(1),
    flags=CREATE,
    interspersed=False,
    completes="images",
)
def create(call: Call) -> None:
    """Create a container and print its id."""
    try:
        identity, _ = create_container(call)
    except DaemonError as error:
        raise Failure(error.message) from error
    call.session.print(identity)


def create_container(call: Call) -> tuple[str, Body]:
    """Create, pulling the image when it is missing; the id and what was sent."""
    session, image = call.session, call.args[0]
    policy = call.text("pull")
    if policy not in PULL_POLICIES:
        raise Failure(
            f"invalid pull option: '{policy}': must be one of 'always', 'missing' or 'never'",
            code=CANNOT_RUN,
        )
    body = creation_body(call)
    cidfile = call.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise Failure(
            f"container ID file found, make sure the other container isn't running or "
            f"delete {cidfile}",
            code=CANNOT_RUN,
        )
    if policy == "always" and not call.on("rootfs"):
        _pull(call, image)
    try:
        answer = _create(call, body)
    except DaemonError as error:
        if (
            error.status != 404
            or policy == "never"
            or call.on("rootfs")
            or ("no such image" not in error.reason.lower())
        ):
            raise
        if not call.on("quiet"):
            session.warn(f"Unable to find image '{_full_name(image)}' locally")
        _pull(call, image)
        answer = _create(call, body)
    for warning in answer.get("Warnings") or []:
        session.warn(f"WARNING: {warning}")
    identity = str(answer["Id"])
    if cidfile:
        with open(cidfile, "w", encoding="ascii") as file:
            file.write(identity)
    return identity, body


def _create(call: Call, body: Body) -> dict[str, Any]:
    query = {"name": call.text("name") or None, "platform": call.text("platform") or None}
    with call.session.request(
        "POST", "/containers/create", query=query, json_body=body
    ) as response:
        answer: dict[str, Any] = response.json()
        return answer


def _full_name(image: str) -> str:
    from lading.cli.images.reference import parse  # late: only a missing image needs a pull

    return parse(image).familiar_full


def _pull(call: Call, image: str) -> None:
    from lading.cli.images.registry import pull_image

    quiet = call.on("quiet")
    # Standard output belongs to the container.
    pull_image(call.session, image, platform=call.text("platform"), out=sys.stderr, quiet=quiet)


def _as_run_error(call: Call, error: Failure) -> Failure:
    """Errors before the start end in 125, with a pointer to the help, as scripts expect."""
    if isinstance(error, DaemonError) or error.code == 1:
        return Failure(f"lading: {error.message}\n\nSee '{call.path} --help'.", code=CANNOT_RUN)
    return error


def start_error(message: str) -> int:
    """The exit code for a container that could not be started."""
    for reason in ("executable file not found", "no such file or directory"):
        if reason in message:
            return NOT_FOUND
    if "permission denied" in message or "is a directory" in message:
        return NOT_EXECUTABLE
    return CANNOT_RUN


class _Run:
    """One started container."""

    def __init__(
        self, call: Call, identity: str, body: Body, streams: tuple[bool, bool, bool]
    ) -> None:
        self.call = call
        self.session: Session = call.session
        self.identity = identity
        self.tty = bool(body["Tty"])
        self.remove = bool(body["HostConfig"]["AutoRemove"])
        self.streams = streams

    def detached(self) -> int:
        """Start it and leave."""
        self._start(None)
        self.session.print(self.identity)
        return 0

    def attached(self) -> int:
        """Start it, pass its streams and signals, and return its exit code."""
        proxy = SignalProxy(killer(self.session, self.identity))
        if self.call.on("sig-proxy"):
            proxy.start()
        try:
            return self._attached()
        finally:
            if self.call.on("sig-proxy"):
                proxy.stop()

    def _attached(self) -> int:
        stdin, stdout, stderr = self.streams
        keys = self.call.text("detach-keys") or self.session.settings.text("detachKeys")
        try:
            raw = open_streams(
                self.session, self.identity, stdin=stdin, stdout=stdout, stderr=stderr, keys=keys
            )
        except Failure as error:
            raise _as_run_error(self.call, error) from error
        with raw:
            attachment = Attachment(
                raw, tty=self.tty, stdin=stdin, output=stdout or stderr, detach_keys=keys
            )
            waiting = wait_for(self.session, self.identity, removed=self.remove)
            self._start(waiting)
            watch = WindowWatch(resizer(self.session, f"/containers/{self.identity}"))
            if self.tty and is_terminal(1):
                watch.start()
            try:
                attachment.run()
            finally:
                if self.tty and is_terminal(1):
                    watch.stop()
        if attachment.detached:
            return 0
        return exit_code(waiting)

    def _start(self, waiting: Response | None) -> None:
        try:
            self.session.post(f"/containers/{self.identity}/start")
        except DaemonError as error:
            if waiting is not None and self.remove:
                # The daemon removes it; whoever runs the same name next must find it gone.
                exit_code(waiting)
            code = start_error(error.reason)
            hint = f"\n\nSee '{self.call.path} --help'."
            raise Failure(f"lading: {error.message}{hint}", code=code) from error


def open_streams(
    session: Session,
    identity: str,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    keys: str,
    logs: bool = False,
) -> Upgraded:
    """Connect to a container's streams."""
    return session.upgrade(
        f"/containers/{identity}/attach",
        query={
            "stream": True,
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "logs": logs,
            "detachKeys": keys,
        },
    )


def wait_for(session: Session, identity: str, *, removed: bool) -> Response:
    """Begin to wait: the answer's headers are here, so an exit from now on is not missed."""
    condition = "removed" if removed else "next-exit"
    return session.request("POST", f"/containers/{identity}/wait", query={"condition": condition})


def exit_code(waiting: Response) -> int:
    """The exit code that :func:`wait_for` waits for."""
    with waiting:
        answer = waiting.json() or {}
    problem = (answer.get("Error") or {}).get("Message")
    if problem:
        raise Failure(f"error waiting for container: {problem}", code=CANNOT_RUN)
    return int(answer.get("StatusCode", 0))


def killer(session: Session, identity: str) -> Callable[[str], None]:
    """What sends a signal to the container."""

    def kill(name: str) -> None:
        session.post(f"/containers/{identity}/kill", signal=name)

    return kill


def resizer(session: Session, path: str) -> Callable[[int, int], None]:
    """What sets the size of the container's (or the exec's) terminal."""

    def resize(rows: int, columns: int) -> None:
        session.post(f"{path}/resize", h=rows, w=columns)

    return resize
