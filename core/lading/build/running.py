"""RUN: a container made from the image so far, its output, its changes."""

from __future__ import annotations

import codecs
import difflib
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import msgspec

from lading.build.hosting import SCRIPT, Given
from lading.build.output import Voice
from lading.build.stop import Stop
from lading.containers import Containers
from lading.containers.options import AttachOptions
from lading.errors import Conflict, Denied, Invalid, LadingError, NotFound
from lading.images import Image, NewLayer
from lading.model.docker import ContainerConfig, HostConfig, LogConfig, NetworkingConfig
from lading.model.dockerfile import Instruction
from lading.store.intents import Intents

_FLAGS = ("mount", "network", "security")

#: Docker's number of the stream.
_STDERR = 2

#: The intent of a container that a RUN is running in.
INTENT = "build-container"


class CommandFailed(LadingError):
    """A RUN ended with another code than 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: the words, and the environment beside the image's."""

    words: Sequence[str]
    environment: Sequence[str]
    shown: str


def words_of(
    instruction: Instruction, exec_form: list[str] | None, shell: Sequence[str]
) -> tuple[list[str], str]:
    """The program of a RUN with its documents as the shell reads them, and a script to give it.

    A document that is the whole command and begins with ``#!`` is a program itself.
    """
    if exec_form is not None:
        return exec_form, ""
    text = instruction.rest
    if instruction.heredocs:
        only = instruction.heredocs[0]
        if text.startswith("<<") and text.lstrip("<-").strip("\"'") == only.name:
            if only.content.startswith("#!"):
                return [SCRIPT], only.content
            return [*shell, only.content], ""
        documents = "".join(f"{d.content}{d.name}\n" for d in instruction.heredocs)
        text = f"{text}\n{documents}"
    return [*shell, text], ""


class Runner:
    """Runs commands of one build."""

    def __init__(
        self,
        containers: Containers,
        host: HostConfig,
        allowed: Collection[str],
        intents: Intents,
        stop: Stop,
    ) -> None:
        self._containers, self._host, self._allowed = containers, host, allowed
        self._intents, self._stop = intents, stop

    def run(
        self,
        image: Image,
        instruction: Instruction,
        command: Command,
        given: Given,
        voice: Voice,
        *,
        remove: bool,
        force_remove: bool,
        latest: int | None,
    ) -> tuple[NewLayer | None, str]:
        """Run; the layer of what it changes, and the container's id. Raises CommandFailed."""
        host = self._hosting(instruction, given)
        config = ContainerConfig(
            image=image.id,
            cmd=list(command.words),
            entrypoint=[""],
            env=[*given.environment, *command.environment],
            attach_stdout=True,
            attach_stderr=True,
        )
        name = f"build-{uuid4().hex[:12]}"
        intent = self._intents.begin(INTENT, name, durable=False)
        try:
            made = self._containers.create(name, config, host, NetworkingConfig()).id
            layer = self._used(
                made, command, given, voice, keep=not remove, keep_failed=not force_remove,
                latest=latest,
            )  # fmt: skip
            return layer, made
        finally:
            self._intents.end(intent)

    def _used(
        self,
        made: str,
        command: Command,
        given: Given,
        voice: Voice,
        *,
        keep: bool,
        keep_failed: bool,
        latest: int | None,
    ) -> NewLayer | None:
        kept = False
        try:
            voice.tell(f" ---> Running in {made[:12]}\n")
            with self._stop.calling(lambda: self._kill(made)):
                code = self._attached(made, given, voice)
            self._stop.check()
            if code:
                kept = keep_failed
                raise CommandFailed(
                    f"The command '{command.shown}' returned a non-zero code: {code}", code
                )
            done = self._containers.settle(
                made, keep=keep, latest=latest, mount_points=given.mount_points
            )
            kept = keep
            return done
        finally:
            if not kept:
                self._containers.remove(made, force=True, volumes=True)
                if not keep:
                    voice.tell(f"Removing intermediate container {made[:12]}\n")

    def _kill(self, made: str) -> None:
        try:
            self._containers.kill(made)
        except (Conflict, NotFound):
            # It has not started yet, or ended by itself.
            return

    def _attached(self, made: str, given: Given, voice: Voice) -> int:
        wait = self._containers.wait(made, "next-exit")
        stream = self._containers.attach(made, AttachOptions(stdout=True, stderr=True))
        with stream.connect() as connection:
            self._containers.start(made, environment=given.hidden)
            if self._stop.event.is_set():
                self._kill(made)
            # Output and errors each with the part of a character that one piece may end with.
            out, err = (codecs.getincrementaldecoder("utf-8")("replace") for _ in range(2))
            for kind, data in _frames(connection):
                if kind == _STDERR and (text := err.decode(data)):
                    voice.tell_error(text)
                elif kind != _STDERR and (text := out.decode(data)):
                    voice.tell(text)
        return wait.result()[0]

    def check(self, instruction: Instruction) -> None:
        """Raise Invalid or Denied for flags that are wrong or may not be used, though the cache
        may have the result of others who may."""
        self._hosting(instruction, Given())

    def _hosting(self, instruction: Instruction, given: Given) -> HostConfig:
        # What it writes goes to the client; nobody asks for it later.
        host = msgspec.structs.replace(self._host, log_config=LogConfig(type="none"))
        for flag, value in instruction.flags:
            if flag == "network":
                host = self._networked(host, value)
            elif flag == "security":
                host = self._secured(host, value)
            elif flag != "mount":
                near = difflib.get_close_matches(flag, _FLAGS, 1)
                told = f"did you mean --{near[0]}?" if near else "--mount --network --security"
                raise Invalid(f"unknown flag: --{flag} ({told})")
        return msgspec.structs.replace(
            host, mounts=[*host.mounts, *given.mounts], tmpfs={**host.tmpfs, **given.tmpfs}
        )

    def _networked(self, host: HostConfig, value: str) -> HostConfig:
        if value not in ("default", "none", "host"):
            raise Invalid(f"invalid network mode {value!r} (default, none or host)")
        if value == "default":
            return host
        if value == "host" and host.network_mode != "host":
            self._check_allowed("--network=host", "network.host")
        return msgspec.structs.replace(host, network_mode=value)

    def _secured(self, host: HostConfig, value: str) -> HostConfig:
        if value not in ("sandbox", "insecure"):
            raise Invalid(f"invalid security mode {value!r} (sandbox or insecure)")
        if value == "sandbox":
            return host
        self._check_allowed("--security=insecure", "security.insecure")
        return msgspec.structs.replace(host, privileged=True)

    def _check_allowed(self, what: str, entitlement: str) -> None:
        """Who builds may give a Dockerfile more rights; it cannot take them by itself."""
        if entitlement not in self._allowed:
            raise Denied(f"RUN {what} is not allowed (give it: --allow {entitlement})")


def _frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Docker's frames until the end: of which stream, and the data."""
    buffer = b""
    while piece := connection.recv(1 << 16):
        buffer += piece
        while len(buffer) >= 8:
            size = struct.unpack(">I", buffer[4:8])[0]
            if len(buffer) < 8 + size:
                break
            yield buffer[0], buffer[8 : 8 + size]
            buffer = buffer[8 + size :]
