"""Published ports: what is asked for, which host port it becomes, and keeping that port.

A host port is kept by a bound socket (no SO_REUSEADDR, never listening): the kernel then refuses
it to everybody else, as it refuses us one that is in use. Traffic never reaches these sockets: the
backend's rules lead it to the container first. However many they are, they lie in the queue of one
Unix socket (unix(7), SCM_RIGHTS), which goes to the container's monitor as one descriptor: so the
ports stay kept while the daemon restarts.

Where no rule can lead to the container, the socket listens, and :mod:`lading.monitor.relay` carries
what comes: from ``::1``, which the kernel routes nowhere, and from any IPv6 address to a container
that only has an IPv4 one.
"""

from __future__ import annotations

import errno
import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lading.errors import Conflict, Invalid
from lading.model.docker import Empty, PortBinding
from lading.networks.records import PublishedPort

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
ANY4, ANY6 = "0.0.0.0", "::"
BACKLOG = 128

#: How long a port of ours that was given up may still be held by a monitor that is ending.
LINGER_SECONDS = 2.0

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port to publish on one host port of ``first`` to ``last``; both 0: any free one."""

    container_port: int
    protocol: str
    host_ip: str
    first: int
    last: int


def parse_span(text: str, what: str) -> tuple[int, int]:
    """Read ``8080`` or ``8000-8010``. Raises Invalid."""
    match = _PORT.fullmatch(text)
    first = int(match[1]) if match else -1
    last = int(match[2] or match[1]) if match else -1
    if not 0 <= first <= last <= 65535:
        raise Invalid(f'invalid {what} "{text}": not a port or a range of ports')
    return first, last


def exposed(ports: Mapping[str, Empty]) -> list[tuple[int, str]]:
    """(port, protocol) of keys such as ``80/tcp``, ``53/udp``, ``8000-8010``. Raises Invalid."""
    found = []
    for key in ports:
        span, _, protocol = key.partition("/")
        first, last = parse_span(span, "port")
        found += [(port, _protocol(protocol)) for port in range(first, last + 1)]
    return sorted(set(found), key=lambda p: (p[1], p[0]))


def _protocol(text: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise Invalid(f'invalid protocol "{text}": tcp, udp or sctp')
    return protocol


def wanted(
    bindings: Mapping[str, Sequence[PortBinding]],
    exposed_ports: Mapping[str, Empty] | None = None,
    default_ip: str = "",
) -> list[Wanted]:
    """What is to be published; ``exposed_ports`` when all of these are. Raises Invalid."""
    found = []
    for key, rows in bindings.items():
        for port, protocol in exposed({key: Empty()}):
            for row in rows or [PortBinding()]:
                first, last = parse_span(row.host_port or "0", "host port")
                ip = _host_ip(row.host_ip) or default_ip
                found.append(Wanted(port, protocol, ip, first, last))
    published = {(w.container_port, w.protocol) for w in found}
    for port, protocol in exposed(exposed_ports or {}):
        if (port, protocol) not in published:
            found.append(Wanted(port, protocol, default_ip, 0, 0))
    return found


def _host_ip(text: str) -> str:
    text = text.strip("[]")
    if not text:
        return ""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except OSError:
            continue
    raise Invalid(f'invalid host IP "{text}"')


class HostPorts:
    """The host ports of all containers of this daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._ours: dict[tuple[str, int], set[str]] = {}
        self._left: dict[tuple[str, int], float] = {}
        self._ephemeral = _ephemeral()
        self._next = 0

    def reserve(
        self, container: str, ports: Sequence[Wanted], *, ipv6: bool, relay_to: str = ""
    ) -> tuple[PublishedPort, ...]:
        """Choose and keep host ports, all or none. ``ipv6``: publish on ``::`` as well.

        ``relay_to``: the container's address that the monitor can carry to what no rule leads
        there; it publishes on ``::`` where the host has IPv6. Raises Conflict for a port that is in
        use, naming it.
        """
        ipv6 = ipv6 or bool(relay_to and _has("tcp", socket.AF_INET6))
        with self._lock, Held(relay_to) as held:
            published: list[PublishedPort] = []
            chosen: set[tuple[str, int]] = set()
            for port in ports:
                number, sockets = self._choose(port, chosen, relay_to)
                held.keep(sockets, port.container_port)
                chosen.add((port.protocol, number))
                for ip in _shown_ips(port.host_ip, ipv6=ipv6):
                    published.append(PublishedPort(port.container_port, port.protocol, ip, number))
            held.seal()
            self._held[container] = held
            self._note(published)
        return tuple(published)

    def _choose(
        self, port: Wanted, chosen: set[tuple[str, int]], relay_to: str
    ) -> tuple[int, list[socket.socket]]:
        last: OSError | None = None
        for number in self._candidates(port):
            if port.first == 0 and (
                (port.protocol, number) in chosen or (port.protocol, number) in self._ours
            ):
                continue
            try:
                return number, self._bind(port, number, relay_to)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise _failed(port, number, error) from error
                last = error
        if port.first == 0 or port.first != port.last:
            raise Conflict(f"all ports are allocated: {port.host_ip or ANY4}") from last
        raise _failed(port, port.first, last) from last

    def _candidates(self, port: Wanted) -> Iterator[int]:
        if port.first or port.last:
            yield from range(max(port.first, 1), port.last + 1)
            return
        first, last = self._ephemeral
        span = last - first + 1
        for _ in range(span):
            self._next = (self._next + 1) % span
            yield first + self._next

    def _bind(self, port: Wanted, number: int, relay_to: str) -> list[socket.socket]:
        key = (port.protocol, number)
        if key in self._ours and _overlap(port.host_ip, self._ours[key]):
            raise OSError(errno.EADDRINUSE, "published already")
        while True:
            try:
                return bind(port.protocol, port.host_ip, number, relay_to)
            except OSError as error:
                # Our own port of a moment ago: its monitor is about to end.
                since = time.monotonic() - self._left.get(key, float("-inf"))
                if error.errno != errno.EADDRINUSE or since > LINGER_SECONDS:
                    raise
                time.sleep(0.001)

    def _note(self, published: Sequence[PublishedPort]) -> None:
        for port in published:
            self._ours.setdefault((port.protocol, port.host_port), set()).add(port.host_ip)

    def held(self, container: str) -> dict[str, int]:
        """Named descriptors that keep a container's ports, for its monitor."""
        with self._lock:
            held = self._held.get(container)
            return held.descriptors() if held is not None else {}

    def adopt(self, published: Sequence[PublishedPort]) -> None:
        """Know of ports that a monitor holds since before this daemon's start."""
        with self._lock:
            self._note(published)

    def release(self, container: str, published: Sequence[PublishedPort]) -> None:
        """Give the ports up."""
        with self._lock:
            if (held := self._held.pop(container, None)) is not None:
                held.close()
            now = time.monotonic()
            for port in published:
                key = (port.protocol, port.host_port)
                ips = self._ours.get(key, set())
                ips.discard(port.host_ip)
                if not ips:
                    self._ours.pop(key, None)
                self._left[key] = now
            for key in [k for k, at in self._left.items() if now - at > LINGER_SECONDS]:
                del self._left[key]


