"""A registry behind a proxy that cuts, refuses, lies and stalls: verified content or one line."""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left
from lading.testing.registries import Site, free_port, own_registry
from lading.testing.waiting import until

pytestmark = pytest.mark.root


@dataclass
class Exchange:
    """One answer on its way through the proxy; faults change it."""

    path: str
    asked: dict[str, str]
    status: int
    headers: dict[str, str]
    body: bytes
    #: Bytes of the body that are sent before the connection is cut; None for all.
    cut: int | None = None
    #: Wait for the event there instead of cutting at once.
    stall: threading.Event | None = None
    garbage: bool = False

    @property
    def is_layer(self) -> bool:
        """Whether it is large content: a blob of v2 that is no config, a layer of v1."""
        return len(self.body) > 5000 and ("/blobs/" in self.path or self.path.endswith("/layer"))


Fault = Callable[[Exchange], None]


@dataclass
class Proxy:
    """Stands between the daemon and the registry."""

    target: str
    host: str = ""
    fault: Fault = lambda exchange: None
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                upstream = http.client.HTTPConnection(proxy.target, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k != "Connection"}
                upstream.request(self.command, self.path, self.rfile.read(length), headers)
                answer = upstream.getresponse()
                fields = {k: v for k, v in answer.getheaders() if k.lower() != "transfer-encoding"}
                exchange = Exchange(
                    self.path, dict(self.headers), answer.status, fields, answer.read()
                )
                upstream.close()
                if self.command == "GET":
                    proxy.seen.append((self.path, self.headers.get("Range", ""), ""))
                    exchange.headers["Content-Length"] = str(len(exchange.body))
                    proxy.fault(exchange)
                self.reply(exchange)

            def reply(self, exchange: Exchange) -> None:
                if exchange.garbage:
                    self.wfile.write(b"\x00\x01 no HTTP at all \xff" * 10)
                    self.close_connection = True
                    return
                self.send_response(exchange.status)
                for name, value in exchange.headers.items():
                    if name.lower() not in ("date", "server", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                body = exchange.body if exchange.cut is None else exchange.body[: exchange.cut]
                if self.command != "HEAD":
                    self.wfile.write(body)
                    self.wfile.flush()
                if exchange.stall is not None:
                    exchange.stall.wait(60)
                if exchange.cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = forward  # noqa: N815 - the base class wants these names

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        return Handler


@pytest.fixture(scope="module")
def upstream(scratch: Path) -> Iterator[Site]:
    """A registry that holds the image ``app:1``, of three layers."""
    with own_registry(scratch / "upstream") as running, nothing_left(), Daemon() as maker:
        maker.client("lading", "import", "-", "base", input=busybox_image())
        for number in (1, 2):
            command = f"head -c 60000 /dev/urandom > /f{number}"
            maker.client("lading", "run", "--name", f"c{number}", "base", "sh", "-c", command)
            maker.client("lading", "commit", f"c{number}", "base")
        name = f"{running.host}/app:1"
        maker.client("lading", "tag", "base", name)
        maker.client("lading", "push", name)
        identity = json.loads(maker.client("lading", "inspect", name).stdout)[0]["Id"]
        (running.root / "id").write_text(identity)
        maker.client("lading", "rm", "-f", "c1", "c2")
        yield running


@contextmanager
def proxied(upstream: Site, port: int) -> Iterator[Proxy]:
    proxy = Proxy(upstream.host, f"127.0.0.1:{port}")
    server = ThreadingHTTPServer(("127.0.0.1", port), proxy.handler())
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.fixture(scope="module", params=["v2", "v1"])
def puller(
    request: pytest.FixtureRequest, upstream: Site, scratch: Path
) -> Iterator[tuple[Daemon, Proxy]]:
    """A daemon and the proxy through which it reaches the registry, for each protocol."""
    port = free_port()
    config = scratch / f"{request.param}.toml"
    config.write_text(
        f'registry-timeout = 0.3\n[registry."127.0.0.1:{port}"]\ntransport = "{request.param}"\n'
    )
    with (
        proxied(upstream, port) as proxy,
        nothing_left(),
        Daemon(f"--config-file={config}") as daemon,
    ):
        yield daemon, proxy


@pytest.fixture
def clean(puller: tuple[Daemon, Proxy]) -> Iterator[tuple[Daemon, Proxy]]:
    """The pair without any image and with an honest proxy."""
    daemon, proxy = puller
    proxy.seen.clear()
    proxy.released.clear()
    before = len(daemon.log())
    yield puller
    no_fault_of_ours(daemon, before)
    proxy.released.set()
    proxy.fault = lambda exchange: None
    daemon.client("lading", "rmi", "-f", f"{proxy.host}/app:1", check=False)


def pull(daemon: Daemon, proxy: Proxy) -> subprocess.CompletedProcess[bytes]:
    return daemon.client("lading", "pull", f"{proxy.host}/app:1", check=False)


def image_is_whole(daemon: Daemon, proxy: Proxy, upstream: Site) -> None:
    name = f"{proxy.host}/app:1"
    shown = json.loads(daemon.client("lading", "inspect", name).stdout)[0]
    assert shown["Id"] == (upstream.root / "id").read_text()
    done = daemon.client("lading", "run", "--rm", name, "sh", "-c", "wc -c < /f1; wc -c < /f2")
    assert done.stdout.split() == [b"60000", b"60000"]


def nothing_is_here(daemon: Daemon) -> None:
    assert daemon.client("lading", "images", "-aq").stdout == b""


def no_fault_of_ours(daemon: Daemon, before: int) -> None:
    assert "Traceback" not in daemon.log()[before:]


def cut_at_random() -> Fault:
    dice = random.Random(20140609)

    def fault(exchange: Exchange) -> None:
        if dice.random() < 0.5:
            exchange.cut = dice.randrange(len(exchange.body) + 1)

    return fault


def every_second(status: int) -> Fault:
    state = {"count": 0}

    def fault(exchange: Exchange) -> None:
        state["count"] += 1
        if state["count"] % 2:
            exchange.status, exchange.body = status, b"{}"
            exchange.headers = {"Content-Length": "2", "Retry-After": "0"}

    return fault


def stall_in_layers(exchange: Exchange) -> None:
    if exchange.is_layer:
        exchange.cut = len(exchange.body) // 2
        exchange.stall = threading.Event()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(cut_at_random(), id="cut"),
        pytest.param(every_second(500), id="500"),
        pytest.param(every_second(429), id="429"),
        pytest.param(stall_in_layers, id="stall"),
    ],
)
def test_survived(clean: tuple[Daemon, Proxy], upstream: Site, fault: Fault) -> None:
    daemon, proxy = clean
    proxy.fault = fault
    done = pull(daemon, proxy)
    assert done.returncode == 0, done.stderr.decode()
    image_is_whole(daemon, proxy, upstream)


