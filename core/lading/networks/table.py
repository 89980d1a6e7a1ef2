"""The networks of a daemon in memory, and the way to their backends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from lading.backends import Backends
from lading.errors import Invalid, NotFound
from lading.hooks.network import NetworkBackend
from lading.networks.records import Network
from lading.networks.state import State


class Table:
    """All networks, by id; ``lock`` also orders changes against sandboxes that are being made."""

    def __init__(self, state: State, backends: Backends[NetworkBackend]) -> None:
        self.lock = threading.RLock()
        self._state = state
        self._backends = backends
        self._networks = {network.id: network for network in state.networks()}

    def __iter__(self) -> Iterator[Network]:
        with self.lock:
            return iter(list(self._networks.values()))

    def find(self, ref: str) -> Network:
        """By id, name, or a unique beginning of an id. Raises NotFound, Invalid (ambiguous)."""
        with self.lock:
            if found := self._networks.get(ref):
                return found
            for network in self._networks.values():
                if network.name == ref:
                    return network
            matches = [n for key, n in self._networks.items() if ref and key.startswith(ref)]
        if len(matches) > 1:
            raise Invalid(f'network "{ref}" is ambiguous: {len(matches)} ids begin with it')
        if not matches:
            raise NotFound(f"network {ref} not found")
        return matches[0]

    def named(self, name: str) -> Network | None:
        """By name alone."""
        with self.lock:
            return next((n for n in self._networks.values() if n.name == name), None)

    def get(self, network_id: str) -> Network | None:
        """By id alone."""
        return self._networks.get(network_id)

    def save(self, network: Network) -> None:
        """Add or replace one."""
        with self.lock:
            self._state.save_network(network)
            self._networks[network.id] = network

    def hide(self, network: Network) -> None:
        """Let nobody find one any more that is about to go."""
        with self.lock:
            self._networks.pop(network.id, None)

    def show(self, network: Network) -> None:
        """Let one be found again that could not go."""
        with self.lock:
            self._networks[network.id] = network

    def delete(self, network: Network) -> None:
        """Forget one."""
        with self.lock:
            self._networks.pop(network.id, None)
            self._state.delete_network(network.id)

    def hook(self, network: Network) -> NetworkBackend:
        """The hooks of its backend. Raises NotFound or Unavailable."""
        return self._backends.get(network.driver).hook

    def capable(self, network: Network, capability: str) -> bool:
        """Whether its backend is there and has a capability."""
        loaded = self._backends.loaded.get(network.driver)
        return loaded is not None and loaded.probe.usable and capability in loaded.capabilities