class Held:
    """The sockets of one container's ports; a context manager that drops them unless sealed."""

    def __init__(self, relay_to: str) -> None:
        self._relay_to = relay_to
        self._kept, self._relayed = Bundle(), Bundle(relay_to)
        self._watch: select.epoll | None = None
        self._sealed = False

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._sealed:
            self.close()

    def keep(self, sockets: Sequence[socket.socket], container_port: int) -> None:
        """Take sockets over."""
        for one in sockets:
            if relays(one.family, self._relay_to):
                self._watch = self._watch or select.epoll()
                self._watch.register(one, select.EPOLLIN)
                self._relayed.keep(one, container_port)
            else:
                self._kept.keep(one, container_port)

    def seal(self) -> None:
        """All are there."""
        self._kept.seal()
        self._relayed.seal()
        self._sealed = True

    def descriptors(self) -> dict[str, int]:
        """``hold-ports``, and where ports are relayed two more.

        ``relay`` is readable when one of these has something to do; ``relayed`` has them in its
        queue.
        """
        found = {"hold-ports": self._kept.fileno()}
        if self._watch is not None:
            found |= {"relay": self._watch.fileno(), "relayed": self._relayed.fileno()}
        return found

    def close(self) -> None:
        """Give them up, as far as this process goes."""
        self._kept.close()
        self._relayed.close()
        if self._watch is not None:
            self._watch.close()


