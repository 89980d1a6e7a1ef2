"""rtnetlink(7) in batches: a few messages in one ``send``, their answers in one or two ``recv``.

Attaching a container is two batches. A general netlink library costs more time for encoding one
of these messages than the kernel takes for all of them, so the handful of message kinds that a
bridge needs is packed here. Names are those of ``linux/if_link.h``, ``if_addr.h``, ``rtnetlink.h``.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE = 24

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_REPLACE = 0x200, 0x400, 0x100
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NLM_F_ACK_TLVS = 0x200
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_CAP_ACK = 270, 11, 10

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA = 18, 1, 2
IFLA_OPERSTATE, IF_OPER_UP = 16, 6
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD = 20, 26, 28
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFLA_GROUP, DOOMED_GROUP = 27, 0x6C61646E
VETH_INFO_PEER = 1
IFLA_PROTINFO, IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 12, 4, 33
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_OIF, RTA_GATEWAY = 4, 5
RTN_UNICAST, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN = 1, 4, 0, 254
IFF_UP = 1
NLA_F_NESTED = 0x8000

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Message:
    """One request; ``what`` is how an error calls it."""

    kind: int
    flags: int
    body: bytes
    what: str


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as a dump shows it; ``master`` is an index, 0 for none."""

    index: int
    name: str
    up: bool
    master: int
    mtu: int
    mac: str
    alias: str
    kind: str


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    size = len(data) + 4
    return _ATTRIBUTE.pack(size, kind) + data + b"\0" * (-size % 4)


def text(kind: int, value: str) -> bytes:
    """A string attribute."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute."""
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def ifinfo(index: int = 0, *, up: bool = False, family: int = 0) -> bytes:
    """``struct ifinfomsg``; with ``up`` the interface is brought up by the message."""
    return _IFINFO.pack(family, 0, index, IFF_UP if up else 0, IFF_UP if up else 0)


def mac_bytes(mac: str) -> bytes:
    """The six bytes of a hardware address."""
    return bytes.fromhex(mac.replace(":", ""))


def new_veth(name: str, master: int, mtu: int, peer: bytes) -> Message:
    """A veth pair, this end on a bridge; ``peer`` is the other end's ``ifinfomsg``."""
    info = nested(
        IFLA_LINKINFO,
        text(IFLA_INFO_KIND, "veth"),
        nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)),
    )
    body = ifinfo() + text(IFLA_IFNAME, name) + number(IFLA_MTU, mtu)
    body += number(IFLA_MASTER, master) + info
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f'create veth "{name}"')


