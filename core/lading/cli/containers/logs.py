"""``lading logs``."""

from __future__ import annotations

from lading.cli.command import command, exactly
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text
from lading.cli.output.units import timestamp
from lading.cli.streams.attachment import copy_frames
from lading.http.client import Response


@command(
    "Show what a container has written",
    usage="[OPTIONS] CONTAINER",
    arguments=exactly(1),
    flags=(
        switch("details", "", "Show what the logging driver adds"),
        switch("follow", "f", "Go on with what it writes from now on"),
        text("since", "", "Since a time, or a duration such as 42m ago"),
        text("tail", "n", "Only so many lines from the end", default="all"),
        switch("timestamps", "t", "Show when each line was written"),
        text("until", "", "Until a time, or a duration such as 42m ago"),
    ),
    completes="containers",
)
def logs(call: Call) -> None:
    """Show the logs of a container, stdout and stderr apart."""
    session, name = call.session, call.args[0]
    container = session.get(f"/containers/{name}/json")
    try:
        since, until = timestamp(call.text("since")), timestamp(call.text("until"))
    except ValueError as error:
        raise Failure(f"invalid value for time: {error}") from error
    query = {
        "stdout": "1",
        "stderr": "1",
        "since": since or None,
        "until": until or None,
        "timestamps": "1" if call.on("timestamps") else None,
        "follow": "1" if call.on("follow") else None,
        "tail": call.text("tail"),
        "details": "1" if call.on("details") else None,
    }
    path = f"/containers/{container['Id']}/logs"
    with session.request("GET", path, query=query) as response:
        copy_frames(ResponseSource(response), raw=bool(container["Config"]["Tty"]))


class ResponseSource:
    """A response's body as what :func:`copy_frames` reads from."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def recv(self, size: int, /) -> bytes:
        """Some bytes; none at the end."""
        return self._response.read1(size)
