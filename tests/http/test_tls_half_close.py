"""TLS: the end of one direction takes nothing away from the other."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
import trustme

from lading.http.tls import TLSStream, client_context, server_context

SIZE = 3_000_000


@pytest.mark.parametrize("milliseconds", range(0, 16, 2))
def test_what_arrives_while_we_end_our_side_is_not_lost(tmp_path: Path, milliseconds: int) -> None:
    authority = trustme.CA()
    identity = authority.issue_cert("localhost")
    identity.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        stream = TLSStream.handshake(
            theirs, server_context(tmp_path / "server.pem", tmp_path / "server.pem")
        )
        stream.sendall(bytes(SIZE))
        stream.shutdown_write()
        while stream.recv(1 << 16):
            pass

    server = threading.Thread(target=serve)
    server.start()
    context = client_context(authorities=tmp_path / "ca.pem")
    stream = TLSStream.handshake(ours, context, server="localhost")

    def end() -> None:
        time.sleep(milliseconds / 1000)
        stream.shutdown_write()

    ending = threading.Thread(target=end)
    ending.start()
    received = 0
    while data := stream.recv(1 << 16):
        received += len(data)
    ours.shutdown(socket.SHUT_RDWR)
    ending.join()
    server.join()
    ours.close()
    theirs.close()
    assert received == SIZE
