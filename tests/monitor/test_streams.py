"""Attached clients: fan-out, half-close, terminals, throughput, slow readers."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lading.errors import Conflict
from lading.monitor import AttachSpec, LogConfig, MonitorEvent

SIZE = 100_000_000


def private_memory(pid: int) -> int:
    """Kilobytes that belong to the process alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("Private_Dirty:")[2].split()[0])


def until(stream: socket.socket, text: bytes) -> bytes:
    stream.settimeout(20)
    found = b""
    while text not in found:
        block = stream.recv(65536)
        assert block, f"the stream ended after {found!r}"
        found += block
    return found


def test_every_client_gets_all_output(containers: Any, frames: Any) -> None:
    monitor = containers.run("sh", "-c", "echo out; echo err >&2", start=False)
    both, only = monitor.attach(), monitor.attach(stdout=False)
    monitor.start()
    assert frames(both) == {1: b"out\n", 2: b"err\n"}
    assert frames(only) == {1: b"", 2: b"err\n"}


def test_half_close_ends_the_input_and_output_still_comes(containers: Any, frames: Any) -> None:
    monitor = containers.run("sh", "-c", "wc -c; seq 20000", open_stdin=True, stdin_once=True)
    with monitor.attach(stdin=True) as stream:
        stream.sendall(b"12345")
        stream.shutdown(socket.SHUT_WR)
        output = frames(stream)[1].decode().split()
    assert output == ["5", *(str(n) for n in range(1, 20001))]
    assert monitor.wait(60).code == 0


def test_a_client_that_goes_away_ends_the_input_too(containers: Any) -> None:
    monitor = containers.run("cat", open_stdin=True, stdin_once=True)
    stream = monitor.attach(stdin=True)
    stream.sendall(b"last words\n")
    stream.close()
    assert monitor.wait(60).code == 0
    assert b"last words" in containers.log().read_bytes()


def test_open_stdin_survives_its_clients(containers: Any) -> None:
    monitor = containers.run("cat", open_stdin=True)
    for text in (b"one\n", b"two\n"):
        with monitor.attach(stdin=True) as stream:
            stream.sendall(text)
            assert until(stream, text)
            stream.shutdown(socket.SHUT_WR)
            assert stream.recv(10) == b""
    assert monitor.state().status == "running"
    monitor.close_stdin()
    assert monitor.wait(60).code == 0


def test_a_client_without_stdin_may_half_close(containers: Any, frames: Any) -> None:
    monitor = containers.run("sh", "-c", "sleep 0.3; echo late")
    with monitor.attach() as stream:
        stream.shutdown(socket.SHUT_WR)
        assert frames(stream)[1] == b"late\n"


