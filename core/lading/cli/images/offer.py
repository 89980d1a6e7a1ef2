"""``lading build --secret --ssh``: what the daemon may ask this client for during a build."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lading.cli.errors import Failure
from lading.cli.flags import Call
from lading.errors import LadingError
from lading.http.client import Upgraded

#: The daemon's limit too, in bytes.
LARGEST = 500 << 10
_WAITING = 2


def offered(call: Call, stack: ExitStack) -> str | None:
    """Offer the secrets and agents of the flags until the stack ends; how the daemon finds them.

    Raises Failure. None when there is nothing to offer.
    """
    known = dict(_secret(text) for text in call.texts("secret"))
    agents = dict(_agent(text, stack) for text in call.texts("ssh"))
    if not known and not agents:
        return None
    identity = secrets.token_hex(16)
    offer = _Offer(call, identity, known, agents)
    stack.callback(offer.close)
    for _ in range(_WAITING):
        offer.wait()
    return identity


def _fields(flag: str, text: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise Failure(f"invalid --{flag} {text!r}: field '{part}' must be a key=value pair")
        found[name] = value
    return found


def _secret(text: str) -> tuple[str, bytes]:
    fields = _fields("secret", text)
    unknown = set(fields) - {"id", "src", "source", "env", "type"}
    if unknown or not fields.get("id"):
        told = f"unexpected key '{min(unknown)}'" if unknown else "an id is missing"
        raise Failure(f"invalid --secret {text!r}: {told} (id=NAME[,src=PATH|,env=VARIABLE])")
    name, kind = fields["id"], fields.get("type", "")
    path = fields.get("src") or fields.get("source", "")
    variable = fields.get("env", "")
    if kind == "env" and path:
        variable, path = path, ""
    if kind not in ("", "env", "file") or (path and variable):
        raise Failure(f"invalid --secret {text!r}: one of src and env")
    if not path and not variable:
        # As buildx has it: a variable of that name, or else a file.
        variable, path = (name, "") if kind != "file" and name in os.environ else ("", name)
    if variable:
        if variable not in os.environ:
            raise Failure(f"invalid --secret {text!r}: the variable {variable} is not set")
        return name, os.environb[os.fsencode(variable)]
    try:
        with open(path, "rb") as file:
            value = file.read(LARGEST + 1)
    except OSError as error:
        raise Failure(f"invalid --secret {text!r}: {error.strerror}: {path}") from error
    if len(value) > LARGEST:
        raise Failure(f"invalid --secret {text!r}: longer than {LARGEST} bytes")
    return name, value


def _agent(text: str, stack: ExitStack) -> tuple[str, str]:
    """The name of an agent and its socket; keys get an agent of their own. Raises Failure."""
    name, equals, value = text.partition("=")
    paths = value.split(",") if equals and value else []
    if not paths:
        place = os.environ.get("SSH_AUTH_SOCK", "")
        if not place:
            raise Failure(
                f"invalid --ssh {text!r}: no SSH agent here: SSH_AUTH_SOCK is not set "
                f"(give keys: --ssh {name or 'default'}=PATH)"
            )
        paths = [place]
    try:
        kinds = {stat.S_ISSOCK(os.stat(path).st_mode) for path in paths}
    except OSError as error:
        raise Failure(f"invalid --ssh {text!r}: {error.strerror}: {error.filename}") from error
    if kinds == {True} and len(paths) == 1:
        return name or "default", paths[0]
    if True in kinds:
        raise Failure(f"invalid --ssh {text!r}: one socket, or keys")
    return name or "default", _agent_of(paths, stack)


def _agent_of(keys: Sequence[str], stack: ExitStack) -> str:
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        raise Failure("--ssh with keys needs ssh-agent and ssh-add (package openssh-client)")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lading-ssh-"))
    place = os.path.join(folder, "agent")
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", place], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    process.stdout.readline()  # it listens once it has told where
    for key in keys:
        done = subprocess.run(
            ["ssh-add", "-q", "--", key],
            env={**os.environ, "SSH_AUTH_SOCK": place},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failure(f'--ssh: key "{key}": {done.stderr.strip()}')
    return place


class _Offer:
    """Answers the daemon on connections of its own."""

    def __init__(
        self, call: Call, identity: str, known: Mapping[str, bytes], agents: Mapping[str, str]
    ) -> None:
        # The version is agreed on once, before threads ask for it.
        self._session, self._api = call.session, call.session.api
        self._identity, self._known, self._agents = identity, known, agents
        self._lock = threading.Lock()
        self._open: set[Upgraded] = set()
        self._closed = False

    def wait(self) -> None:
        """Open one more connection, and answer what the daemon asks on it."""
        threading.Thread(target=self._serve, name="build-session", daemon=True).start()

    def close(self) -> None:
        """Take the offer back."""
        with self._lock:
            self._closed = True
            left = list(self._open)
        for raw in left:
            raw.shutdown()

    def _serve(self) -> None:
        try:
            raw = self._session.upgrade("/build/session", query={"id": self._identity})
        except (Failure, LadingError, OSError):
            # The build itself tells that the daemon cannot be reached, or lacks a secret.
            return
        with raw:
            with self._lock:
                if self._closed:
                    return
                self._open.add(raw)
            try:
                self._answer(raw)
            except (OSError, ValueError):
                # The daemon has gone; the build's own connection tells so.
                return
            finally:
                with self._lock:
                    self._open.discard(raw)

    def _answer(self, raw: Upgraded) -> None:
        line = b""
        while not line.endswith(b"\n"):
            piece = raw.recv()
            if not piece:
                return
            line += piece
        self.wait()
        wish = json.loads(line)
        if "secret" in wish:
            value = self._known.get(wish["secret"])
            if value is None:
                _tell(raw, {"missing": True})
            else:
                _tell(raw, {"size": len(value)})
                raw.sendall(value)
        elif "agent" in wish:
            _tell(raw, {"ok": wish["agent"] in self._agents})
        elif wish.get("ssh") in self._agents:
            self._forward(raw, self._agents[wish["ssh"]])
        else:
            _tell(raw, {"missing": True})

    def _forward(self, raw: Upgraded, place: str) -> None:
        with socket.socket(socket.AF_UNIX) as agent:
            try:
                agent.connect(place)
            except OSError as error:
                _tell(raw, {"error": str(error)})
                return
            _tell(raw, {"ok": True})
            upwards = threading.Thread(target=_carry, args=(agent.recv, raw.sendall), daemon=True)
            upwards.start()
            _carry(raw.recv, agent.sendall)
            agent.shutdown(socket.SHUT_RDWR)
            upwards.join()


def _tell(raw: Upgraded, answer: Mapping[str, Any]) -> None:
    raw.sendall(json.dumps(answer).encode() + b"\n")


def _carry(read: Any, write: Any) -> None:
    try:
        while data := read(1 << 16):
            write(data)
    except OSError:
        # One side has ended: so does the other.
        return
