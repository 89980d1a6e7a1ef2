"""Uploads that break, are refused for their size, or are not needed."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lading.errors import Denied, Unavailable
from lading.hooks import Context
from lading.hooks.registry import OutgoingImage, OutgoingLayer, PushedLayer, Remote
from lading.http import retries
from lading.model import oci
from lading_registry_v2 import RegistryV2, upload

server = pytest.importorskip("lading_registry_server.serve", reason="no registry to talk to")

CONTENT = bytes(range(256)) * 40_000


class Wire:
    """A TCP proxy that cuts connections after so many bytes from the client."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.cuts: list[int] = []
        self.patches = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._quietly, args=(client,), daemon=True).start()

    def _quietly(self, client: socket.socket) -> None:
        try:
            self._serve(client)
        except OSError:
            pass  # both ends may go at any time

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.create_connection(("127.0.0.1", self._target))
        threading.Thread(target=self._back, args=(upstream, client), daemon=True).start()
        left = -1
        with client, upstream:
            while data := client.recv(1 << 16):
                if data.startswith(b"PATCH "):
                    self.patches += 1
                    left = self.cuts.pop(0) if self.cuts else -1
                if 0 <= left <= len(data):
                    upstream.sendall(data[:left])
                    for end in (client, upstream):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                left -= len(data) if left > 0 else 0
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)

    def _back(self, upstream: socket.socket, client: socket.socket) -> None:
        try:
            while data := upstream.recv(1 << 16):
                client.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with server.running(tmp_path / "registry", ["127.0.0.1:0"]) as running:
        made = Wire(running.listeners[0].socket.getsockname()[1])
        yield made
        made.close()


def outgoing(content: bytes, *, known: bool, sources: tuple[str, ...] = ()) -> OutgoingLayer:
    digest = oci.digest_of(content)
    return OutgoingLayer(
        digest, digest if known else "", len(content) if known else -1, oci.LAYER,
        lambda: io.BytesIO(content), lambda: (digest, len(content)), sources,
    )  # fmt: skip


def push(remote: Remote, tmp_path: Path, layer: OutgoingLayer) -> PushedLayer:
    backend = RegistryV2(Context("v2", tmp_path, tmp_path))
    image = OutgoingImage("", b"{}", [layer])
    try:
        return backend.push_layer(remote=remote, image=image, layer=layer, tell=lambda sent: None)
    finally:
        backend.close(remote=remote)


def stored(tmp_path: Path) -> bytes:
    digest = oci.digest_of(CONTENT)
    return (tmp_path / "registry" / "blobs" / "sha256" / digest[7:]).read_bytes()


@pytest.mark.parametrize("known", [True, False])
def test_a_broken_upload_is_taken_up(wire: Wire, tmp_path: Path, known: bool) -> None:
    wire.cuts = [3_000_000, 2_000_000]
    remote = Remote(f"127.0.0.1:{wire.port}", "a", insecure=True, operation="one")
    done = push(remote, tmp_path, outgoing(CONTENT, known=known))
    assert (done.state, done.digest, done.size) == ("pushed", oci.digest_of(CONTENT), len(CONTENT))
    assert stored(tmp_path) == CONTENT
    assert wire.patches == 3


def test_an_upload_that_always_breaks_is_given_up(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PAUSE", 0.01)
    wire.cuts = [1000] * 20
    remote = Remote(f"127.0.0.1:{wire.port}", "a", insecure=True, operation="one")
    with pytest.raises(Unavailable):
        push(remote, tmp_path, outgoing(CONTENT, known=True))


def test_pieces_for_a_registry_that_takes_no_more(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PIECE", 3_000_000)
    real = upload.Connection.request

    def small(self: upload.Connection, method: str, path: str, **options: object) -> object:
        body = options.get("body")
        if method == "PATCH" and not isinstance(body, bytes):
            answer = real(self, "GET", "", scope="")
            answer.status = 413
            return answer
        return real(self, method, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(upload.Connection, "request", small)
    remote = Remote(f"127.0.0.1:{wire.port}", "a", insecure=True, operation="one")
    push(remote, tmp_path, outgoing(CONTENT, known=True))
    assert stored(tmp_path) == CONTENT
    assert wire.patches == 4


def test_mounted_from_another_repository(wire: Wire, tmp_path: Path) -> None:
    host = f"127.0.0.1:{wire.port}"
    push(Remote(host, "a", insecure=True, operation="one"), tmp_path, outgoing(CONTENT, known=True))
    there = outgoing(CONTENT, known=True, sources=("none", "a"))
    done = push(Remote(host, "b", insecure=True, operation="two"), tmp_path, there)
    assert done.state in ("mounted", "pushed")
    there = outgoing(CONTENT, known=True, sources=("a",))
    done = push(Remote(host, "c", insecure=True, operation="three"), tmp_path, there)
    assert done.state == "mounted"


@contextmanager
def guarded(tmp_path: Path) -> Iterator[str]:
    from lading_registry_server.users import Users

    Users(tmp_path / "users").add("me", "my password")
    with server.running(tmp_path / "r", ["127.0.0.1:0"], users=tmp_path / "users") as running:
        yield f"127.0.0.1:{running.listeners[0].socket.getsockname()[1]}"


def test_without_credentials(tmp_path: Path) -> None:
    with guarded(tmp_path) as host:
        remote = Remote(host, "me/a", insecure=True, operation="one")
        for known in (True, False):
            with pytest.raises(Denied, match="authentication required"):
                push(remote, tmp_path, outgoing(b"content", known=known))