def bring_up_without_ipv6(name: str) -> Message:
    """Bring a bridge's port up; it needs no link-local address, which costs more than the rest."""
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes((IN6_ADDR_GEN_MODE_NONE,)))
    body = ifinfo(up=True) + text(IFLA_IFNAME, name)
    body += nested(IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Message(RTM_SETLINK, 0, body, f'bring up "{name}"')


def new_address(index: int, cidr: str) -> Message:
    """An address on an interface; in IPv6 without waiting for duplicate detection."""
    interface = ipaddress.ip_interface(cidr)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = 0 if interface.version == 4 else IFA_F_NODAD
    body = _IFADDR.pack(family, interface.network.prefixlen, flags, 0, index)
    body += attribute(IFA_LOCAL, interface.packed) + attribute(IFA_ADDRESS, interface.packed)
    if interface.version == 4 and interface.network.prefixlen < 31:
        body += attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return Message(RTM_NEWADDR, flags, body, f'add address "{cidr}"')


def default_route(index: int, gateway: str) -> Message:
    """The default route through a gateway."""
    address = ipaddress.ip_address(gateway)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    scope = (RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST)
    body = _ROUTE.pack(family, 0, 0, 0, *scope, 0)
    body += number(RTA_OIF, index) + attribute(RTA_GATEWAY, address.packed)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return Message(RTM_NEWROUTE, flags, body, f'add default route through "{gateway}"')


def delete_link(name: str) -> Message:
    """An interface's end, by name."""
    return Message(RTM_DELLINK, 0, ifinfo() + text(IFLA_IFNAME, name), f'delete link "{name}"')


def delete_links(connection: Netlink, names: Sequence[str]) -> None:
    """Interfaces' ends, all in the time of one: the kernel waits once for a whole group."""
    if not names:
        return
    group = number(IFLA_GROUP, DOOMED_GROUP)
    batch = [change_named(name, f'delete "{name}"', group) for name in names]
    batch.append(Message(RTM_DELLINK, 0, ifinfo() + group, "delete links"))
    connection.run(batch)


def change_named(name: str, what: str, *attributes: bytes) -> Message:
    """Attributes of an interface that an earlier message of the same batch may have made."""
    body = ifinfo() + text(IFLA_IFNAME, name) + b"".join(attributes)
    return Message(RTM_SETLINK, 0, body, what)


def change_link(index: int, what: str, *attributes: bytes, up: bool = False) -> Message:
    """Attributes of an interface that exists."""
    return Message(RTM_SETLINK, 0, ifinfo(index, up=up) + b"".join(attributes), what)


def change_port(index: int, what: str, *attributes: bytes) -> Message:
    """Attributes of an interface as a port of its bridge (``IFLA_BRPORT_*``)."""
    body = ifinfo(index, family=socket.AF_BRIDGE) + nested(IFLA_PROTINFO, *attributes)
    return Message(RTM_SETLINK, 0, body, what)


class Netlink:
    """One socket in the network namespace of the thread that makes it; calls are serialised."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, messages: Sequence[Message]) -> None:
        """Send a batch and wait for all answers; raises OSError for the first that failed.

        The kernel goes on after a failure: the rest of the batch may have been done.
        """
        with self._lock:
            first = self._sequence + 1
            parts = []
            for message in messages:
                self._sequence += 1
                flags = NLM_F_REQUEST | NLM_F_ACK | message.flags
                size = _HEADER.size + len(message.body)
                parts.append(_HEADER.pack(size, message.kind, flags, self._sequence, 0))
                parts.append(message.body)
            self._socket.send(b"".join(parts))
            failed = self._answers(first, len(messages))
        if failed is not None:
            place, code, why = failed
            reason = f"{os.strerror(code)} ({why})" if why else os.strerror(code)
            raise OSError(code, f"{messages[place].what}: {reason}")

    def _answers(self, first: int, count: int) -> tuple[int, int, str] | None:
        failed = None
        awaited = count
        while awaited:
            for kind, flags, sequence, body in _split(self._socket.recv(1 << 16)):
                if kind != NLMSG_ERROR or sequence < first:
                    continue
                awaited -= 1
                code = -struct.unpack_from("=i", body)[0]
                if code and failed is None:
                    failed = (sequence - first, code, _explanation(flags, body))
        return failed

    def dump(self, kind: int, header: bytes) -> list[bytes]:
        """The bodies of all objects of a kind."""
        with self._lock:
            self._sequence += 1
            size = _HEADER.size + len(header)
            flags = NLM_F_REQUEST | NLM_F_DUMP
            self._socket.send(_HEADER.pack(size, kind, flags, self._sequence, 0) + header)
            found: list[bytes] = []
            while True:
                for answer, _, sequence, body in _split(self._socket.recv(1 << 17)):
                    if sequence != self._sequence:
                        continue
                    if answer in (NLMSG_DONE, NLMSG_ERROR):
                        return found
                    found.append(body)

    def operational(self, name: str) -> bool:
        """Whether an interface carries packets; False when there is none."""
        body = self._query(name)
        for kind, value in attributes(body[_IFINFO.size :]):
            if kind == IFLA_OPERSTATE:
                return value == bytes((IF_OPER_UP,))
        return False

    def index(self, name: str) -> int:
        """An interface's number; 0 when there is none."""
        body = self._query(name)
        return int(_IFINFO.unpack_from(body)[2]) if body else 0

    def _query(self, name: str) -> bytes:
        """The body of the message about one interface; empty when there is none."""
        with self._lock:
            self._sequence += 1
            request = ifinfo() + text(IFLA_IFNAME, name)
            size = _HEADER.size + len(request)
            header = _HEADER.pack(size, RTM_GETLINK, NLM_F_REQUEST, self._sequence, 0)
            self._socket.send(header + request)
            for kind, _, _, body in _split(self._socket.recv(1 << 16)):
                if kind == RTM_NEWLINK:
                    return body
        return b""

    def links(self) -> dict[str, Link]:
        """All interfaces of the namespace, by name."""
        found = (_link(body) for body in self.dump(RTM_GETLINK, ifinfo()))
        return {link.name: link for link in found}

    def addresses(self) -> list[tuple[int, str]]:
        """All addresses as (interface's index, CIDR)."""
        found = []
        for body in self.dump(RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
            _, prefix, _, _, index = _IFADDR.unpack_from(body)
            parts = dict(attributes(body[_IFADDR.size :]))
            packed = parts.get(IFA_LOCAL) or parts.get(IFA_ADDRESS, b"")
            found.append((index, f"{ipaddress.ip_address(packed)}/{prefix}"))
        return found


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += (size + 3) & ~3


def _explanation(flags: int, body: bytes) -> str:
    """The kernel's own words about a failure; the request's header lies between code and words."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    words = dict(attributes(body[4 + _HEADER.size :]))
    return words.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    parts = dict(attributes(body[_IFINFO.size :]))
    info = dict(attributes(parts.get(IFLA_LINKINFO, b"")))

    def word(data: bytes | None) -> str:
        return (data or b"").rstrip(b"\0").decode(errors="replace")

    def integer(data: bytes | None) -> int:
        return int.from_bytes(data or b"", "little" if struct.pack("=H", 1)[0] else "big")

    return Link(
        index,
        word(parts.get(IFLA_IFNAME)),
        bool(flags & IFF_UP),
        integer(parts.get(IFLA_MASTER)),
        integer(parts.get(IFLA_MTU)),
        parts.get(IFLA_ADDRESS, b"").hex(":"),
        word(parts.get(IFLA_IFALIAS)),
        word(info.get(IFLA_INFO_KIND)),
    )