class Bundle:
    """Any number of sockets, kept in the queue of one.

    With each portion comes JSON: the address to relay to, and the container's port for each.
    """

    #: Below the kernel's limit for one message, SCM_MAX_FD.
    AT_ONCE = 200

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._near, self._far = socket.socketpair()
        self._waiting: list[tuple[socket.socket, int]] = []

    def keep(self, one: socket.socket, container_port: int) -> None:
        """Take a socket over."""
        self._waiting.append((one, container_port))
        if len(self._waiting) >= self.AT_ONCE:
            self._send()

    def seal(self) -> None:
        """All are there; they live as long as any descriptor of this."""
        self._send()
        self._near.close()

    def fileno(self) -> int:
        """The descriptor that holds them."""
        return self._far.fileno()

    def close(self) -> None:
        """Give them up, as far as this process goes."""
        self._near.close()
        self._far.close()
        for one, _ in self._waiting:
            one.close()
        self._waiting.clear()

    def _send(self) -> None:
        if self._waiting:
            note = json.dumps([self._address, [port for _, port in self._waiting]])
            socket.send_fds(self._near, [note.encode()], [one.fileno() for one, _ in self._waiting])
        for one, _ in self._waiting:
            one.close()
        self._waiting.clear()


def relays(family: int, relay_to: str) -> bool:
    """Whether what comes to a socket is carried to the container's address ``relay_to``.

    Rules translate within one IP version, and never from ``::1``.
    """
    return bool(relay_to) and (family == socket.AF_INET6 or ":" in relay_to)


def bind(protocol: str, host_ip: str, number: int, relay_to: str = "") -> list[socket.socket]:
    """Sockets that keep a port; none where the kernel lacks the protocol. Raises OSError."""
    if host_ip:
        family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
        if not _has(protocol, family):
            return []
        return [_bound(protocol, family, host_ip, number, relay_to)]
    if _has(protocol, socket.AF_INET6):
        # One socket for both versions.
        return [_bound(protocol, socket.AF_INET6, ANY6, number, relay_to)]
    if _has(protocol, socket.AF_INET):
        return [_bound(protocol, socket.AF_INET, ANY4, number, relay_to)]
    return []


def _has(protocol: str, family: socket.AddressFamily) -> bool:
    try:
        probe = _socket(protocol, family)
    except OSError:
        return False
    with probe:
        if family == socket.AF_INET6:
            try:
                probe.bind((ANY6, 0))
            except OSError:
                return False
    return True


def _socket(protocol: str, family: socket.AddressFamily) -> socket.socket:
    number = socket.IPPROTO_SCTP if protocol == "sctp" else 0
    return socket.socket(family, PROTOCOLS[protocol], number)


def _bound(
    protocol: str, family: socket.AddressFamily, host_ip: str, number: int, relay_to: str
) -> socket.socket:
    keeper = _socket(protocol, family)
    listens = relays(family, relay_to) and protocol != "udp"
    try:
        if family == socket.AF_INET6:
            keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host_ip != ANY6)
        if listens:
            # What an earlier listener left in TIME_WAIT is in nobody's way; a listener is.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((host_ip, number))
        if listens:
            keeper.listen(BACKLOG)
    except OSError:
        keeper.close()
        raise
    return keeper


def _failed(port: Wanted, number: int, error: OSError | None) -> Conflict | Invalid:
    where = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or ANY4
    if error is not None and error.errno == errno.EADDRNOTAVAIL:
        return Invalid(
            f"Bind for {where}:{number} failed: the address is none of this host's",
        )
    if error is not None and error.errno not in (errno.EADDRINUSE, errno.EACCES):
        return Invalid(f"Bind for {where}:{number} failed: {error.strerror}")
    return Conflict(f"Bind for {where}:{number} failed: port is already allocated")


def _overlap(host_ip: str, taken: set[str]) -> bool:
    every = {ANY4, ANY6}
    return not host_ip or host_ip in every or host_ip in taken or bool(taken & every)


def _shown_ips(host_ip: str, *, ipv6: bool) -> list[str]:
    if host_ip:
        return [host_ip]
    return [ANY4, ANY6] if ipv6 else [ANY4]


def _ephemeral() -> tuple[int, int]:
    try:
        first, last = (int(word) for word in EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        return 49153, 65535
    return first, last
