"""``lading build``."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from typing import Any, TextIO

from lading.cli.command import command, exactly
from lading.cli.creation.environment import labels, proxies
from lading.cli.creation.flags import memory_with_swap, size
from lading.cli.creation.values import extra_host, ulimit
from lading.cli.credentials import Credentials, header
from lading.cli.errors import Failure
from lading.cli.flags import Call, number, switch, text, texts
from lading.cli.images.context import make_context
from lading.cli.images.offer import offered
from lading.cli.images.outputs import deliver
from lading.cli.images.outputs import parse as parse_output
from lading.cli.images.reference import parse
from lading.cli.output.progress import Progress
from lading.cli.output.stages import Display
from lading.cli.output.units import human_size
from lading.cli.streams.terminal import is_terminal

SHOW_EVERY = 512 * 1024

FLAGS = (
    texts("add-host", "", "Line for /etc/hosts, NAME:ADDRESS", parse=extra_host),
    texts("allow", "", "Right that RUN may use, network.host or security.insecure", kind="strings"),
    texts("build-arg", "", "Value of an ARG, NAME=VALUE"),
    texts("cache-from", "", "Image whose layers may be reused", kind="strings"),
    text("cgroup-parent", "", "Cgroup above those of the steps"),
    switch("compress", "", "Send the context compressed"),
    number("cpu-period", "", "Period of the CPU quota, in microseconds"),
    number("cpu-quota", "", "CPU time in each period, in microseconds"),
    number("cpu-shares", "c", "Share of CPU time against others"),
    text("cpuset-cpus", "", "CPUs that steps may run on"),
    text("cpuset-mems", "", "Memory nodes that steps may use"),
    switch("disable-content-trust", "", "Accepted; images are not signed", default=True),
    text("file", "f", "The Dockerfile, if not PATH/Dockerfile"),
    switch("force-rm", "", "Remove intermediate containers even after a failure"),
    text("iidfile", "", "Write the image's id to this file"),
    text("isolation", "", "Isolation backend of the steps"),
    texts("label", "", "Label (key=value)"),
    size("memory", "m", "Limit of memory"),
    text(
        "memory-swap",
        "",
        "Limit of memory and swap together, -1 for none",
        kind="bytes",
        default=0,
        parse=memory_with_swap,
    ),
    text("network", "", "Network of the steps", default="default"),
    switch("no-cache", "", "Run all steps"),
    text("platform", "", "Platform of the image, os[/arch[/variant]]"),
    text("progress", "", "How it is shown: auto, plain, tty, quiet", default="auto"),
    switch("pull", "", "Look for newer base images"),
    switch("quiet", "q", "Print the image's id only"),
    texts("output", "o", "Where it goes: DIR, or type=local|tar|oci|docker|image,dest=PATH"),
    texts("secret", "", "Secret for RUN --mount, id=NAME[,src=PATH|,env=VARIABLE]"),
    switch("rm", "", "Remove intermediate containers", default=True),
    texts("security-opt", "", "Option of a security mechanism", kind="strings"),
    size("shm-size", "", "Size of /dev/shm"),
    switch("squash", "", "Make one layer of all new ones"),
    texts("ssh", "", "SSH agent or keys for RUN --mount, default|NAME[=SOCKET|KEY[,KEY]]"),
    texts("tag", "t", "Name of the image, name[:tag]"),
    text("target", "", "Stage to build"),
    texts("ulimit", "", "Limit of processes, name=soft[:hard]", kind="ulimit", parse=ulimit),
)


@command(
    "Build an image from a Dockerfile",
    usage="[OPTIONS] PATH | URL | -",
    arguments=exactly(1),
    flags=FLAGS,
)
def build(call: Call) -> None:
    """Send the context, show the steps, note the id."""
    for name in call.texts("tag"):
        parse(name)
    how = _how(call)
    wanted = [parse_output(value) for value in call.texts("output")]
    # What is told must not get into what is written.
    told = sys.stderr if any(output.to_stdout for output in wanted) else sys.stdout
    quiet, found = how == "quiet", _Result()
    with ExitStack() as stack:
        context = make_context(call.args[0], call.text("file"), stack)
        query = _query(call) | {"q": "1" if quiet else None, "progress": _SENT.get(how, how)}
        query |= {"dockerfile": context.dockerfile or None, "remote": context.remote or None}
        query["session"] = offered(call, stack)
        body: Iterator[bytes] | None = context.body
        if body is not None and call.on("compress"):
            body = _compressed(body)
        if body is not None and not quiet:
            body = _shown(body, told)
        out = _Buffer() if quiet else told
        try:
            messages = call.session.stream(
                "POST",
                "/build",
                query=query,
                body=body,
                headers={"Content-Type": "application/x-tar", **_registries(call)},
            )
            progress = Progress(out)  # type: ignore[arg-type]
            with Display(told) if how == "tty" else nullcontext() as display:
                progress.show(display.taken(messages) if display else messages, aux=found.note)
        except Failure:
            if isinstance(out, _Buffer):
                sys.stderr.write(out.text)
            raise
    identity = found.identity or (out.text.strip() if isinstance(out, _Buffer) else "")
    for output in wanted:
        deliver(call.session, identity, call.texts("tag"), output)
    if quiet and told is sys.stdout:
        call.session.print(identity)
    if call.text("iidfile"):
        if not identity:
            raise Failure(f'cannot write "{call.text("iidfile")}": the daemon told no image id')
        with open(call.text("iidfile"), "w", encoding="ascii") as file:
            file.write(identity)


#: What the daemon is told of how it is shown.
_SENT = {"tty": "stages"}


def _how(call: Call) -> str:
    """``auto``, ``plain``, ``tty`` or ``quiet``; the first is ``tty`` where that can be."""
    how = call.text("progress")
    if how not in ("auto", "plain", "tty", "quiet"):
        raise Failure(f'invalid --progress "{how}": auto, plain, tty or quiet')
    if call.on("quiet"):
        return "quiet"
    if how == "auto" and is_terminal(1) and os.environ.get("TERM", "dumb") != "dumb":
        return "tty"
    return how


class _Result:
    """The id among the results."""

    def __init__(self) -> None:
        self.identity = ""

    def note(self, aux: Any) -> None:
        """Take a result."""
        if isinstance(aux, dict) and aux.get("ID"):
            self.identity = aux["ID"]


class _Buffer:
    """Output that is shown only after a failure."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        """Add text."""
        self.text += text

    def flush(self) -> None:
        """Nothing is held elsewhere."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False


