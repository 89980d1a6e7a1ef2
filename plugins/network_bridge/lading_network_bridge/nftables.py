"""Rules in nftables, through libnftables: one table per daemon and IP version.

::

    table ip lading_<tag>
      map ports      host address . protocol . port : container address . port
      map any_ports  protocol . port                : container address . port
      set bridges    the bridges;  set internal  those without a way out
      set same       bridge . bridge, for traffic that stays on one (seen with br_netfilter)
      map sources    subnet : jump from_<network>   (masquerade, hairpin)

A published port is one element in a map and a network a few elements and one short chain, so that
the way of a packet does not grow with their number, and a change is one small transaction.
Needs kernel 5.6 (maps with an address and a port as value).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import ipaddress
import json
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from functools import cache

from lading_network_bridge.firewall import Firewall, Forward, Ruled
from lading_network_bridge.netlink import NETLINK_NETFILTER

LIBRARY = "libnftables.so.1"

_TABLE = """
table {family} {table} {{
  map ports {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}
  map any_ports {{ type inet_proto . inet_service : {address} . inet_service; }}
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set same {{ type ifname . ifname; }}
  map sources {{ type {address} : verdict; flags interval; }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    {guard}
  }}
  chain publish {{
    {unreachable}
    dnat {family} to {family} daddr . meta l4proto . th dport map @ports
    dnat {family} to meta l4proto . th dport map @any_ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {localhost}
    {family} saddr vmap @sources
  }}
  chain to_bridge {{
    iifname . oifname @same accept
    iifname @internal drop
    oifname @internal drop
    ct state established,related accept
    ct status dnat accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname @bridges goto to_bridge
    iifname @internal drop
  }}
}}
"""
_PARTS = {
    4: {
        "family": "ip",
        "address": "ipv4_addr",
        "guard": "iifname @bridges ip daddr 127.0.0.0/8 drop",
        "unreachable": "",
        "localhost": "oifname @bridges ip saddr 127.0.0.0/8 masquerade",
    },
    # The kernel never routes ::1 off the loopback interface: left to whoever listens there.
    6: {
        "family": "ip6",
        "address": "ipv6_addr",
        "guard": "",
        "unreachable": "ip6 daddr ::1 return",
        "localhost": "",
    },
}
_FAMILY = {4: "ip", 6: "ip6"}

#: select(2) takes no descriptor from this number on.
FD_SETSIZE = 1024


class Nft:
    """A libnftables context: nft(8)'s parser and transactions in this process.

    Its socket belongs to the network namespace of the thread that makes it.
    """

    def __init__(self) -> None:
        self._library = _library()
        # Where the kernel has no such socket the library ends the process, without asking.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as probe:
            if probe.fileno() >= FD_SETSIZE:
                # The library waits with select(2), which ends the process for such a descriptor.
                raise OSError(errno.EMFILE, "libnftables: its descriptor would be above 1023")
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.ENOMEM, "nft_ctx_new failed")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._lock = threading.Lock()

    def run(self, commands: str, *, as_json: bool = False) -> str:
        """Run commands as one transaction; returns what they print. Raises OSError."""
        with self._lock:
            self._library.nft_ctx_output_set_flags(self._context, 0x10 if as_json else 0)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            number = ctypes.get_errno()
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            error = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            reason = error.decode(errors="replace").strip().partition("\n")[0]
            raise OSError(_number(reason, number), f"nftables: {reason}")
        return str(output.decode())

    def check(self, commands: str) -> None:
        """Let the kernel judge commands without doing them. Raises OSError."""
        self._library.nft_ctx_set_dry_run(self._context, True)
        try:
            self.run(commands)
        finally:
            self._library.nft_ctx_set_dry_run(self._context, False)

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY, use_errno=True)
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    return library


def _number(reason: str, number: int) -> int:
    for code in (errno.EEXIST, errno.ENOENT, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL):
        if os.strerror(code) in reason:
            return code
    return number or errno.EINVAL


def dry_run(nft: Nft) -> None:
    """Let the kernel judge the table that a firewall needs. Raises OSError."""
    nft.check(_TABLE.format(table="lading_probe", **_PARTS[4]))


class Nftables(Firewall):
    """The firewall of one daemon, whose ``tag`` is in its tables' name."""

    name = "nftables"

    def __init__(self, tag: str) -> None:
        self._table = f"lading_{tag}"
        self._nft = Nft()
        self._versions = set[int]()
        self._networks: dict[str, Ruled] = {}

    def replace(self, networks: Sequence[Ruled], forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""
        wanted = {4, *_versions(networks)} if networks else set()
        commands = []
        for version in (4, 6):
            if version in wanted or self._has_table(version):
                # "add" first: deleting a table that is not there would fail the transaction.
                name = self._named(version)
                commands += [f"add table {name}", f"delete table {name}"]
            if version in wanted:
                commands.append(self._definition(version))
        self._run(commands)
        self._versions, self._networks = wanted, {}
        self._run(
            [
                *(c for network in networks for c in self._network_commands(network, wanted)),
                *self._elements("add", forwards),
            ]
        )
        self._networks = {n.id: n for n in networks}

    def add_network(self, network: Ruled) -> None:
        """See :class:`Firewall`."""
        if self._networks.get(network.id) == network:
            return
        missing = {4, *_versions([network])} - self._versions
        self._run([self._definition(version) for version in sorted(missing)])
        self._versions |= missing
        commands = []
        for known in self._networks.values():
            # A table that is made late knows the bridges all the same: it isolates them, too.
            commands += self._network_commands(known, missing)
        try:
            self._run([*commands, *self._network_commands(network, self._versions)])
        except OSError:
            if not self._networks:
                self.replace((), ())
            raise
        self._networks[network.id] = network

    def remove_network(self, network: Ruled) -> None:
        """See :class:`Firewall`."""
        if network.id not in self._networks:
            return
        if len(self._networks) == 1:
            self.replace((), ())
            return
        commands = [
            c.replace("add element", "delete element").replace("add chain", "delete chain")
            for c in reversed(self._network_commands(network, self._versions))
            if not c.startswith("add rule")
        ]
        flush = [
            f"flush chain {self._named(v)} from_{network.id[:12]}"
            for v in _versions([network]) & self._versions
        ]
        # The chain's verdict elements go before the chain, hence the reversed order above.
        self._run([*flush, *commands])
        del self._networks[network.id]

    def add_forwards(self, forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""
        self._run(self._elements("create", forwards))

    def remove_forwards(self, forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""
        commands = self._elements("delete", forwards)
        try:
            self._run(commands)
        except OSError:
            # Some are not there: the others must go all the same.
            for command in commands:
                try:
                    self._nft.run(command)
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        raise

    def _run(self, commands: Sequence[str]) -> None:
        """One transaction. An interval map must be there before it gets elements."""
        if commands:
            self._nft.run("\n".join(commands))

    def _named(self, version: int) -> str:
        return f"{_FAMILY[version]} {self._table}"

    def _has_table(self, version: int) -> bool:
        listed = json.loads(self._nft.run(f"list tables {_FAMILY[version]}", as_json=True))
        names = {row["table"]["name"] for row in listed["nftables"] if "table" in row}
        return self._table in names

    def _definition(self, version: int) -> str:
        return _TABLE.format(table=self._table, **_PARTS[version])

    def _network_commands(self, network: Ruled, versions: Iterable[int]) -> list[str]:
        """What adds a network; removal reverses it."""
        bridge = f'"{network.bridge}"'
        commands = []
        for version in sorted(versions):
            table = self._named(version)
            commands.append(f"add element {table} bridges {{ {bridge} }}")
            if network.icc:
                commands.append(f"add element {table} same {{ {bridge} . {bridge} }}")
            if network.internal:
                commands.append(f"add element {table} internal {{ {bridge} }}")
            subnets = [s for s in network.subnets if _version(s) == version]
            if not subnets:
                continue
            chain = f"from_{network.id[:12]}"
            commands.append(f"add chain {table} {chain}")
            commands.append(f"add rule {table} {chain} oifname {bridge} ct status dnat masquerade")
            if network.masquerade and not network.internal:
                commands.append(f"add rule {table} {chain} oifname != {bridge} masquerade")
            commands += [
                f"add element {table} sources {{ {subnet} : jump {chain} }}" for subnet in subnets
            ]
        return commands

    def _elements(self, verb: str, forwards: Sequence[Forward]) -> list[str]:
        rows: dict[tuple[int, str], list[str]] = {}
        for f in forwards:
            key = f"{f.protocol} . {f.host_port}"
            if f.host_ip:
                key = f"{f.host_ip} . {key}"
            value = "" if verb == "delete" else f" : {f.address} . {f.port}"
            kept = rows.setdefault((f.version, "ports" if f.host_ip else "any_ports"), [])
            kept.append(key + value)
        return [
            f"{verb} element {self._named(version)} {name} {{ {', '.join(elements)} }}"
            for (version, name), elements in rows.items()
        ]


def _version(subnet: str) -> int:
    return ipaddress.ip_network(subnet).version


def _versions(networks: Iterable[Ruled]) -> set[int]:
    return {_version(subnet) for network in networks for subnet in network.subnets}