def flip(exchange: Exchange) -> None:
    middle = len(exchange.body) // 2
    flipped = bytes([exchange.body[middle] ^ 0xFF])
    exchange.body = exchange.body[:middle] + flipped + exchange.body[middle + 1 :]


def layers(change: Callable[[Exchange], None]) -> Fault:
    return lambda exchange: change(exchange) if exchange.is_layer else None


def documents(change: Callable[[Exchange], None]) -> Fault:
    """What describes an image: manifests and configs of v2, documents of v1."""

    def fault(exchange: Exchange) -> None:
        small = "/blobs/" in exchange.path and not exchange.is_layer
        if small or "/manifests/" in exchange.path or exchange.path.endswith("/json"):
            change(exchange)

    return fault


def shorten(exchange: Exchange) -> None:
    exchange.body = exchange.body[:-20]
    exchange.headers["Content-Length"] = str(len(exchange.body))


def lengthen(exchange: Exchange) -> None:
    exchange.body += b"x" * 5000
    exchange.headers["Content-Length"] = str(len(exchange.body))


def whole_for_a_part(exchange: Exchange) -> None:
    """Cuts the first answer, then sends something else for a range."""
    if "Range" in exchange.asked:
        flip(exchange)
    else:
        exchange.cut = len(exchange.body) // 2


def answer(status: int) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.status, exchange.body = status, b"{}"
        exchange.headers = {"Content-Length": "2"}

    return fault


def garbage(exchange: Exchange) -> None:
    exchange.garbage = True


def loop(exchange: Exchange) -> None:
    exchange.status, exchange.body = 307, b""
    exchange.headers = {"Content-Length": "0", "Location": exchange.path}


