"""Answers to DNS queries of containers: names of containers here, everything else elsewhere."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSError, DNSRecord

from lading.networks.names import Client, Names, address_of_pointer

#: Seconds that an answer may be kept, as Docker's.
TTL = 600

#: The longest answer over UDP to a client that does not say that it takes longer ones.
PLAIN_SIZE = 512


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A query for the servers that stand behind; ``client`` is who asks."""

    client: Client


def answer(data: bytes, asker: str, names: Names, *, datagram: bool) -> bytes | Elsewhere | None:
    """What to do with a query: the answer, forward it, or (None) drop it as garbage."""
    try:
        query = DNSRecord.parse(data)
    except (DNSError, ValueError, IndexError):
        return None
    if query.header.qr or len(query.questions) != 1:
        return None
    client = names.client(asker)
    if client is None:
        return refused(data, RCODE.REFUSED)
    records = _local(query, client, names)
    if records is None:
        return refused(data, RCODE.REFUSED) if client.isolated else Elsewhere(client)
    reply = query.reply(ra=1, aa=1)
    for record in records:
        reply.add_answer(record)
    packed = bytes(reply.pack())
    if datagram and len(packed) > PLAIN_SIZE and not query.ar:
        packed = bytes(reply.truncate().pack())
    return packed


def _local(query: DNSRecord, client: Client, names: Names) -> list[RR] | None:
    """The records of a name that is a container's; None when it is nobody's here."""
    question = query.q
    name = str(question.qname)
    if question.qtype == QTYPE.PTR:
        address = address_of_pointer(name)
        found = names.reverse(client, address) if address else None
        if found is None:
            return None
        return [RR(question.qname, QTYPE.PTR, rdata=PTR(found), ttl=TTL)]
    addresses = names.resolve(client, name)
    if addresses is None:
        return None
    records = []
    for address in addresses:
        six = ipaddress.ip_address(address).version == 6
        kind, data = (QTYPE.AAAA, AAAA) if six else (QTYPE.A, A)
        if question.qtype == kind:
            records.append(RR(question.qname, kind, rdata=data(address), ttl=TTL))
    return records


def refused(data: bytes, code: int) -> bytes | None:
    """An answer that only has a response code."""
    try:
        reply = DNSRecord.parse(data).reply(ra=1, aa=0)
    except (DNSError, ValueError, IndexError):
        return None
    reply.header.rcode = code
    return bytes(reply.pack())
