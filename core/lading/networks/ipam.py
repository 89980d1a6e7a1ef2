"""Which address an endpoint gets.

Addresses are handed out in turn, so that one just given back, for which neighbours and connection
tracking still have entries, is the last to be used again. What is taken is known from the
sandboxes in the metadata; it is kept in memory only.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Sequence

from lading.errors import Conflict, Invalid, Unavailable
from lading.model.docker_networks import IPAMConfig


class Exhausted(Unavailable):
    """A range has no free address (now)."""


class Taken(Conflict):
    """The address that was asked for is in use."""


class Range:
    """The addresses of one subnet."""

    def __init__(self, config: IPAMConfig) -> None:
        self.subnet = ipaddress.ip_network(config.subnet)
        pool = ipaddress.ip_network(config.ip_range or config.subnet)
        self._first, self._last = int(pool.network_address), int(pool.broadcast_address)
        self._reserved = {int(ipaddress.ip_address(a)) for a in config.auxiliary_addresses.values()}
        if config.gateway:
            self._reserved.add(int(ipaddress.ip_address(config.gateway)))
        if self.subnet.prefixlen < self.subnet.max_prefixlen - 1:
            self._reserved.add(int(self.subnet.network_address))
            if self.subnet.version == 4:
                self._reserved.add(int(self.subnet.broadcast_address))
        self._taken: set[int] = set()
        self._next = self._first

    def take(self, wanted: str = "") -> str:
        """An address. Raises Taken or Exhausted; Invalid when it is not of this subnet."""
        if wanted:
            return self._take_one(wanted)
        # The part from where the last one was found, then the part before it.
        for first, last in ((self._next, self._last), (self._first, self._next - 1)):
            for number in range(first, last + 1):
                if number not in self._taken and number not in self._reserved:
                    return self._note(number)
        raise Exhausted(f"no available IPv{self.subnet.version} addresses in {self.subnet}")

    def _take_one(self, wanted: str) -> str:
        try:
            address = ipaddress.ip_address(wanted)
        except ValueError as error:
            raise Invalid(f'invalid IP address "{wanted}"') from error
        if address not in self.subnet:
            raise Invalid(f'address "{wanted}" is not in the subnet {self.subnet}')
        number = int(address)
        if number in self._reserved or number in self._taken:
            raise Taken(f'address "{wanted}" is already in use on the subnet {self.subnet}')
        self._taken.add(number)
        return str(address)

    def _note(self, number: int) -> str:
        self._taken.add(number)
        self._next = number + 1
        kind = ipaddress.IPv4Address if self.subnet.version == 4 else ipaddress.IPv6Address
        return str(kind(number))

    def give(self, address: str) -> None:
        """Take an address back; silent for one that is free."""
        self._taken.discard(int(ipaddress.ip_address(address)))

    def note(self, address: str) -> None:
        """Know of an address that is in use already."""
        self._note(int(ipaddress.ip_address(address)))


class Addresses:
    """The ranges of all networks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: dict[str, tuple[Range, ...]] = {}

    def add(self, network_id: str, configs: Sequence[IPAMConfig]) -> None:
        """Know a network."""
        with self._lock:
            self._ranges[network_id] = tuple(Range(config) for config in configs)

    def remove(self, network_id: str) -> None:
        """Forget a network."""
        with self._lock:
            self._ranges.pop(network_id, None)

    def take(self, network_id: str, version: int, wanted: str = "") -> tuple[str, int]:
        """An address and the length of its subnet's prefix; ("", 0) without a range for it."""
        with self._lock:
            found = [r for r in self._ranges[network_id] if r.subnet.version == version]
            if not found:
                if wanted:
                    raise Invalid(f'address "{wanted}": the network has no IPv{version} subnet')
                return "", 0
            chosen = found[0]
            if wanted:
                chosen = next((r for r in found if _holds(r, wanted)), chosen)
            return chosen.take(wanted), chosen.subnet.prefixlen

    def give(self, network_id: str, *addresses: str) -> None:
        """Take addresses back; empty ones are skipped."""
        self._each(network_id, addresses, Range.give)

    def note(self, network_id: str, *addresses: str) -> None:
        """Know of addresses in use."""
        self._each(network_id, addresses, Range.note)

    def _each(
        self, network_id: str, addresses: Sequence[str], do: Callable[[Range, str], None]
    ) -> None:
        with self._lock:
            for address in filter(None, addresses):
                for found in self._ranges.get(network_id, ()):
                    if _holds(found, address):
                        do(found, address)


def _holds(found: Range, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in found.subnet
    except ValueError:
        return False
