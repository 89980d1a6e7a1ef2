"""Daemons behind TLS: flags and environment as Docker's client has them."""

from __future__ import annotations

import os
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fake_daemon import LADING, FakeDaemon, Handler


class TlsServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, fake: FakeDaemon, context: ssl.SSLContext) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A refused client is what some tests are about."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``ca.pem``, ``cert.pem`` and ``key.pem`` of a client."""
    return tmp_path


@pytest.fixture
def address(fake: FakeDaemon, folder: Path) -> Iterator[str]:
    """A daemon that wants a certificate of its clients."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    client = authority.issue_cert("client@example.test")
    client.private_key_pem.write_to_path(str(folder / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = TlsServer(fake, context)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    fake.on("GET", "/containers/json", [])
    yield f"tcp://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LADING, *words], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_flags(address: str, folder: Path) -> None:
    files = [
        *("--tlscacert", f"{folder}/ca.pem", "--tlscert", f"{folder}/cert.pem"),
        *("--tlskey", f"{folder}/key.pem"),
    ]
    assert run("-H", address, "--tlsverify", *files, "ps", "-q").returncode == 0
    assert run("-H", address, "--tls", *files[2:], "ps", "-q").returncode == 0


def test_environment(address: str, folder: Path) -> None:
    names = {"DOCKER_HOST": address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    assert run("ps", "-q", **names).returncode == 0


def test_refused_without_a_certificate_or_with_another_authority(
    address: str, folder: Path
) -> None:
    flags = ["--tlsverify", "--tlscacert", f"{folder}/ca.pem", "--tlscert=", "--tlskey="]
    done = run("-H", address, *flags, "ps")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = run("-H", address, "--tlsverify", "ps", DOCKER_CERT_PATH=str(folder / "none"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    done = run("-H", address, "--tlsverify", "--tlscacert", "/no/such", "ps")
    assert (done.returncode, "TLS files" in done.stderr) == (1, True)
