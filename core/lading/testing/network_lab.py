"""A network namespace that plays a host, and what a test does with it: serve, ask, look."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lading.hooks.network import Endpoint, Network, NetworkBackend
from lading.linux import syscalls
from lading.linux.mounts import MS_BIND
from lading.testing.waiting import until

SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFHWADDR, IFF_UP = 0x8913, 0x8915, 0x8927, 1

#: How long an answer may take on a busy machine, and how long none must come.
ANSWER_SECONDS = 10.0
SILENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as seen from inside its namespace."""

    up: bool
    address: str
    mac: str


class Lab:
    """A fresh network namespace for the calling thread; a context manager that undoes it all."""

    HOST: ClassVar[str] = "10.232.0.1"
    OTHER: ClassVar[str] = "10.232.0.2"
    HOST6: ClassVar[str] = "fd32::1"
    OTHER6: ClassVar[str] = "fd32::2"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._namespaces = directory / "netns"
        self._servers: list[socket.socket] = []

    def __enter__(self) -> Lab:
        self._namespaces.mkdir()
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _ip("link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            # close() alone would leave the thread blocked in accept().
            try:
                server.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            server.close()
        for path in self._namespaces.iterdir():
            self.end(str(path))
        syscalls.setns(self._outside, syscalls.CLONE_NEWNET)
        os.close(self._outside)
        os.close(self._home)

    # Namespaces

    def path(self, name: str) -> str:
        """Where a namespace is."""
        return str(self._namespaces / name)

    def namespace(self, name: str) -> str:
        """A new namespace with ``lo`` up, such as the core makes; returns its path."""
        path = self.path(name)
        Path(path).touch()
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            syscalls.mount("/proc/thread-self/ns/net", path, None, MS_BIND)
            _ip("link set lo up")
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)
        return path

    def end(self, path: str) -> None:
        """Let a namespace go."""
        syscalls.umount2(path, syscalls.MNT_DETACH)
        os.unlink(path)

    @contextmanager
    def inside(self, netns: str | None) -> Iterator[None]:
        """Run the block in a namespace; None is the host's."""
        if netns is None:
            yield
            return
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
            yield
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)
            os.close(descriptor)

    def two(
        self, backend: NetworkBackend, network: Network, *, ipv6: bool = False
    ) -> tuple[str, str]:
        """The network with two endpoints, .2 and .3, in namespaces of their own."""
        from lading.testing.network import endpoint

        number = int(network.id[0], 16)
        backend.create(network=network)
        paths = []
        for host in (2, 3):
            netns = self.namespace(f"n{number}-{host}")
            made: Endpoint = endpoint(number, host, ipv6=ipv6)
            backend.attach(network=network, endpoint=made, netns=netns)
            paths.append(netns)
        return paths[0], paths[1]

    def other_host(self) -> str:
        """A namespace that plays another machine on a cable to this one; routes go through us."""
        netns = self.namespace("other")
        name = f"ldt{secrets.token_hex(4)}"
        with self.inside(netns):
            # Made there and handed over: "ip" knows namespaces by its own directory only.
            _ip(f"link add eth0 type veth peer name {name}")
            _ip(f"link set {name} netns /proc/{os.getpid()}/fd/{self._home}")
            _ip(f"addr add {self.OTHER}/24 dev eth0")
            _ip(f"addr add {self.OTHER6}/64 dev eth0 nodad")
            _ip("link set eth0 up")
        _ip(f"addr add {self.HOST}/24 dev {name}")
        _ip(f"addr add {self.HOST6}/64 dev {name} nodad")
        _ip(f"link set {name} up")
        with self.inside(netns):
            _ip(f"route add default via {self.HOST}")
            _ip(f"-6 route add default via {self.HOST6}")
            _wait_for_carrier("eth0")
        _wait_for_carrier(name)
        return netns

    # Traffic

    def serve(
        self,
        netns: str | None,
        port: int,
        word: str = "",
        *,
        address: str = "0.0.0.0",
        kind: socket.SocketKind = socket.SOCK_STREAM,
    ) -> None:
        """Answer with ``word``, or with the address of whoever asks, until the lab ends."""
        with self.inside(netns):
            server = socket.socket(_family(address), kind)
        server.bind((address, port))
        self._servers.append(server)
        if kind == socket.SOCK_STREAM:
            server.listen()
        target = _answer_streams if kind == socket.SOCK_STREAM else _answer_datagrams
        threading.Thread(target=target, args=[server, word], daemon=True).start()

    def ask(
        self,
        netns: str | None,
        address: str,
        port: int,
        *,
        kind: socket.SocketKind = socket.SOCK_STREAM,
        seconds: float = ANSWER_SECONDS,
    ) -> str | None:
        """What the server there answers; None when it cannot be reached."""
        with self.inside(netns):
            client = socket.socket(_family(address), kind)
        with client:
            client.settimeout(seconds)
            try:
                client.connect((address, port))
                client.send(b"?")
                return client.recv(256).decode()
            except OSError:
                return None

    def unreachable(self, netns: str | None, address: str, port: int) -> bool:
        """Whether no server there can be reached."""
        return self.ask(netns, address, port, seconds=SILENCE_SECONDS) is None

    # Looking

    def interfaces(self, netns: str | None = None) -> list[str]:
        """Names of all interfaces."""
        with self.inside(netns):
            return sorted(name for _, name in socket.if_nameindex())

    def has_address(self, address: str) -> bool:
        """Whether the host has an address."""
        with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError:
                return False
        return True

    def interface(self, netns: str, name: str) -> Interface:
        """One interface; raises OSError when there is none."""
        with self.inside(netns):
            control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with control:
            request = struct.pack("16s24x", name.encode())
            flags = fcntl.ioctl(control, SIOCGIFFLAGS, request)
            address = fcntl.ioctl(control, SIOCGIFADDR, request)
            mac = fcntl.ioctl(control, SIOCGIFHWADDR, request)
        return Interface(
            bool(struct.unpack_from("=16sh", flags)[1] & IFF_UP),
            socket.inet_ntoa(address[20:24]),
            mac[18:24].hex(":"),
        )

    def default_gateway(self, netns: str) -> str:
        """The gateway of the default route in IPv4, "" without one."""
        with self.inside(netns):
            rows = Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
        for row in rows:
            _, destination, gateway, *_ = row.split()
            if int(destination, 16) == 0:
                return socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
        return ""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _wait_for_carrier(name: str) -> None:
    until(lambda: "state UP" in _ip(f"link show {name}"), f"{name} has no carrier", 0.001)


def _ip(line: str) -> str:
    done = subprocess.run(
        ["ip", *line.split()], capture_output=True, text=True, check=False, close_fds=False
    )
    if done.returncode:
        raise OSError(f"ip {line}: {done.stderr.strip()}")
    return done.stdout


def _answer_streams(server: socket.socket, word: str) -> None:
    while True:
        try:
            connection, peer = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall((word or str(peer[0])).encode())


def _answer_datagrams(server: socket.socket, word: str) -> None:
    while True:
        try:
            data, peer = server.recvfrom(64)
            if not data:
                return
            server.sendto((word or str(peer[0])).encode(), peer)
        except OSError:
            return
