"""What a container's files say of its sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lading.config import Settings
from lading.networks import files
from lading.networks.files import Resolver
from lading.networks.records import EndpointState, Link, Sandbox, Subject
from lading.networks.state import Live

HOSTS = Path("/etc/hosts")


@dataclass(frozen=True, slots=True)
class Contents:
    """Renders ``hosts`` and ``resolv.conf``.

    ``serves`` tells whether our name server answers on an address, ``gateway`` is the host's
    address for ``host-gateway``.
    """

    settings: Settings
    serves: Callable[[str], bool]
    gateway: Callable[[], str]

    def sandbox(
        self,
        live: Live,
        container: Subject,
        lives: Mapping[str, Live],
        *,
        held: Mapping[str, int] | None = None,
        links: Sequence[Link] = (),
    ) -> Sandbox:
        """The answer to whoever asked for a sandbox. Raises Invalid for a wrong extra host."""
        shared = live.kind == "container"
        return Sandbox(
            live.container,
            live.path or None,
            live.endpoints,
            live.ports,
            held or {},
            "" if shared else self.hosts(live, container, lives),
            "" if shared else self.resolver(live, container).render(),
            self._environment(live, container, links, lives),
            live.deferred,
        )

    def hosts(self, live: Live, container: Subject, lives: Mapping[str, Live]) -> str:
        """``/etc/hosts``."""
        rows = files.extra_hosts(container.host_config.extra_hosts, self.gateway())
        if live.kind == "host":
            return files.render_hosts(rows, _read(HOSTS))
        for alias, target in live.links.items():
            other = lives.get(target)
            address = other and linked_address(live, other)
            if other and address:
                rows.append((address, f"{alias} {other.name} {target[:12]}"))
        names = live.hostname
        if domain := container.config.domainname:
            names = f"{live.hostname}.{domain} {live.hostname}"
        rows += [(ip, names) for e in live.endpoints for ip in (e.ip, e.ip6) if ip]
        return files.render_hosts(rows)

    def resolver(self, live: Live, container: Subject) -> Resolver:
        """``resolv.conf``: our name server where there is one, else the host's servers."""
        host = files.read_resolver() if live.kind == "host" else files.host_resolver()
        servers = self.servers(container)
        search = container.host_config.dns_search or self.settings.dns_search or host.search
        options = container.host_config.dns_options or self.settings.dns_opts or host.options
        ours = [s for e in live.endpoints if e.dns_names for s in gateways(e) if self.serves(s)]
        if ours:
            if not any(option.startswith("ndots:") for option in options):
                options = [*options, "ndots:0"]
            return Resolver(ours[:1], search, options)
        return Resolver(servers or host.servers, search, options)

    def servers(self, container: Subject) -> Sequence[str]:
        """The servers that the user has chosen."""
        return container.host_config.dns or self.settings.dns

    @staticmethod
    def _environment(
        live: Live, container: Subject, links: Sequence[Link], lives: Mapping[str, Live]
    ) -> list[str]:
        found = []
        for link in links:
            other = lives.get(link.container)
            if other and (address := linked_address(live, other)):
                found += files.link_variables(container.name, link, address)
        return found


def linked_address(live: Live, other: Live) -> str:
    """Another container's address on the default bridge, "" when they are not both on it."""
    if not any(e.id and not e.dns_names for e in live.endpoints):
        return ""
    return next((e.ip or e.ip6 for e in other.endpoints if e.id and not e.dns_names), "")


def gateways(endpoint: EndpointState) -> list[str]:
    """The host's addresses on the endpoint's network."""
    return [address for address in (endpoint.gateway, endpoint.gateway6) if address]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
