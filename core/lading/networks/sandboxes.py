"""Sandboxes: from a container's wishes to a namespace with interfaces and published ports."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from lading.errors import Conflict, Unsupported
from lading.linux.namespaces import check_kind
from lading.model.docker import EndpointSettings
from lading.networks import membership
from lading.networks.contents import Contents
from lading.networks.endpoints import Endpoints
from lading.networks.names import Names
from lading.networks.namespaces import Namespaces
from lading.networks.ports import HostPorts, wanted
from lading.networks.ready import Ready
from lading.networks.records import (
    HOST,
    EndpointState,
    Link,
    Network,
    Sandbox,
    Subject,
)
from lading.networks.releases import Releases
from lading.networks.state import Live, State
from lading.networks.table import Table

#: Docker's option: where ports of a network are published unless told otherwise.
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"


@dataclass
class Parts:
    """What sandboxes are made with. ``tell`` publishes (action, network, container)."""

    table: Table
    state: State
    endpoints: Endpoints
    ports: HostPorts
    namespaces: Namespaces
    names: Names
    contents: Contents
    tell: Callable[[str, Network, str], None]
    take_ready: Callable[[], Ready | None]
    host_ip: str = ""
    userland_proxy: bool = True
    lives: dict[str, Live] = field(default_factory=dict)
    memberships: dict[str, dict[str, EndpointSettings]] = field(default_factory=dict)

    def joined(self, container: Subject) -> dict[str, EndpointSettings]:
        """The networks of a container, by id. Raises NotFound for one that is gone."""
        kept = self.memberships.get(container.id)
        if kept is not None:
            return kept
        asked = membership.of(container)
        return {self.table.find(ref).id: settings for ref, settings in asked.items()}

    def enter(self, live: Live) -> None:
        """Make a sandbox known, or what has changed of it."""
        with self.table.lock:
            self.lives[live.container] = live
        self.state.save_sandbox(live)
        self.names.set(live)


class Sandboxes:
    """Allocates and releases; the engine never does both at a time for one container."""

    def __init__(self, parts: Parts, releases: Releases) -> None:
        self._parts = parts
        self._releases = releases

    def allocate(
        self, container: Subject, links: Sequence[Link], joined: str, *, remapped: bool
    ) -> Sandbox:
        """See :meth:`lading.networks.Networks.allocate`."""
        parts = self._parts
        self.release(container.id)
        with ExitStack() as undo:
            live = self._make(container, links, joined, undo, remapped=remapped)
            held = parts.ports.held(container.id)
            sandbox = parts.contents.sandbox(live, container, parts.lives, held=held, links=links)
            parts.enter(live)
            undo.pop_all()
        self._tell("connect", live)
        return sandbox

    def _make(
        self,
        container: Subject,
        links: Sequence[Link],
        joined: str,
        undo: ExitStack,
        *,
        remapped: bool,
    ) -> Live:
        mode = container.host_config.network_mode
        live = Live(
            container.id,
            container.name,
            "private",
            hostname=container.config.hostname or container.id[:12],
            id=secrets.token_hex(32),
            servers=tuple(self._parts.contents.servers(container)),
        )
        if mode.startswith(membership.CONTAINER):
            return self._shared(live, joined or mode.removeprefix(membership.CONTAINER))
        if mode.startswith(membership.NAMESPACE):
            path = mode.removeprefix(membership.NAMESPACE)
            check_kind(path, "network")
            return msgspec.structs.replace(live, kind="path", path=path)
        settings = self._parts.joined(container)
        networks = {key: self._parts.table.find(key) for key in settings}
        for network in networks.values():
            membership.check_settings(network, settings[network.id])
        if any(network.driver == HOST for network in networks.values()):
            return msgspec.structs.replace(live, kind="host", endpoints=_shown(networks))
        live = msgspec.structs.replace(live, links=self._links(live, container, links, settings))
        return self._private(live, container, networks, settings, undo, remapped=remapped)

    def _shared(self, live: Live, other: str) -> Live:
        found = self._parts.lives.get(other)
        if found is None:
            raise Conflict(f"cannot join network of a non running container: {other}")
        return msgspec.structs.replace(live, kind="container", path=found.path, joined=other)

    def _links(
        self,
        live: Live,
        container: Subject,
        links: Sequence[Link],
        settings: Mapping[str, EndpointSettings],
    ) -> dict[str, str]:
        found = {link.alias: link.container for link in links}
        for one in settings.values():
            found |= membership.links(one)
        for link in links:
            if link.container not in self._parts.lives:
                raise Conflict(
                    f"Cannot link to a non running container: /{link.name} "
                    f"AS /{container.name}/{link.alias}"
                )
        return found

    def _private(
        self,
        live: Live,
        container: Subject,
        networks: Mapping[str, Network],
        settings: Mapping[str, EndpointSettings],
        undo: ExitStack,
        *,
        remapped: bool,
    ) -> Live:
        """A namespace of its own, with an endpoint on each network that has a backend."""
        parts = self._parts
        attached = [n for n in networks.values() if n.has_backend]
        if len(attached) != len(networks):
            if attached:
                raise Conflict(
                    "container cannot be connected to multiple networks with one of the networks "
                    "in private (none) mode"
                )
            live = msgspec.structs.replace(live, endpoints=_shown(networks))
        if len(attached) == 1 and not remapped and not _special(settings[attached[0].id]):
            ready = parts.take_ready() if attached[0].default else None
            if ready is not None:
                undo.callback(self._releases.put, _of_ready(live, ready, settings))
                live = _of_ready(live, ready, settings)
                return self._publish(live, container, undo)
        with parts.table.lock:
            for network in attached:
                parts.table.find(network.id)
            route = membership.priority(settings, networks)
            for number, network in enumerate(attached):
                endpoint = parts.endpoints.prepare(
                    network,
                    settings[network.id],
                    number,
                    dns_names=dns_names(network, container, settings[network.id]),
                    default_route=network.id == route,
                )
                undo.callback(parts.endpoints.give_back, endpoint)
                endpoints = (*live.endpoints, endpoint)
                live = msgspec.structs.replace(live, endpoints=endpoints)
            # From here on the networks cannot be removed.
            parts.lives[container.id] = live
            undo.callback(parts.lives.pop, container.id, None)
        if remapped:
            live = msgspec.structs.replace(live, deferred=True)
            return self._reserve(live, container, undo)
        live = self._attach_all(live, undo)
        return self._publish(live, container, undo)

    def _attach_all(self, live: Live, undo: ExitStack) -> Live:
        parts = self._parts
        name = live.id[:12]
        path = str(parts.namespaces.make(name))
        undo.callback(parts.namespaces.remove, name)
        for endpoint in live.endpoints:
            if endpoint.id:
                parts.endpoints.attach(endpoint, path)
                undo.callback(parts.endpoints.detach, endpoint, path)
        return msgspec.structs.replace(live, namespace=name, path=path)

    def _publish(self, live: Live, container: Subject, undo: ExitStack) -> Live:
        live = self._reserve(live, container, undo)
        if live.ports and (endpoint := published_on(live)):
            self._parts.endpoints.publish(endpoint, live.ports)
            undo.callback(self._parts.endpoints.unpublish, endpoint)
        return live

    def _reserve(self, live: Live, container: Subject, undo: ExitStack) -> Live:
        host, config = container.host_config, container.config
        endpoint = published_on(live)
        if not (host.port_bindings or host.publish_all_ports) or endpoint is None:
            return live
        network = self._parts.table.find(endpoint.network_id)
        default_ip = network.options.get(HOST_BINDING, "") or self._parts.host_ip
        default_ip = "" if default_ip == "0.0.0.0" else default_ip
        exposed = config.exposed_ports if host.publish_all_ports else {}
        asked = wanted(host.port_bindings, exposed, default_ip)
        if asked and not self._parts.table.capable(network, "publish"):
            raise Unsupported(
                f'publish ports on network "{network.name}": its driver "{network.driver}" '
                "does not publish ports"
            )
        ports = self._parts.ports.reserve(
            live.container,
            asked,
            ipv6=bool(endpoint.ip6),
            relay_to=self._relay_to(network, endpoint),
        )
        undo.callback(self._parts.ports.release, live.container, ports)
        return msgspec.structs.replace(live, ports=ports)

    def _relay_to(self, network: Network, endpoint: EndpointState) -> str:
        """The address that the host reaches the container at, "" when nothing is relayed."""
        if not self._parts.userland_proxy or not self._parts.table.capable(network, "gateway"):
            return ""
        return endpoint.ip or endpoint.ip6

    def attach(self, container_id: str, netns: str) -> None:
        """See :meth:`lading.networks.Networks.attach`."""
        parts = self._parts
        live = parts.lives.get(container_id)
        if live is None or not live.deferred:
            raise Conflict(f'container "{container_id}" has no sandbox that waits for a namespace')
        parts.namespaces.set_up_lo(netns)
        for endpoint in live.endpoints:
            if endpoint.id:
                parts.endpoints.attach(endpoint, netns)
        if live.ports and (route := published_on(live)):
            parts.endpoints.publish(route, live.ports)
        parts.enter(msgspec.structs.replace(live, path=netns, deferred=False))

    def release(self, container_id: str) -> None:
        """See :meth:`lading.networks.Networks.release`."""
        parts = self._parts
        with parts.table.lock:
            live = parts.lives.pop(container_id, None)
        if live is None:
            return
        parts.names.remove(container_id)
        try:
            if live.ports and (endpoint := published_on(live)):
                parts.endpoints.unpublish(endpoint)
        finally:
            parts.ports.release(container_id, live.ports)
            parts.state.delete_sandbox(container_id)
            self._releases.put(live)
        self._tell("disconnect", live)

    def _tell(self, action: str, live: Live) -> None:
        for endpoint in live.endpoints:
            if network := self._parts.table.get(endpoint.network_id):
                self._parts.tell(action, network, live.container)


def take_apart(parts: Parts, live: Live) -> None:
    """The second half of a release, when the namespace is let go of: interfaces, addresses."""
    for endpoint in live.endpoints:
        if endpoint.id:
            # When this fails the address stays taken: an interface may still have it.
            parts.endpoints.detach(endpoint)
            parts.endpoints.give_back(endpoint)


def dns_names(network: Network, container: Subject, settings: EndpointSettings) -> tuple[str, ...]:
    """What a container is called on a network; nothing on the default bridge, as in Docker."""
    if network.default:
        return ()
    names = [container.name, *settings.aliases, container.id[:12]]
    if container.config.hostname:
        names.append(container.config.hostname)
    return tuple(dict.fromkeys(names))


def published_on(live: Live) -> EndpointState | None:
    """The endpoint that ports are published on: the one with the way out."""
    return next((e for e in live.endpoints if e.id and e.default_route), None)


def _special(settings: EndpointSettings) -> bool:
    """Whether an endpoint must be made to measure."""
    ipam = settings.ipam_config
    asked = ipam is not None and (ipam.ipv4_address or ipam.ipv6_address)
    return bool(asked or settings.mac_address)


def _of_ready(live: Live, ready: Ready, settings: Mapping[str, EndpointSettings]) -> Live:
    found = msgspec.structs.replace(ready.endpoint, settings=settings[ready.endpoint.network_id])
    return msgspec.structs.replace(
        live, namespace=ready.namespace, path=ready.path, endpoints=(found,)
    )


def _shown(networks: Mapping[str, Network]) -> tuple[EndpointState, ...]:
    """Places on networks that have no interfaces."""
    return tuple(EndpointState(n.id, n.name) for n in networks.values())
