"""``lading attach``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import command, exactly
from lading.cli.containers.run import exit_code, killer, open_streams, resizer
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text
from lading.cli.streams.attachment import Attachment
from lading.cli.streams.signals import SignalProxy
from lading.cli.streams.terminal import WindowWatch, is_terminal


@command(
    "Connect to the streams of a container",
    usage="[OPTIONS] CONTAINER",
    arguments=exactly(1),
    flags=(
        text("detach-keys", "", "Keys that disconnect, instead of ctrl-p,ctrl-q"),
        switch("no-stdin", "", "Output only"),
        switch("sig-proxy", "", "Pass signals on to the process", default=True),
    ),
    completes="running",
)
def attach(call: Call) -> int:
    """Attach to a running container; its exit code is the command's."""
    session = call.session
    container = session.get(f"/containers/{call.args[0]}/json")
    _check(container)
    identity = str(container["Id"])
    waiting = session.request("POST", f"/containers/{identity}/wait")
    config = container["Config"]
    stdin = not call.on("no-stdin") and bool(config["OpenStdin"])
    tty = bool(config["Tty"])
    if tty and stdin and not is_terminal(0):
        raise Failure("the input device is not a TTY")
    keys = call.text("detach-keys") or session.settings.text("detachKeys")
    proxy = SignalProxy(killer(session, identity))
    if call.on("sig-proxy") and not tty:
        proxy.start()
    try:
        with open_streams(
            session, identity, stdin=stdin, stdout=True, stderr=True, keys=keys
        ) as raw:
            watch = WindowWatch(resizer(session, f"/containers/{identity}"))
            if tty and is_terminal(1):
                watch.start()
            attachment = Attachment(raw, tty=tty, stdin=stdin, detach_keys=keys)
            attachment.run()
    finally:
        proxy.stop()
    if attachment.detached:
        raise Failure("read escape sequence")
    return exit_code(waiting)


def _check(container: dict[str, Any]) -> None:
    state = container["State"]
    if not state["Running"]:
        raise Failure("cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failure("cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise Failure("cannot attach to a restarting container, wait until it is running")