def test_input_goes_on_after_the_outputs_are_closed(containers: Any, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    monitor = containers.run(
        "sh", "-c", f"exec >{target} 2>&1; cat", open_stdin=True, stdin_once=True
    )
    with monitor.attach(stdin=True) as stream:
        assert stream.recv(10) == b""
        stream.sendall(b"more")
        stream.shutdown(socket.SHUT_WR)
        monitor.wait(60)
    assert target.read_bytes() == b"more"


def test_the_prelude_comes_first(containers: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        spec = AttachSpec("attach-0", prelude=b"HTTP/1.1 200 OK\r\n\r\n")
        launch = containers.define("echo", "hi", attach=[spec])
        containers.launch(launch, {"attach-0": theirs.fileno()})
        theirs.close()
        assert until(ours, b"hi\n").startswith(b"HTTP/1.1 200 OK\r\n\r\n\x01\0\0\0\0\0\0\3hi\n")


def test_a_tcp_client_can_be_handed_over(containers: Any, frames: Any) -> None:
    monitor = containers.run("cat", open_stdin=True, stdin_once=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with accepted:
        monitor.attach_descriptor(accepted.fileno(), AttachSpec("", stdin=True))
    with client:
        client.sendall(b"over tcp")
        client.shutdown(socket.SHUT_WR)
        assert frames(client)[1] == b"over tcp"


def test_a_terminal_is_raw_and_resizable(containers: Any) -> None:
    monitor = containers.run(
        "sh", "-c", "stty size; read x; stty size; cat",
        terminal=True, open_stdin=True, stdin_once=True, start=False,
    )  # fmt: skip
    with monitor.attach(stdin=True) as stream:
        monitor.start()
        assert until(stream, b"0 0\r\n")
        monitor.resize(33, 44)
        stream.sendall(b"go\n")
        assert until(stream, b"33 44\r\n")
        stream.sendall(b"\x04")
        assert monitor.wait(60).code == 0
        assert stream.recv(10) == b""


def test_only_a_terminal_can_be_resized(containers: Any) -> None:
    with pytest.raises(Conflict, match="no terminal"):
        containers.run("sleep", "60").resize(1, 1)


def test_detach_keys_let_the_client_go_and_the_container_on(
    containers: Any, wait_until: Any
) -> None:
    monitor = containers.run("cat", terminal=True, open_stdin=True, stdin_once=True)
    events: list[MonitorEvent] = []
    monitor.on_event(events.append)
    with monitor.attach(stdin=True, detach_keys=b"\x01x") as stream:
        stream.sendall(b"a\x01b\x01")
        until(stream, b"b")
        stream.sendall(b"x")
        stream.settimeout(20)
        while stream.recv(100):
            pass
    wait_until(lambda: [e.kind for e in events] == ["detach"])
    assert monitor.state().status == "running"
    with monitor.attach(stdin=True) as stream:
        stream.sendall(b"\n\x04")
        assert monitor.wait(60).code == 0


def send_and_close(stream: socket.socket, size: int) -> str:
    digest, block = hashlib.sha256(), os.urandom(1 << 20)
    while size > 0:
        piece = block[: min(size, len(block))]
        stream.sendall(piece)
        digest.update(piece)
        size -= len(piece)
    stream.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


@pytest.mark.parametrize("driver", ["none", "json-file"])
def test_a_hundred_megabytes_both_ways(containers: Any, driver: str, tmp_path: Path) -> None:
    size = SIZE if driver == "none" else SIZE // 4
    monitor = containers.run(
        "cat", open_stdin=True, stdin_once=True, log=LogConfig(driver, tmp_path / "big")
    )
    sent: list[str] = []
    with monitor.attach(stdin=True) as stream:
        sender = threading.Thread(target=lambda: sent.append(send_and_close(stream, size)))
        sender.start()
        digest, total = hashlib.sha256(), 0
        file = stream.makefile("rb", 1 << 18)
        while header := file.read(8):
            data = file.read(int.from_bytes(header[4:], "big"))
            digest.update(data)
            total += len(data)
        sender.join()
    assert total == size
    assert digest.hexdigest() == sent[0]
    assert monitor.wait(60).code == 0


def test_a_slow_client_stalls_the_container_and_costs_no_memory(
    containers: Any, wait_until: Any, frames: Any
) -> None:
    monitor = containers.run("sh", "-c", "yes | head -c 20000000", start=False)
    stream = monitor.attach()
    monitor.start()
    size = -1

    def stalled() -> bool:
        nonlocal size
        time.sleep(0.2)
        before, size = size, containers.log().stat().st_size
        return bool(before == size > 0)

    wait_until(stalled)
    assert size < 20_000_000
    assert private_memory(monitor.monitor_pid) < 8000
    assert frames(stream)[1] == b"y\n" * 10_000_000
    assert monitor.wait(60).code == 0


def test_a_client_that_never_reads_does_not_hide_the_exit(containers: Any) -> None:
    monitor = containers.run(
        "sh", "-c", "head -c 200000 /dev/zero & sleep 0.2; kill -9 $$", start=False
    )
    with monitor.attach():
        monitor.start()
        assert monitor.wait(60).code == 137


def test_input_beyond_what_the_process_reads_is_let_go(containers: Any) -> None:
    monitor = containers.run("head", "-c", "5", open_stdin=True, stdin_once=True)
    with monitor.attach(stdin=True) as stream:
        stream.settimeout(20)
        try:
            for _ in range(1000):
                stream.sendall(b"x" * 10000)
        except OSError:
            pass
        assert monitor.wait(60).code == 0
