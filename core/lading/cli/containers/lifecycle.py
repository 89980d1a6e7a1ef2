"""Commands that change the state of containers, one request for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from lading.cli.command import Command, at_least, command, exactly
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, number, switch, text
from lading.cli.session import Session

#: Requests at the same time; stopping many containers must not take the sum of their patience.
PARALLEL = 50


def each(session: Session, names: Iterable[str], act: Callable[[str], str | None]) -> int:
    """Call ``act`` for each name at once, print in order; errors are shown and end in 1."""
    wanted = list(names)
    if len(wanted) == 1:
        return _report(session, [_outcome(act, wanted[0])])
    with ThreadPoolExecutor(min(PARALLEL, len(wanted))) as pool:
        return _report(session, pool.map(lambda name: _outcome(act, name), wanted))


def _outcome(act: Callable[[str], str | None], name: str) -> str | Failure | None:
    try:
        return act(name)
    except Failure as error:
        return error


def _report(session: Session, outcomes: Iterable[str | Failure | None]) -> int:
    code = 0
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            session.warn(outcome.message)
            code = outcome.code
        elif outcome is not None:
            session.print(outcome)
    return code


def _timed(help: str, verb: str) -> Command:
    def body(call: Call) -> int:
        query = {
            "signal": call.text("signal") or None,
            "t": call.number("timeout") if call.changed("timeout") else None,
        }

        def act(name: str) -> str:
            with call.session.request("POST", f"/containers/{name}/{verb}", query=query):
                return name

        return each(call.session, call.args, act)

    body.__name__ = verb
    return command(
        help,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        arguments=at_least(1),
        flags=(
            text("signal", "s", "Signal to send first"),
            number("timeout", "t", "Seconds until it is killed", aliases=("time",)),
        ),
        completes="running",
    )(body)


def _plain(help: str, verb: str) -> Command:
    def body(call: Call) -> int:
        def act(name: str) -> str:
            call.session.post(f"/containers/{name}/{verb}")
            return name

        return each(call.session, call.args, act)

    body.__name__ = verb
    return command(
        help,
        usage="CONTAINER [CONTAINER...]",
        arguments=at_least(1),
        completes="running",
    )(body)


stop = _timed("Stop running containers", "stop")
restart = _timed("Stop and start containers", "restart")
pause = _plain("Freeze all processes of containers", "pause")
unpause = _plain("Thaw frozen containers", "unpause")


@command(
    "Send a signal to containers",
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    arguments=at_least(1),
    flags=(text("signal", "s", "Signal, a name or a number; KILL unless given"),),
    completes="running",
)
def kill(call: Call) -> int:
    """Kill containers."""

    def act(name: str) -> str:
        call.session.post(f"/containers/{name}/kill", signal=call.text("signal"))
        return name

    return each(call.session, call.args, act)


@command(
    "Remove containers",
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    arguments=at_least(1),
    flags=(
        switch("force", "f", "Running ones too; they are killed"),
        switch("link", "l", "Remove the link, not the container"),
        switch("volumes", "v", "Their anonymous volumes too"),
    ),
    completes="containers",
)
def rm(call: Call) -> int:
    """Remove containers."""

    def act(name: str) -> str | None:
        bare = name.strip("/")
        if not bare:
            raise Failure("Container name cannot be empty")
        try:
            call.session.delete(
                f"/containers/{bare}",
                v=call.on("volumes"),
                link=call.on("link"),
                force=call.on("force"),
            )
        except DaemonError as error:
            if call.on("force") and error.status == 404:
                call.session.warn(error.message)
                return None
            raise
        return name

    return each(call.session, call.args, act)


@command(
    "Wait for containers; print exit codes",
    usage="CONTAINER [CONTAINER...]",
    arguments=at_least(1),
    completes="running",
)
def wait(call: Call) -> int:
    """Wait for containers."""

    def act(name: str) -> str:
        answer = call.session.post(f"/containers/{name}/wait")
        problem = (answer.get("Error") or {}).get("Message")
        if problem:
            raise Failure(problem)
        return str(answer["StatusCode"])

    return each(call.session, call.args, act)


@command(
    "Give a container another name",
    usage="CONTAINER NEW_NAME",
    arguments=exactly(2),
    completes="containers",
)
def rename(call: Call) -> None:
    """Rename a container."""
    old, new = (word.strip() for word in call.args)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    call.session.post(f"/containers/{old}/rename", name=new)
