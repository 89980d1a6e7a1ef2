"""A daemon that records what a client asks and answers as it is told."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LADING = Path(sys.executable).with_name("lading")
API = "1.41"


@dataclass
class Asked:
    """One request: the path is without the version."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Respond = Callable[[Asked], Answer]


def answer(value: object, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


class FakeDaemon:
    """Routes are (method, regular expression of the path); the last added one wins."""

    def __init__(self, path: Path) -> None:
        self.asked: list[Asked] = []
        self.routes: list[tuple[str, str, Respond]] = []
        self.host = f"unix://{path}"
        self._server = _Server(str(path), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def on(self, method: str, path: str, respond: Respond | Answer | object) -> None:
        """Answer requests for a path."""
        if isinstance(respond, Answer):
            fixed = respond
            self.routes.insert(0, (method, path, lambda asked: fixed))
        elif callable(respond):
            self.routes.insert(0, (method, path, respond))
        else:
            given = answer(respond)
            self.routes.insert(0, (method, path, lambda asked: given))

    def find(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        for method, path, respond in self.routes:
            if method == asked.method and re.fullmatch(path, asked.path):
                return respond(asked)
        return answer({"message": f"page not found: {asked.method} {asked.path}"}, 404)

    def requests(self, path: str) -> list[Asked]:
        """What was asked for a path."""
        return [asked for asked in self.asked if re.fullmatch(path, asked.path)]

    def run(
        self,
        *words: str,
        program: str = "",
        input: bytes = b"",
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a client against it."""
        done = subprocess.run(
            [program or str(LADING), "-H", self.host, *words],
            input=input,
            capture_output=True,
            timeout=60,
            env={**os.environ, **(environment or {})},
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, fake: FakeDaemon) -> None:
        self.fake = fake
        super().__init__(path, Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path = re.sub(r"^/v\d+\.\d+", "", parts.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, path, query, headers, self._body())
        found = self.server.fake.find(asked)
        self.send_response(found.status)
        self.send_header("Api-Version", API)
        self.send_header("Ostype", "linux")
        for name, value in found.headers.items():
            self.send_header(name, value)
        if found.status != 101:
            self.send_header("Content-Length", str(len(found.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.body)
        if found.status == 101:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815 - http.server's names

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def frame(data: bytes, stream: int = 1) -> bytes:
    """Output as it travels without a terminal."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
