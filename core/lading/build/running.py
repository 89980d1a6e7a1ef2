"""RUN: a container made from the image so far, its output, its changes."""

from __future__ import annotations

import codecs
import difflib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import msgspec

from lading.build.hosting import SCRIPT, Given
from lading.containers import Containers
from lading.containers.options import AttachOptions
from lading.errors import Cancelled, Conflict, Denied, Invalid, LadingError, NotFound
from lading.images import Image, NewLayer
from lading.model.docker import ContainerConfig, HostConfig, NetworkingConfig
from lading.model.dockerfile import Instruction

_FLAGS = ("mount", "network", "security")

WhenGone = Callable[[Callable[[], None]], AbstractContextManager[None]]


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
        when_gone: WhenGone,
    ) -> None:
        self._containers, self._host, self._when_gone = containers, host, when_gone

    def run(
        self,
        image: Image,
        instruction: Instruction,
        command: Command,
        given: Given,
        tell: Callable[[str], None],
        *,
        remove: bool,
        force_remove: bool,
        latest: int | None,
    ) -> NewLayer | None:
        """Run; the layer of what it changes. Raises CommandFailed."""
        host = self._hosting(instruction, given)
        config = ContainerConfig(
            image=image.id,
            cmd=list(command.words),
            entrypoint=[""],
            env=[*given.environment, *command.environment],
            attach_stdout=True,
            attach_stderr=True,
        )
        made = self._containers.create("", config, host, NetworkingConfig()).id
        keep = not force_remove
        gone = threading.Event()

        def stop() -> None:
            gone.set()
            self._kill(made)

        try:
            tell(f" ---> Running in {made[:12]}\n")
            with self._when_gone(stop):
                code = self._attached(made, given, tell)
            if gone.is_set():
                raise Cancelled("the client went away")
            if code:
                raise CommandFailed(
                    f"The command '{command.shown}' returned a non-zero code: {code}", code
                )
            done = self._containers.settle(
                made, keep=not remove, latest=latest, mount_points=given.mount_points
            )
            keep = not remove
            return done
        except CommandFailed:
            raise
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                self._containers.remove(made, force=True, volumes=True)
                tell(f"Removing intermediate container {made[:12]}\n") if remove else None

    def _kill(self, made: str) -> None:
        try:
            self._containers.kill(made)
        except (Conflict, NotFound):
            # It has ended by itself.
            return

    def _attached(self, made: str, given: Given, tell: Callable[[str], None]) -> int:
        wait = self._containers.wait(made, "next-exit")
        stream = self._containers.attach(made, AttachOptions(stdout=True, stderr=True))
        with stream.connect() as connection:
            self._containers.start(made, environment=given.hidden)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            for data in _frames(connection):
                if text := decoder.decode(data):
                    tell(text)
        return wait.result()[0]

    def _hosting(self, instruction: Instruction, given: Given) -> HostConfig:
        host = self._host
        for flag, value in instruction.flags:
            if flag == "network":
                host = msgspec.structs.replace(host, network_mode=_network(value))
            elif flag == "security":
                if value != "sandbox":
                    raise Denied(
                        f"RUN --security={value} is not allowed: a Dockerfile gets no more rights "
                        "than a container has by default"
                    )
            elif flag != "mount":
                near = difflib.get_close_matches(flag, _FLAGS, 1)
                told = f"did you mean --{near[0]}?" if near else "--mount --network --security"
                raise Invalid(f"unknown flag: --{flag} ({told})")
        return msgspec.structs.replace(
            host, mounts=[*host.mounts, *given.mounts], tmpfs={**host.tmpfs, **given.tmpfs}
        )


def _network(value: str) -> str:
    if value not in ("default", "none", "host"):
        raise Invalid(f"invalid network mode {value!r}")
    return "" if value == "default" else value


def _frames(connection: socket.socket) -> Iterator[bytes]:
    """The data of Docker's frames until the end."""
    buffer = b""
    while piece := connection.recv(1 << 16):
        buffer += piece
        while len(buffer) >= 8:
            size = struct.unpack(">I", buffer[4:8])[0]
            if len(buffer) < 8 + size:
                break
            yield buffer[8 : 8 + size]
            buffer = buffer[8 + size :]
