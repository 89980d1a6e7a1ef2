"""``lading start``."""

from __future__ import annotations

from typing import Any

from lading.cli.command import at_least, command
from lading.cli.containers.lifecycle import each
from lading.cli.containers.run import exit_code, killer, open_streams, resizer, wait_for
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, switch, text
from lading.cli.streams.attachment import Attachment
from lading.cli.streams.signals import SignalProxy
from lading.cli.streams.terminal import WindowWatch, is_terminal


@command(
    "Start stopped containers",
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    arguments=at_least(1),
    flags=(
        switch("attach", "a", "Show its output and pass signals on"),
        text("checkpoint", "", "Restore this checkpoint"),
        text("checkpoint-dir", "", "Where the checkpoints are"),
        text("detach-keys", "", "Keys that disconnect, instead of ctrl-p,ctrl-q"),
        switch("interactive", "i", "Pass stdin on"),
        switch("sig-proxy", "", "Pass signals on to the process", default=True, hidden=True),
    ),
    completes="containers",
)
def start(call: Call) -> int:
    """Start containers; with ``-a`` or ``-i`` one, whose streams are connected."""
    session = call.session
    query = {
        "checkpoint": call.text("checkpoint") or None,
        "checkpoint-dir": call.text("checkpoint-dir") or None,
    }
    if call.on("attach") or call.on("interactive"):
        if len(call.args) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _attached(call, session.get(f"/containers/{call.args[0]}/json"), query)

    def act(name: str) -> str:
        with session.request("POST", f"/containers/{name}/start", query=query):
            return name

    code = each(session, call.args, act)
    if code:
        raise Failure(f"Error: failed to start containers: {', '.join(call.args)}")
    return 0


def _attached(call: Call, container: dict[str, Any], query: dict[str, Any]) -> int:
    session, identity = call.session, str(container["Id"])
    tty = bool(container["Config"]["Tty"])
    stdin = call.on("interactive") and bool(container["Config"]["OpenStdin"])
    keys = call.text("detach-keys") or session.settings.text("detachKeys")
    proxy = SignalProxy(killer(session, identity))
    if call.on("sig-proxy") and not tty:
        proxy.start()
    try:
        with open_streams(
            session, identity, stdin=stdin, stdout=True, stderr=True, keys=keys
        ) as raw:
            removed = bool(container["HostConfig"]["AutoRemove"])
            waiting = wait_for(session, identity, removed=removed)
            try:
                session.request("POST", f"/containers/{identity}/start", query=query).close()
            except DaemonError as error:
                raise Failure(error.message) from error
            if tty and is_terminal(1):
                WindowWatch(resizer(session, f"/containers/{identity}")).start()
            attachment = Attachment(raw, tty=tty, stdin=stdin, detach_keys=keys)
            attachment.run()
    finally:
        proxy.stop()
    return 0 if attachment.detached else exit_code(waiting)
