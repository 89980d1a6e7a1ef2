"""Rules through iptables(8) and ip6tables(8), for kernels without nf_tables.

Three chains per daemon and IP version hold everything::

    nat     LDP-<tag>  published ports        from PREROUTING and OUTPUT
    nat     LDS-<tag>  masquerade, hairpin    from POSTROUTING
    filter  LDF-<tag>  what may be forwarded  from FORWARD
    filter  LDI-<tag>  the guard of 127/8     from INPUT

Each change hands the whole of them to iptables-restore, which swaps a table in one go.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from lading_network_bridge.firewall import Firewall, Forward, Ruled

#: The programs by IP version; the second kind speaks to kernels that the first one does not know.
PROGRAMS = (
    {4: "iptables", 6: "ip6tables"},
    {4: "iptables-legacy", 6: "ip6tables-legacy"},
)
_SECONDS = 30

log = logging.getLogger(__name__)


def usable() -> tuple[dict[int, str], str]:
    """The programs that work here, or none and the reason."""
    reason = "the program iptables is not installed"
    for programs in PROGRAMS:
        if shutil.which(programs[4]) is None:
            continue
        reason = _trial(programs[4])
        if not reason:
            six = programs[6]
            return (programs if shutil.which(six) and not _trial(six) else {4: programs[4]}), ""
    return {}, reason


def _trial(program: str) -> str:
    for table in ("nat", "filter"):
        command = [program, "-w", "5", "-t", table, "-S"]
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode:
            return done.stderr.decode(errors="replace").strip().partition("\n")[0]
    return ""


class Iptables(Firewall):
    """The firewall of one daemon, whose ``tag`` is in its chains' names."""

    name = "iptables"

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._programs, _ = usable()
        self._networks: dict[str, Ruled] = {}
        self._forwards: dict[Forward, None] = {}

    def replace(self, networks: Sequence[Ruled], forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""
        self._change({n.id: n for n in networks}, dict.fromkeys(forwards), sweep=True)

    def add_network(self, network: Ruled) -> None:
        """See :class:`Firewall`."""
        if any(_version(s) == 6 for s in network.subnets) and 6 not in self._programs:
            log.warning("no ip6tables: nothing is published or closed in IPv6")
        if self._networks.get(network.id) != network:
            self._change({**self._networks, network.id: network}, self._forwards)

    def remove_network(self, network: Ruled) -> None:
        """See :class:`Firewall`."""
        if network.id in self._networks:
            rest = {k: n for k, n in self._networks.items() if k != network.id}
            self._change(rest, self._forwards)

    def add_forwards(self, forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""
        taken = {_key(f) for f in self._forwards}
        for forward in forwards:
            if _key(forward) in taken:
                raise FileExistsError(errno.EEXIST, f"port {forward.host_port} is published")
        self._change(self._networks, {**self._forwards, **dict.fromkeys(forwards)})

    def remove_forwards(self, forwards: Sequence[Forward]) -> None:
        """See :class:`Firewall`."""
        gone = {_key(f) for f in forwards}
        self._change(self._networks, {f: None for f in self._forwards if _key(f) not in gone})

    def _change(
        self, networks: dict[str, Ruled], forwards: dict[Forward, None], *, sweep: bool = False
    ) -> None:
        before = self._versions(self._networks)
        after = self._versions(networks)
        concerned = {4, 6} if sweep else before | after
        for version in sorted(concerned & set(self._programs)):
            if version in after:
                self._restore(version, list(networks.values()), list(forwards))
                for table, hook, match, chain in self._jumps():
                    self._jump(version, table, hook, match, chain)
            else:
                self._remove(version)
        self._networks, self._forwards = networks, forwards

    @staticmethod
    def _versions(networks: dict[str, Ruled]) -> set[int]:
        found = {_version(subnet) for n in networks.values() for subnet in n.subnets}
        return {4, *found} if networks else set()

    def _jumps(self) -> list[tuple[str, str, tuple[str, ...], str]]:
        local = ("-m", "addrtype", "--dst-type", "LOCAL")
        return [
            ("nat", "PREROUTING", local, f"LDP-{self._tag}"),
            ("nat", "OUTPUT", local, f"LDP-{self._tag}"),
            ("nat", "POSTROUTING", (), f"LDS-{self._tag}"),
            ("filter", "FORWARD", (), f"LDF-{self._tag}"),
            ("filter", "INPUT", (), f"LDI-{self._tag}"),
        ]

    def _restore(
        self, version: int, networks: Sequence[Ruled], forwards: Sequence[Forward]
    ) -> None:
        publish, source = f"LDP-{self._tag}", f"LDS-{self._tag}"
        forward, guard = f"LDF-{self._tag}", f"LDI-{self._tag}"
        lines = ["*nat", f":{publish} - [0:0]", f":{source} - [0:0]"]
        # Specific addresses first, as the first rule that matches wins.
        ordered = sorted(forwards, key=lambda f: not f.host_ip)
        lines += [f"-A {publish} {_dnat(f)}" for f in ordered if f.version == version]
        for network in networks:
            lines += [f"-A {source} {rule}" for rule in _sources(network, version)]
        lines += ["COMMIT", "*filter", f":{forward} - [0:0]", f":{guard} - [0:0]"]
        for bridge in (network.bridge for network in networks if network.icc):
            lines.append(f"-A {forward} -i {bridge} -o {bridge} -j ACCEPT")
        for network in networks:
            lines += [f"-A {forward} {rule}" for rule in _forwarding(network)]
            if version == 4:
                # A packet to 127/8 from a bridge that is no answer to one of ours.
                lines.append(
                    f"-A {guard} -i {network.bridge} -d 127.0.0.0/8 "
                    "-m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP"
                )
        # What goes out was not dropped above; a policy to drop must not stop it either.
        lines += [f"-A {forward} -i {network.bridge} -j ACCEPT" for network in networks]
        lines.append("COMMIT")
        restore = f"{self._programs[version]}-restore"
        self._call([restore, "--noflush", "-w", "10"], "\n".join(lines) + "\n")

    def _jump(self, version: int, table: str, hook: str, match: Sequence[str], chain: str) -> None:
        rule = [hook, *match, "-j", chain]
        command = [self._programs[version], "-w", "10", "-t", table]
        if not self._call([*command, "-C", *rule], fails=True):
            self._call([*command, "-I", *rule])

    def _remove(self, version: int) -> None:
        command = [self._programs[version], "-w", "10", "-t"]
        for table, hook, match, chain in self._jumps():
            while self._call([*command, table, "-D", hook, *match, "-j", chain], fails=True):
                pass
        for table, _, _, chain in self._jumps():
            if self._call([*command, table, "-F", chain], fails=True):
                self._call([*command, table, "-X", chain], fails=True)

    @staticmethod
    def _call(command: Sequence[str], text: str = "", *, fails: bool = False) -> bool:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
        if done.returncode and not fails:
            reason = done.stderr.decode(errors="replace").strip().replace("\n", "; ")
            raise OSError(errno.EINVAL, f"{command[0]}: {reason}")
        return done.returncode == 0


def _dnat(f: Forward) -> str:
    wanted = f"-d {f.host_ip} " if f.host_ip else ("! -d ::1 " if f.version == 6 else "")
    address = f"[{f.address}]" if f.version == 6 else f.address
    return (
        f"{wanted}-p {f.protocol} -m {f.protocol} --dport {f.host_port} "
        f"-j DNAT --to-destination {address}:{f.port}"
    )


def _sources(network: Ruled, version: int) -> Iterable[str]:
    bridge = network.bridge
    if version == 4:
        yield f"-o {bridge} -s 127.0.0.0/8 -j MASQUERADE"
    for subnet in network.subnets:
        if _version(subnet) != version:
            continue
        yield f"-s {subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE"
        if network.masquerade and not network.internal:
            yield f"-s {subnet} ! -o {bridge} -j MASQUERADE"


def _forwarding(network: Ruled) -> Iterable[str]:
    bridge = network.bridge
    if network.internal:
        yield f"-i {bridge} -j DROP"
        yield f"-o {bridge} -j DROP"
        return
    yield f"-o {bridge} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    yield f"-o {bridge} -m conntrack --ctstate DNAT -j ACCEPT"
    yield f"-o {bridge} -j DROP"


def _version(subnet: str) -> int:
    return ipaddress.ip_network(subnet).version


def _key(f: Forward) -> tuple[int, str, str, int]:
    return f.version, f.protocol, f.host_ip, f.host_port
