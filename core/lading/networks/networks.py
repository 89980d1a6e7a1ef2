"""The face of the network core; see :mod:`lading.networks`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from lading.backends import END_DEADLINE, Backends, reason_of, under_deadline
from lading.config import Settings
from lading.errors import Conflict, Denied, InUse, LadingError, NotFound, Unsupported
from lading.hooks.network import NetworkBackend
from lading.model.docker import EndpointSettings, NetworkingConfig
from lading.model.docker_networks import NetworkCreate
from lading.networks import files, making, membership, recovery
from lading.networks.connecting import Connecting
from lading.networks.contents import Contents
from lading.networks.dns import NameServer
from lading.networks.endpoints import Endpoints
from lading.networks.filters import Filters, matcher, prunable
from lading.networks.ipam import Addresses
from lading.networks.names import Names
from lading.networks.namespaces import Namespaces
from lading.networks.ports import HostPorts, exposed
from lading.networks.ready import Pool, Ready
from lading.networks.records import (
    ContainerNetworks,
    Created,
    EndpointState,
    Link,
    Member,
    Network,
    PublishedPort,
    Sandbox,
    Subject,
)
from lading.networks.releases import Releases
from lading.networks.sandboxes import Parts, Sandboxes, dns_names, take_apart
from lading.networks.state import Live, State
from lading.networks.table import Table
from lading.store.db import Database
from lading.store.events import Events

log = logging.getLogger(__name__)


class Networks:
    """All networks of a daemon. All methods may be called from any thread.

    ``run`` is the directory of namespaces, on tmpfs. A network is named by name, id or a unique
    beginning of its id; a container always by its full id.
    """

    def __init__(
        self,
        db: Database,
        backends: Backends[NetworkBackend],
        run: Path,
        events: Events,
        settings: Settings,
    ) -> None:
        self._settings = settings
        self._events = events
        self._closed = False
        state = State(db)
        self._table = Table(state, backends)
        self._addresses = Addresses()
        self._names = Names()
        self._dns = NameServer(self._names, lambda: files.read_resolver().servers)
        self._pool = Pool(settings.network_pool_size, self._make_ready, self._drop_ready)
        self._releases = Releases(self._let_go, lambda live: take_apart(self._parts, live))
        self._parts = Parts(
            table=self._table,
            state=state,
            endpoints=Endpoints(self._table, self._addresses, self._releases.drain),
            ports=HostPorts(),
            namespaces=Namespaces(run),
            names=self._names,
            contents=Contents(settings, self._dns.serves, self._host_gateway),
            tell=self._tell_container,
            take_ready=self._pool.take,
            host_ip=settings.ip,
            userland_proxy=settings.userland_proxy,
            lives={live.container: live for live in state.sandboxes()},
            memberships=state.memberships(),
        )
        self._sandboxes = Sandboxes(self._parts, self._releases)
        self._connecting = Connecting(self._parts)
        recovery.note_addresses(self._parts, self._addresses)

    def start(self) -> None:
        """Let the networks stand: predefined ones made, what an earlier daemon left taken up.

        Containers that still have a sandbox keep it, with addresses and published ports; everything
        else is swept. Call it after ``release`` for containers that have ended meanwhile.
        """
        self._releases.drain()
        making.make_predefined(self._parts, self._addresses, self._settings)
        recovery.recover(self._parts)
        for network in self._table:
            self._serve_names(network)
        if self._default() is not None:
            self._pool.start()

    def close(self) -> None:
        """Let go: of the networks' side on the host, what running containers use stays.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._pool.close()
        self._releases.close()
        self._dns.close()
        for network in self._table:
            if network.has_backend and not self.members(network.id):
                self._put_away(network)
        self._parts.namespaces.close()

    def _put_away(self, network: Network) -> None:
        """Remove what ``start`` makes again."""
        try:
            hook, value = self._table.hook(network), network.for_backend()
            under_deadline(lambda: hook.remove(network=value), END_DEADLINE, "remove")
        except Exception as error:
            log.warning('network "%s": %s', network.name, reason_of(error))

    # Networks

    def create(self, body: NetworkCreate) -> Created:
        """Make a network. Raises Conflict for a taken name or range, Invalid, Unsupported."""
        making.check(body)
        with self._table.lock:
            if self._table.named(body.name) is not None:
                raise Conflict(f"network with name {body.name} already exists")
            network = making.network(body, list(self._table), self._settings)
            backend = self._table.hook(network)
            self._check_capabilities(network)
            # The row goes first: what a crash leaves without one, nobody would remove.
            self._table.save(network)
            self._addresses.add(network.id, network.ranges)
        try:
            backend.create(network=network.for_backend())
        except BaseException:
            self._forget_network(network)
            raise
        self._serve_names(network)
        self._tell("create", network)
        return Created(network.id)

    def _check_capabilities(self, network: Network) -> None:
        if network.internal and not self._table.capable(network, "internal"):
            raise Unsupported(f'driver "{network.driver}" has no internal networks')
        if network.enable_ipv6 and not self._table.capable(network, "ipv6"):
            raise Unsupported(f'driver "{network.driver}" has no IPv6')

    def get(self, ref: str) -> Network:
        """Find a network. Raises NotFound; Invalid when the beginning of an id is ambiguous."""
        return self._table.find(ref)

    def list(self, filters: Filters | None = None) -> Sequence[Network]:
        """Networks that pass ``--filter``, sorted by name. Raises Invalid for unknown filters."""
        matches = matcher(filters or {}, lambda network: bool(self.members(network.id)))
        return sorted((n for n in self._table if matches(n)), key=lambda n: n.name)

    def members(self, network_id: str) -> Sequence[Member]:
        """The running containers on a network."""
        with self._table.lock:
            lives = list(self._parts.lives.values())
        found = []
        for live in lives:
            if (e := live.endpoint(network_id)) is not None:
                four = f"{e.ip}/{e.prefix}" if e.ip else ""
                six = f"{e.ip6}/{e.prefix6}" if e.ip6 else ""
                found.append(Member(live.container, live.name, e.id, e.mac, four, six))
        return found

    def remove(self, ref: str) -> None:
        """Remove a network. Raises NotFound, InUse while containers are on it, Denied."""
        network = self._table.find(ref)
        if network.predefined:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        self._remove(network)

    def _remove(self, network: Network) -> None:
        with self._table.lock:
            if self.members(network.id):
                raise InUse(
                    f"error while removing network: network {network.name} id {network.id} "
                    "has active endpoints"
                )
            # Nothing can be connected to it from here on.
            self._addresses.remove(network.id)
            self._table.hide(network)
        try:
            # Interfaces of ended containers go before the bridge.
            self._releases.drain()
            self._stop_serving(network)
            self._table.hook(network).remove(network=network.for_backend())
        except BaseException:
            self._table.show(network)
            recovery.note_network(self._parts, self._addresses, network)
            self._serve_names(network)
            raise
        self._table.delete(network)
        self._tell("destroy", network)

    def prune(self, filters: Filters | None = None) -> Sequence[str]:
        """Remove the networks that no container is on; returns their names."""
        matches = prunable(filters or {})
        removed = []
        for network in self.list():
            if network.predefined or not matches(network) or self._is_joined(network):
                continue
            try:
                self._remove(network)
            except LadingError as error:
                log.warning('prune network "%s": %s', network.name, error)
            else:
                removed.append(network.name)
        return removed

    def _is_joined(self, network: Network) -> bool:
        return bool(self.members(network.id)) or any(
            network.id in joined for joined in self._parts.memberships.values()
        )

    # Containers

    def check(self, mode: str, networking: NetworkingConfig) -> None:
        """Raises what ``allocate`` would for a mode and endpoints that can never work.

        A network that is not there is no such case: it may be made before the start.
        """
        for ref, settings in membership.wanted(mode, networking).items():
            try:
                found = self._table.find(ref)
            except NotFound:
                continue
            membership.check_settings(found, settings)

    def allocate(
        self,
        container: Subject,
        *,
        links: Sequence[Link] = (),
        joined: str = "",
        remapped: bool = False,
    ) -> Sandbox:
        """Make the network of a container that is about to start: attached and published.

        ``joined`` is the id of the container whose network is shared (mode ``container:``).
        ``remapped``: the container gets a user namespace, which must own its network namespace;
        the sandbox is then deferred. Raises Conflict for a taken port or address, NotFound for
        a missing network, Unavailable for a backend that does not work; nothing is left then.
        """
        return self._sandboxes.allocate(container, links, joined, remapped=remapped)

    def attach(self, container_id: str, netns: str) -> None:
        """Connect a deferred sandbox to the namespace that the container now has; publish ports."""
        self._sandboxes.attach(container_id, netns)

    def release(self, container_id: str) -> None:
        """Take a sandbox back: ports at once, interfaces in the background. Silent when none."""
        self._sandboxes.release(container_id)

    def forget(self, container_id: str) -> None:
        """Drop all that is known of a container that is removed; silent when nothing is."""
        self.release(container_id)
        if self._parts.memberships.pop(container_id, None) is not None:
            self._parts.state.save_membership(container_id, None)

    def rename(self, container_id: str, name: str) -> None:
        """Answer DNS queries for a running container under its new name."""
        live = self._parts.lives.get(container_id)
        if live is None:
            return
        renamed = tuple(
            msgspec.structs.replace(
                e, dns_names=tuple(name if n == live.name else n for n in e.dns_names)
            )
            for e in live.endpoints
        )
        self._parts.enter(msgspec.structs.replace(live, name=name, endpoints=renamed))

    def connect(self, ref: str, container: Subject, settings: EndpointSettings) -> Sandbox | None:
        """Join a network; the new contents of the container's files when it runs.

        Raises Denied for ``host`` and ``none`` and for a running container that is on it already,
        Invalid for containers that share a namespace.
        """
        return self._connecting.connect(self._table.find(ref), container, settings)

    def disconnect(self, ref: str, container: Subject) -> Sandbox | None:
        """Leave a network; likewise. Raises NotFound when it is not on it."""
        return self._connecting.disconnect(self._table.find(ref), container)

    def unlink(self, container: Subject, alias: str) -> Sandbox | None:
        """Forget the name that a running container knows another one by; likewise."""
        return self._connecting.unlink(container, alias)

    def of(self, container: Subject) -> ContainerNetworks:
        """What ``inspect`` shows of a container's networks, running or not."""
        live = self._parts.lives.get(container.id)
        if live is None:
            return ContainerNetworks(self._places(container))
        published = {(p.container_port, p.protocol) for p in live.ports}
        unpublished = tuple(
            PublishedPort(port, protocol)
            for port, protocol in exposed(container.config.exposed_ports)
            if (port, protocol) not in published and live.kind == "private"
        )
        return ContainerNetworks(live.endpoints, live.ports + unpublished, live.id, live.path)

    def _places(self, container: Subject) -> tuple[EndpointState, ...]:
        """The networks of a container that does not run, those that are gone by their name."""
        kept = self._parts.memberships.get(container.id)
        asked: Mapping[str, EndpointSettings] = (
            kept if kept is not None else membership.of(container)
        )
        places = []
        for ref, settings in asked.items():
            try:
                network = self._table.find(ref)
            except LadingError:
                if kept is None:
                    places.append(EndpointState("", ref, settings))
                continue
            names = dns_names(network, container, settings) if network.has_backend else ()
            places.append(EndpointState(network.id, network.name, settings, dns_names=names))
        return tuple(places)

    # Ready sandboxes, names, events

    def _default(self) -> Network | None:
        return next((network for network in self._table if network.default), None)

    def _host_gateway(self) -> str:
        default = self._default()
        return self._settings.host_gateway_ip or (default.gateway() if default else "")

    def _make_ready(self) -> Ready:
        network = self._default()
        if network is None:
            raise Conflict("there is no default network")
        endpoints, namespaces = self._parts.endpoints, self._parts.namespaces
        endpoint = endpoints.prepare(network, EndpointSettings(), 0, default_route=True)
        name = secrets.token_hex(6)
        try:
            path = str(namespaces.make(name))
            endpoints.attach(endpoint, path)
        except BaseException:
            namespaces.remove(name)
            endpoints.give_back(endpoint)
            raise
        return Ready(name, path, endpoint)

    def _drop_ready(self, ready: Ready) -> None:
        self._releases.put(
            Live("", "", "private", namespace=ready.namespace, endpoints=(ready.endpoint,))
        )

    def _let_go(self, live: Live) -> None:
        if live.namespace:
            self._parts.namespaces.remove(live.namespace)

    def _forget_network(self, network: Network) -> None:
        self._addresses.remove(network.id)
        self._table.delete(network)

    def _serve_names(self, network: Network) -> None:
        if network.has_backend and not network.default and self._table.capable(network, "gateway"):
            for found in network.ranges:
                if found.gateway:
                    self._dns.listen(found.gateway)

    def _stop_serving(self, network: Network) -> None:
        for found in network.ranges:
            self._dns.ignore(found.gateway)

    def _tell(self, action: str, network: Network) -> None:
        attributes = {"name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)

    def _tell_container(self, action: str, network: Network, container: str) -> None:
        attributes = {"container": container, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)