def _query(call: Call) -> dict[str, Any]:
    query: dict[str, Any] = {
        "t": call.texts("tag"),
        "nocache": "1" if call.on("no-cache") else None,
        "rm": "1" if call.on("rm") else "0",
        "forcerm": "1" if call.on("force-rm") else None,
        "pull": "1" if call.on("pull") else None,
        "cacheown": "1",
        "squash": "1" if call.on("squash") else None,
        "buildargs": _arguments(call),
        "labels": labels([], call.texts("label")),
        "cachefrom": [n for value in call.texts("cache-from") for n in value.split(",")],
        "ulimits": call.value("ulimit"),
    }
    for name in ("buildargs", "labels", "cachefrom", "ulimits"):
        query[name] = json.dumps(query[name]) if query[name] else None
    for parameter, flag in (
        ("networkmode", "network"),
        ("target", "target"),
        ("platform", "platform"),
        ("cgroupparent", "cgroup-parent"),
        ("cpusetcpus", "cpuset-cpus"),
        ("cpusetmems", "cpuset-mems"),
        ("isolation", "isolation"),
        ("cpuperiod", "cpu-period"),
        ("cpuquota", "cpu-quota"),
        ("cpushares", "cpu-shares"),
        ("memory", "memory"),
        ("memswap", "memory-swap"),
        ("shmsize", "shm-size"),
    ):
        query[parameter] = call.value(flag) or None
    query["allow"] = [n for value in call.texts("allow") for n in value.split(",")]
    for name in query["allow"]:
        if name not in ("network.host", "security.insecure"):
            raise Failure(f'invalid --allow "{name}": network.host or security.insecure')
    query["extrahosts"] = call.texts("add-host")
    query["securityopt"] = call.texts("security-opt")
    return query


def _arguments(call: Call) -> dict[str, str | None]:
    """``--build-arg``; a bare name takes this process's value, null when it has none."""
    found: dict[str, str | None] = {}
    for value in call.texts("build-arg"):
        name, equals, setting = value.partition("=")
        found[name] = setting if equals else os.environ.get(name)
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        found.setdefault("SOURCE_DATE_EPOCH", epoch)
    settings = call.session.settings.table("proxies")
    for name, setting in proxies(settings, call.session.host).items():
        found.setdefault(name, setting)
    return found


def _registries(call: Call) -> dict[str, str]:
    """Credentials of all registries: the daemon learns the base images from the Dockerfile."""
    return {"X-Registry-Config": header(Credentials(call.session.settings).all())}


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        if data := packer.compress(piece):
            yield data
    yield packer.flush()


def _shown(pieces: Iterator[bytes], out: TextIO) -> Iterator[bytes]:
    """Tell how much is sent: live on a terminal, once elsewhere."""
    sent = shown = 0
    live = out.isatty()
    for piece in pieces:
        yield piece
        sent += len(piece)
        if live and sent - shown >= SHOW_EVERY:
            shown = sent
            out.write(f"\rSending build context to the daemon  {human_size(sent)}\x1b[K")
            out.flush()
    start = "\r" if live else ""
    out.write(f"{start}Sending build context to the daemon  {human_size(sent)}\n")
    out.flush()
