"""``lading exec``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import at_least, command
from lading.cli.containers.run import resizer
from lading.cli.creation.environment import check_variable, variables
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, switch, text, texts
from lading.cli.streams.attachment import Attachment
from lading.cli.streams.terminal import WindowWatch, is_terminal, window_size

CONSOLE_SIZE_API = (1, 42)


@command(
    "Run a command in a running container",
    usage="[OPTIONS] CONTAINER COMMAND [ARG...]",
    arguments=at_least(2),
    flags=(
        switch("detach", "d", "Run in the background"),
        text("detach-keys", "", "Keys that disconnect, instead of ctrl-p,ctrl-q"),
        texts("env", "e", "Environment variable, NAME=VALUE", parse=check_variable),
        texts("env-file", "", "Read environment variables from a file"),
        switch("interactive", "i", "Pass stdin on"),
        switch("privileged", "", "With all capabilities"),
        switch("tty", "t", "Give the command a terminal"),
        text("user", "u", "User and group, name|uid[:group|gid]"),
        text("workdir", "w", "Working directory"),
    ),
    interspersed=False,
    completes="running",
)
def execute(call: Call) -> int:
    """Create an exec, start it over a raw connection, and return its exit code."""
    session, container = call.session, call.args[0]
    tty, detach = call.on("tty"), call.on("detach")
    stdin = call.on("interactive") and not detach
    if tty and stdin and not is_terminal(0):
        raise Failure("the input device is not a TTY")
    keys = call.text("detach-keys") or session.settings.text("detachKeys")
    identity = session.post(f"/containers/{container}/exec", _creation(call, stdin, keys))["Id"]
    start = {"Detach": detach, "Tty": tty, **_console(call)}
    if detach:
        session.post(f"/exec/{identity}/start", start)
        return 0
    try:
        raw = session.upgrade(f"/exec/{identity}/start", query={}, body=start)
    except DaemonError as error:
        raise Failure(error.message, code=_code_of(error)) from error
    with raw:
        watch = WindowWatch(resizer(session, f"/exec/{identity}"))
        if tty and is_terminal(1):
            watch.start()
        attachment = Attachment(raw, tty=tty, stdin=stdin, detach_keys=keys)
        try:
            attachment.run()
        finally:
            if tty and is_terminal(1):
                watch.stop()
    if attachment.detached:
        raise Failure("read escape sequence")
    return int(session.get(f"/exec/{identity}/json").get("ExitCode") or 0)


def _creation(call: Call, stdin: bool, keys: str) -> dict[str, Any]:
    detach = call.on("detach")
    return {
        "User": call.text("user"),
        "Privileged": call.on("privileged"),
        "Tty": call.on("tty"),
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "DetachKeys": keys,
        "Env": variables(call.texts("env-file"), call.texts("env")),
        "WorkingDir": call.text("workdir"),
        "Cmd": call.args[1:],
        **_console(call),
    }


def _console(call: Call) -> dict[str, Any]:
    """The terminal's size from the first moment, where the daemon knows the member."""
    size = window_size() if call.on("tty") and call.session.api >= CONSOLE_SIZE_API else None
    return {"ConsoleSize": list(size)} if size else {}


def _code_of(error: DaemonError) -> int:
    from lading.cli.containers.run import start_error

    code = start_error(error.reason)
    return code if code in (126, 127) else 1
