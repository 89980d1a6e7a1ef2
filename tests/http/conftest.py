"""A server for each way to reach one: unix socket, TCP, TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from lading.http.client import Client
from lading.http.listeners import listen
from lading.http.messages import App
from lading.http.server import Limits, Server
from lading.http.tls import client_context, server_context


@dataclass
class Certificates:
    """An authority, and what it signed."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def for_server(self) -> ssl.SSLContext:
        """Mutual TLS."""
        return server_context(self.server, self.server_key, client_authorities=self.authority)

    def for_client(self) -> ssl.SSLContext:
        """A client that shows its certificate."""
        return client_context(
            authorities=self.authority, certificate=self.client, key=self.client_key
        )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    root = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(root / "ca.pem")
    paths = {}
    for name, issued in (
        ("server", authority.issue_cert("127.0.0.1", "localhost")),
        ("client", authority.issue_cert("someone@example.org", common_name="someone")),
    ):
        issued.private_key_pem.write_to_path(root / f"{name}-key.pem")
        with (root / f"{name}.pem").open("wb") as file:
            file.writelines(blob.bytes() for blob in issued.cert_chain_pems)
        paths[name] = root / f"{name}.pem"
    return Certificates(
        root / "ca.pem",
        paths["server"],
        root / "server-key.pem",
        paths["client"],
        root / "client-key.pem",
    )


@dataclass
class Served:
    """A running server and what reaches it."""

    server: Server
    host: str
    client: Client
    port: int = 0


Serve = Callable[..., Served]


@pytest.fixture(params=["unix", "tcp", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(transport: str, tmp_path: Path, certificates: Certificates) -> Iterator[Serve]:
    """Serve an application over the transport at hand, until the test ends."""
    with ExitStack() as stack:

        def start(app: App, limits: Limits | None = None) -> Served:
            tls = certificates.for_server() if transport == "tls" else None
            if transport == "unix":
                address = f"unix://{tmp_path / 's'}"
                listeners = listen(address)
            else:
                listeners = listen("tcp://127.0.0.1:0", tls=tls)
            port = listeners[0].socket.getsockname()[1] if transport != "unix" else 0
            host = address if transport == "unix" else f"tcp://127.0.0.1:{port}"
            server = Server(app, listeners, limits=limits)
            server.start()
            stack.callback(server.stop, 0.2)
            client = Client(host, tls=certificates.for_client() if tls else None, timeout=30)
            stack.callback(client.close)
            return Served(server, host, client, port)

        yield start
