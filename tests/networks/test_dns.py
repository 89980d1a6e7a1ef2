"""The name server: names of containers, its own protocol over UDP and TCP, the servers behind."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from lading.networks.answers import Elsewhere, answer
from lading.networks.dns import NameServer
from lading.networks.names import Names, address_of_pointer
from lading.networks.records import EndpointState
from lading.networks.state import Live

NET, OTHER = "n" * 64, "o" * 64


def live(name: str, ip: str, *, network: str = NET, links: dict[str, str] | None = None) -> Live:
    names = (name, "alias", name * 3)
    endpoint = EndpointState(
        network,
        "front" if network == NET else "back",
        id=name,
        ip=ip,
        dns_names=names,
        default_route=True,
    )
    return Live(f"id-{name}", name, "private", endpoints=(endpoint,), links=links or {})


@pytest.fixture
def names() -> Names:
    known = Names()
    known.set(live("web", "10.0.0.2", links={"db": "id-sql"}))
    known.set(live("sql", "10.0.0.3"))
    known.set(live("far", "10.1.0.2", network=OTHER))
    return known


def asked(names: Names, name: str, kind: str = "A", asker: str = "10.0.0.2") -> object:
    found = answer(DNSRecord.question(name, kind).pack(), asker, names, datagram=True)
    if not isinstance(found, bytes):
        return found
    reply = DNSRecord.parse(found)
    if reply.header.rcode != RCODE.NOERROR:
        return RCODE[reply.header.rcode]
    return sorted(str(row.rdata) for row in reply.rr)


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("sql", ["10.0.0.3"]),
        ("SQL", ["10.0.0.3"]),
        ("sql.front", ["10.0.0.3"]),
        ("alias", ["10.0.0.2", "10.0.0.3"]),
        ("db", ["10.0.0.3"]),
        ("id-sql", ["10.0.0.3"]),
    ],
)
def test_names_of_containers(names: Names, name: str, addresses: list[str]) -> None:
    assert asked(names, name) == addresses


def test_links_are_the_askers_own(names: Names) -> None:
    assert isinstance(asked(names, "db", asker="10.0.0.3"), Elsewhere)


def test_names_of_other_networks_are_not_answered(names: Names) -> None:
    assert isinstance(asked(names, "far"), Elsewhere)
    assert isinstance(asked(names, "sql.back"), Elsewhere)


def test_a_name_without_that_kind_of_address_has_none(names: Names) -> None:
    assert asked(names, "sql", "AAAA") == []
    assert asked(names, "sql", "MX") == []


def test_reverse(names: Names) -> None:
    assert asked(names, "3.0.0.10.in-addr.arpa", "PTR") == ["sql.front."]
    assert isinstance(asked(names, "2.0.1.10.in-addr.arpa", "PTR"), Elsewhere)


def test_strangers_are_refused(names: Names) -> None:
    assert asked(names, "sql", asker="192.0.2.1") == "REFUSED"


def test_a_container_without_a_way_out_asks_nobody_else(names: Names) -> None:
    inside = EndpointState(NET, "front", id="x", ip="10.0.0.9", dns_names=("x",))
    names.set(Live("id-x", "x", "private", endpoints=(inside,)))
    assert asked(names, "sql", asker="10.0.0.9") == ["10.0.0.3"]
    assert asked(names, "example.test", asker="10.0.0.9") == "REFUSED"


def test_a_container_that_ended_has_no_name(names: Names) -> None:
    names.remove("id-sql")
    assert isinstance(asked(names, "sql"), Elsewhere)
    assert asked(names, "alias") == ["10.0.0.2"]


@given(st.binary(max_size=80))
def test_garbage_does_no_harm(data: bytes) -> None:
    answer(data, "10.0.0.2", Names(), datagram=True)


def test_pointers() -> None:
    nibbles = ".".join(reversed("fd000000000000000000000000000002"))
    assert address_of_pointer(f"{nibbles}.ip6.arpa.") == "fd00::2"
    assert address_of_pointer("4.3.2.1.in-addr.arpa") == "1.2.3.4"
    for other in ("example.test", "x.in-addr.arpa", "1.ip6.arpa"):
        assert address_of_pointer(other) is None


def unused_port() -> int:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        stream.bind(("127.0.0.1", 0))
        number = int(stream.getsockname()[1])
        datagram.bind(("127.0.0.1", number))
        return number


@pytest.fixture
def port() -> int:
    return unused_port()


@pytest.fixture
def server(names: Names, port: int) -> Iterator[NameServer]:
    """Listens on 127.0.0.1 and asks 127.0.0.9 (itself, to be skipped: 127.0.0.1)."""
    names.set(live("me", "127.0.0.1"))
    made = NameServer(names, lambda: ["127.0.0.1", "127.0.0.9"], port)
    assert made.listen("127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def behind(port: int) -> Iterator[None]:
    """A server behind, on 127.0.0.9, that knows one address for everything."""
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    stream = socket.socket()
    for one in (datagram, stream):
        one.bind(("127.0.0.9", port))
    stream.listen()

    def reply(data: bytes) -> bytes:
        made = DNSRecord.parse(data).reply()
        made.add_answer(RR(made.q.qname, QTYPE.A, rdata=A("192.0.2.7")))
        return bytes(made.pack())

    def datagrams() -> None:
        while True:
            data, peer = datagram.recvfrom(999)
            if not data:
                return
            datagram.sendto(reply(data), peer)

    def streams() -> None:
        while True:
            try:
                connection, _ = stream.accept()
            except OSError:
                return
            with connection:
                (size,) = struct.unpack("!H", connection.recv(2))
                made = reply(connection.recv(size))
                connection.sendall(struct.pack("!H", len(made)) + made)

    threads = [threading.Thread(target=t) for t in (datagrams, streams)]
    for thread in threads:
        thread.start()
    yield
    with socket.socket(type=socket.SOCK_DGRAM) as last:
        last.sendto(b"", ("127.0.0.9", port))
    stream.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    datagram.close()
    stream.close()


def query(port: int, name: str, *, stream: bool) -> DNSRecord:
    packet = DNSRecord.question(name).pack()
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    with socket.socket(type=kind) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        if not stream:
            client.send(packet)
            return DNSRecord.parse(client.recv(4096))
        # In two parts, as a slow network would bring it.
        framed = struct.pack("!H", len(packet)) + packet
        client.sendall(framed[:3])
        client.sendall(framed[3:])
        (size,) = struct.unpack("!H", client.recv(2))
        return DNSRecord.parse(client.recv(size))


@pytest.mark.parametrize("stream", [False, True])
def test_it_answers_and_asks_behind(
    server: NameServer, behind: None, port: int, stream: bool
) -> None:
    assert str(query(port, "sql", stream=stream).short()) == "10.0.0.3"
    assert str(query(port, "example.test", stream=stream).short()) == "192.0.2.7"


def test_no_server_behind_is_said(server: NameServer, port: int) -> None:
    assert query(port, "example.test", stream=False).header.rcode == RCODE.SERVFAIL
    assert query(port, "example.test", stream=True).header.rcode == RCODE.SERVFAIL


def test_an_address_of_another_host_is_not_listened_on(server: NameServer) -> None:
    assert not server.listen("192.0.2.1")
    assert not server.serves("192.0.2.1")
    assert server.serves("127.0.0.1")


def test_an_address_can_be_ignored_and_served_again(server: NameServer, port: int) -> None:
    server.ignore("127.0.0.1")
    assert not server.serves("127.0.0.1")
    assert server.listen("127.0.0.2")
    server.ignore("127.0.0.2")
