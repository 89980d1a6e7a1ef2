"""``--filter`` of ``network ls`` and ``network prune``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lading.errors import Invalid
from lading.networks.records import Network
from lading.store.clock import nanoseconds, point_in_time

Filters = Mapping[str, Sequence[str]]
Match = Callable[[Network], bool]


def matcher(filters: Filters, used: Callable[[Network], bool]) -> Match:
    """Whether a network passes: any value of a key, all keys. Raises Invalid."""
    for key in filters:
        if key not in _TESTS and key != "dangling":
            raise Invalid(f"invalid filter '{key}'")
    for value in filters.get("type", ()):
        if value not in ("custom", "builtin"):
            raise Invalid(f"invalid filter 'type={value}'")
    dangling = [_flag(value) for value in filters.get("dangling", ())]

    def match(network: Network) -> bool:
        if dangling and (not network.predefined and not used(network)) not in dangling:
            return False
        return all(
            any(_TESTS[key](network, value) for value in values)
            for key, values in filters.items()
            if values and key in _TESTS
        )

    return match


def prunable(filters: Filters) -> Match:
    """Which networks ``prune`` may remove: all labels must match. Raises Invalid."""
    for key in filters:
        if key not in ("label", "label!", "until"):
            raise Invalid(f"invalid filter '{key}'")
    until = [point_in_time(value) for value in filters.get("until", ())]

    def match(network: Network) -> bool:
        return (
            all(_label(network, value) for value in filters.get("label", ()))
            and not any(_label(network, value) for value in filters.get("label!", ()))
            and all(nanoseconds(network.created) < moment for moment in until)
        )

    return match


def _flag(value: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise Invalid(f"invalid filter 'dangling={value}'")


def _label(network: Network, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in network.labels and (not equals or network.labels[key] == value)


_TESTS: Mapping[str, Callable[[Network, str], bool]] = {
    "driver": lambda network, value: network.driver == value,
    "id": lambda network, value: value in network.id,
    "name": lambda network, value: value in network.name,
    "label": _label,
    "scope": lambda network, value: network.scope == value,
    "type": lambda network, value: network.predefined == (value == "builtin"),
}