def stall_at_once(exchange: Exchange) -> None:
    exchange.cut, exchange.stall = 0, threading.Event()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(layers(flip), id="other layer"),
        pytest.param(documents(flip), id="other document"),
        pytest.param(documents(shorten), id="shorter document"),
        pytest.param(layers(whole_for_a_part), id="other part"),
        pytest.param(layers(answer(404)), id="layer is missing"),
        pytest.param(layers(answer(403)), id="layer is denied"),
        pytest.param(layers(answer(204)), id="layer is empty"),
        pytest.param(layers(garbage), id="no HTTP"),
        pytest.param(layers(loop), id="redirects for ever"),
        pytest.param(layers(stall_at_once), id="silence"),
        pytest.param(layers(answer(503)), id="unavailable"),
    ],
)
def test_refused_with_one_line(clean: tuple[Daemon, Proxy], fault: Fault) -> None:
    daemon, proxy = clean
    proxy.fault = fault
    done = pull(daemon, proxy)
    said = done.stderr.decode().strip().splitlines()
    assert done.returncode == 1, done.stdout.decode()
    assert len(said) == 1, said
    nothing_is_here(daemon)
    run = daemon.client("lading", "run", "--pull", "never", f"{proxy.host}/app:1", check=False)
    assert run.returncode == 125


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(layers(shorten), id="shorter layer"),
        pytest.param(layers(lengthen), id="longer layer"),
    ],
)
def test_verified_or_refused(clean: tuple[Daemon, Proxy], upstream: Site, fault: Fault) -> None:
    daemon, proxy = clean
    proxy.fault = fault
    done = pull(daemon, proxy)
    if done.returncode == 0:
        image_is_whole(daemon, proxy, upstream)
    else:
        assert len(done.stderr.decode().strip().splitlines()) == 1
        nothing_is_here(daemon)


def test_a_pull_goes_on_after_a_kill(
    clean: tuple[Daemon, Proxy], upstream: Site, request: pytest.FixtureRequest
) -> None:
    daemon, proxy = clean
    held = threading.Semaphore(0)

    def hold(exchange: Exchange) -> None:
        if exchange.is_layer:
            exchange.cut, exchange.stall = len(exchange.body) // 2, proxy.released
            held.release()

    proxy.fault = hold
    flags = ["-H", daemon.host, "pull", f"{proxy.host}/app:1"]
    pulling = subprocess.Popen(
        [find_client("lading"), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert held.acquire(timeout=60)
    until(lambda: any(part.stat().st_size for part in kept(daemon)), "nothing is written")
    daemon.kill()
    pulling.wait(60)
    proxy.released.set()
    proxy.fault = lambda exchange: None
    proxy.seen.clear()
    daemon.start()
    nothing_is_here(daemon)
    assert pull(daemon, proxy).returncode == 0
    image_is_whole(daemon, proxy, upstream)
    if any("/blobs/" in path for path, _, _ in proxy.seen):
        assert any(wanted for _, wanted, _ in proxy.seen), "nothing was taken up again"


def test_a_cancelled_pull_leaves_nothing(clean: tuple[Daemon, Proxy]) -> None:
    daemon, proxy = clean
    held = threading.Semaphore(0)

    def hold(exchange: Exchange) -> None:
        if exchange.is_layer:
            exchange.cut, exchange.stall = len(exchange.body) // 2, proxy.released
            held.release()

    proxy.fault = hold
    flags = ["-H", daemon.host, "pull", f"{proxy.host}/app:1"]
    pulling = subprocess.Popen(
        [find_client("lading"), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert held.acquire(timeout=60)
    pulling.send_signal(signal.SIGINT)
    pulling.wait(60)
    until(lambda: not kept(daemon), lambda: f"left: {kept(daemon)}")
    nothing_is_here(daemon)


def kept(daemon: Daemon) -> list[Path]:
    data = daemon.root / "data"
    return [*(data / "ingest").iterdir(), *(data / "blobs" / "sha256").iterdir()]


def test_two_pulls_fetch_each_layer_once(clean: tuple[Daemon, Proxy], upstream: Site) -> None:
    daemon, proxy = clean
    arrived = threading.Semaphore(0)

    def slow(exchange: Exchange) -> None:
        if exchange.is_layer:
            arrived.acquire(timeout=0.2)

    proxy.fault = slow
    command = [find_client("lading"), "-H", daemon.host, "pull", "-q", f"{proxy.host}/app:1"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    for _ in range(3):
        time.sleep(0.1)
        arrived.release()
    assert [pulling.wait(60) for pulling in both] == [0, 0]
    image_is_whole(daemon, proxy, upstream)
    fetched = [path for path, _, _ in proxy.seen if "/blobs/" in path or path.endswith("/layer")]
    large = [path for path in fetched if fetched.count(path) > 1]
    # Configs are small and asked for by each.
    config = (upstream.root / "id").read_text()
    assert [path for path in large if not path.endswith(config)] == []
