"""Forgetting datagram flows: the kernel leads those it knows where it led them before.

A client that keeps its socket would reach the container of before, or none, for as long as it goes
on sending. (Names: ``linux/netfilter/nfnetlink_conntrack.h``.)
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Collection

from lading_network_bridge.netlink import (
    NETLINK_NETFILTER,
    Message,
    Netlink,
    attributes,
    nested,
)

IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 0x101, 0x102
CTA_TUPLE_ORIG, CTA_TUPLE_PROTO = 1, 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3

log = logging.getLogger(__name__)


def forget_datagrams(ports: Collection[int]) -> None:
    """Forget all UDP flows to some ports of this host; silent where nothing tracks flows."""
    if not ports:
        return
    try:
        with Netlink(NETLINK_NETFILTER) as connection:
            for family in (socket.AF_INET, socket.AF_INET6):
                _forget(connection, family, ports)
    except OSError as error:
        log.debug("forget flows: %s", error)


def _forget(connection: Netlink, family: int, ports: Collection[int]) -> None:
    header = struct.pack("=BBH", family, 0, 0)
    batch = []
    for body in connection.dump(IPCTNL_MSG_CT_GET, header):
        tuple_ = dict(attributes(body[len(header) :])).get(CTA_TUPLE_ORIG, b"")
        flow = dict(attributes(dict(attributes(tuple_)).get(CTA_TUPLE_PROTO, b"")))
        if flow.get(CTA_PROTO_NUM) != bytes((socket.IPPROTO_UDP,)):
            continue
        if int.from_bytes(flow.get(CTA_PROTO_DST_PORT, b""), "big") in ports:
            wanted = header + nested(CTA_TUPLE_ORIG, tuple_)
            batch.append(Message(IPCTNL_MSG_CT_DELETE, 0, wanted, "forget a flow"))
    for message in batch:
        try:
            connection.run([message])
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
