"""Joining and leaving networks, of containers that run and of those that do not."""

from __future__ import annotations

import threading

import msgspec

from lading.errors import Denied, Invalid, NotFound
from lading.model.docker import EndpointSettings
from lading.networks import membership
from lading.networks.records import EndpointState, Network, Sandbox, Subject
from lading.networks.sandboxes import Parts, dns_names, published_on
from lading.networks.state import Live


class Connecting:
    """Changes which networks a container is on."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.Lock()

    def connect(
        self, network: Network, container: Subject, settings: EndpointSettings
    ) -> Sandbox | None:
        """See :meth:`lading.networks.Networks.connect`."""
        parts = self._parts
        _check_mode(container)
        if not network.has_backend:
            raise Denied(
                f"container cannot be connected to {network.name} network or disconnected from it"
            )
        membership.check_settings(network, settings)
        if settings.mac_address:
            mac = membership.normal_mac(settings.mac_address)
            settings = msgspec.structs.replace(settings, mac_address=mac)
        with self._lock:
            joined = dict(parts.joined(container))
            self._check_joined(joined, network, container)
            joined[network.id] = settings
            live = parts.lives.get(container.id)
            if live is not None:
                live = self._attach(live, network, container, settings)
            self._remember(container, joined)
        return self._changed(live, container, "connect", network)

    def _check_joined(
        self, joined: dict[str, EndpointSettings], network: Network, container: Subject
    ) -> None:
        if network.id in joined and container.id in self._parts.lives:
            raise Denied(
                f"endpoint with name {container.name} already exists in network {network.name}"
            )
        for key in joined:
            found = self._parts.table.get(key)
            if found is not None and not found.has_backend:
                raise Denied(
                    "container cannot be connected to multiple networks with one of the networks "
                    f"in private ({found.name}) mode"
                )

    def _attach(
        self, live: Live, network: Network, container: Subject, settings: EndpointSettings
    ) -> Live:
        parts = self._parts
        numbers = {e.ifname for e in live.endpoints}
        number = next(n for n in range(len(numbers) + 1) if not _in_use(n, numbers))
        routed = any(e.default_route for e in live.endpoints)
        with parts.table.lock:
            endpoint = parts.endpoints.prepare(
                parts.table.find(network.id),
                settings,
                number,
                dns_names=dns_names(network, container, settings),
                default_route=not routed and not network.internal,
            )
            changed = msgspec.structs.replace(
                live,
                endpoints=(*live.endpoints, endpoint),
                links={**live.links, **membership.links(settings)},
            )
            parts.lives[container.id] = changed
        try:
            parts.endpoints.attach(endpoint, live.path)
        except BaseException:
            parts.lives[container.id] = live
            parts.endpoints.give_back(endpoint)
            raise
        return changed

    def disconnect(self, network: Network, container: Subject) -> Sandbox | None:
        """See :meth:`lading.networks.Networks.disconnect`."""
        parts = self._parts
        if network.driver == "host":
            raise Denied("container cannot be disconnected from host network or connected to it")
        with self._lock:
            joined = dict(parts.joined(container))
            live = parts.lives.get(container.id)
            if network.id not in joined:
                raise NotFound(
                    f"container {container.id} is not connected to network {network.name}"
                )
            gone = membership.links(joined.pop(network.id))
            endpoint = live.endpoint(network.id) if live is not None else None
            if live is not None and endpoint is not None:
                links = {a: name for a, name in live.links.items() if a not in gone}
                live = self._detach(msgspec.structs.replace(live, links=links), endpoint)
            self._remember(container, joined)
        return self._changed(live, container, "disconnect", network)

    def _detach(self, live: Live, endpoint: EndpointState) -> Live:
        parts = self._parts
        if endpoint == published_on(live) and live.ports:
            parts.endpoints.unpublish(endpoint)
        if endpoint.id:
            parts.endpoints.detach(endpoint, live.path)
            parts.endpoints.give_back(endpoint)
        rest = tuple(e for e in live.endpoints if e.network_id != endpoint.network_id)
        live = msgspec.structs.replace(live, endpoints=rest)
        return self._reroute(live) if endpoint.default_route else live

    def _reroute(self, live: Live) -> Live:
        """Another endpoint gets the default route, and the published ports."""
        parts = self._parts
        for candidate in live.endpoints:
            network = parts.table.get(candidate.network_id)
            if not candidate.id or network is None or network.internal:
                continue
            routed = msgspec.structs.replace(candidate, default_route=True)
            parts.endpoints.attach(routed, live.path)
            if live.ports:
                parts.endpoints.publish(routed, live.ports)
            endpoints = tuple(routed if e is candidate else e for e in live.endpoints)
            return msgspec.structs.replace(live, endpoints=endpoints)
        return live

    def unlink(self, container: Subject, alias: str) -> Sandbox | None:
        """See :meth:`lading.networks.Networks.unlink`."""
        with self._lock:
            live = self._parts.lives.get(container.id)
            if live is None or alias not in live.links:
                return None
            links = {a: name for a, name in live.links.items() if a != alias}
            live = msgspec.structs.replace(live, links=links)
            self._parts.enter(live)
        return self._parts.contents.sandbox(live, container, self._parts.lives)

    def _remember(self, container: Subject, joined: dict[str, EndpointSettings]) -> None:
        self._parts.state.save_membership(container.id, joined)
        self._parts.memberships[container.id] = joined

    def _changed(
        self, live: Live | None, container: Subject, action: str, network: Network
    ) -> Sandbox | None:
        if live is None:
            return None
        parts = self._parts
        parts.enter(live)
        parts.tell(action, network, container.id)
        return parts.contents.sandbox(live, container, parts.lives)


def _in_use(number: int, names: set[str]) -> bool:
    return any(name.lstrip("abcdefghijklmnopqrstuvwxyz-_.") == str(number) for name in names)


def _check_mode(container: Subject) -> None:
    if not membership.network_of_mode(container.host_config.network_mode):
        raise Invalid(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
