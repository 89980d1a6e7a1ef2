"""A registry in this process, and a plain HTTP client for it."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lading_registry_server.serve import running
from lading_registry_server.users import Users


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code of the distribution API."""
        return str(self.json["errors"][0]["code"])


class Site:
    """A running registry, asked as a client on the wire asks it."""

    def __init__(self, port: int, root: Path) -> None:
        self.host, self.root = f"127.0.0.1:{port}", root

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | object = None,
        *,
        user: str = "",
        **headers: str,
    ) -> Answer:
        """One request; an iterator goes in chunks, other bodies than bytes as JSON; ``user`` is
        ``name:password``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if user:
            sent["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        if body is not None and not isinstance(body, (bytes, Iterator)):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, body, sent)  # type: ignore[arg-type]
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts a registry; with users, admins are those whose name says so."""
    with ExitStack() as stack:

        def begin(
            root: str = "registry",
            *,
            users: tuple[str, ...] = (),
            signup: bool = False,
            **more: Any,
        ) -> Site:
            file = tmp_path / "users" if users or signup else None
            for name in users:
                assert file is not None
                Users(file).add(name, f"{name}-word", admin=name == "admin")
            server = stack.enter_context(
                running(tmp_path / root, ["127.0.0.1:0"], users=file, signup=signup, **more)
            )
            return Site(server.listeners[0].socket.getsockname()[1], tmp_path / root)

        yield begin


@pytest.fixture
def site(start: Callable[..., Site]) -> Site:
    """A registry without users."""
    return start()
