"""A daemon for all fuzz tests, and the promise that each of them checks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from lading.http.client import Client
from lading.testing.daemon import Daemon

#: Where all paths of the host lead that requests name.
PLACE = "/tmp/lading-fuzz"
#: Errors of the 500s that say something true of a request: not built in here, not there now.
HONEST = (501, 503)


class Target:
    """A daemon that must answer everything: with a result, or with a reason that is no bug."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._read = 0

    def call(
        self, method: str, path: str, /, _body: Any = None, _raw: bytes | None = None, **query: Any
    ) -> tuple[int, Any]:
        """Status and JSON of an answer, which is checked. Fails when it takes half a minute."""
        data = _raw if _raw is not None or _body is None else json.dumps(_body).encode()
        headers = {"Content-Type": "application/json" if _raw is None else "application/x-tar"}
        with (
            Client(self.daemon.host, timeout=30) as client,
            client.request(method, path, query=query, headers=headers, body=data) as response,
        ):
            text = response.read()
        shown = (
            f"{method} {path} {query} {(data or b'')[:2000]!r}: {response.status} {text[:500]!r}"
        )
        assert response.status < 500 or response.status in HONEST, shown + self.news()
        if response.status >= 400 and method != "HEAD":
            assert json.loads(text)["message"], shown
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def news(self) -> str:
        """What the daemon has logged since this was asked last."""
        log = self.daemon.log()
        fresh, self._read = log[self._read :], len(log)
        return fresh

    def tidy(self) -> None:
        """Remove what examples have made; fails when the daemon has logged a traceback."""
        _, containers = self.call("GET", "/containers/json", all=1)
        for row in containers:
            self.call("DELETE", f"/containers/{row['Id']}", force=1, v=1)
        _, networks = self.call("GET", "/networks")
        for row in networks:
            if row["Name"] not in ("bridge", "host", "none"):
                self.call("DELETE", f"/networks/{row['Id']}")
        _, volumes = self.call("GET", "/volumes")
        for row in volumes["Volumes"] or ():
            self.call("DELETE", f"/volumes/{row['Name']}", force=1)
        fresh = self.news()
        assert "Traceback" not in fresh, fresh


@pytest.fixture
def target(daemon: Daemon) -> Iterator[Target]:
    found = Target(daemon)
    found.news()
    yield found
    found.tidy()
    # Directories that mounts of containers have made on the host.
    shutil.rmtree(PLACE, ignore_errors=True)
