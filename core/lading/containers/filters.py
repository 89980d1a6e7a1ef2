"""``docker ps --filter`` and ``container prune --filter``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lading.containers.records import Container, Status
from lading.errors import Invalid, NotFound
from lading.images import Images
from lading.store.clock import nanoseconds, point_in_time

Match = Callable[[Container], bool]

KEYS = frozenset(
    {
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    }
)

#: Filters that show stopped containers too.
SHOWS_ALL = frozenset({"status", "exited", "before", "since"})


@dataclass(frozen=True, slots=True)
class Context:
    """What some filters look up."""

    find: Callable[[str], Container]
    images: Images
    networks_of: Callable[[Container], Mapping[str, str]]


def matcher(filters: Mapping[str, Sequence[str]], context: Context) -> Match:
    """One predicate out of all filters: any value of a key, all keys. Raises Invalid."""
    tests: list[Match] = []
    for key, values in filters.items():
        if key not in KEYS:
            raise Invalid(f"invalid filter '{key}'")
        if values:
            tests.append(_MAKERS[key](list(values), context))
    return lambda container: all(test(container) for test in tests)


def _id(values: Sequence[str], _: Context) -> Match:
    return lambda c: any(c.id.startswith(v) for v in values)


def _name(values: Sequence[str], _: Context) -> Match:
    try:
        patterns = [re.compile(v) for v in values]
    except re.error as error:
        raise Invalid(f"invalid filter 'name={error.pattern!r}': {error}") from error
    # A pattern may count on the leading slash that names have in the API.
    return lambda c: any(p.search(c.name) or p.search(f"/{c.name}") for p in patterns)


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """``key`` or ``key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _label(values: Sequence[str], _: Context) -> Match:
    return lambda c: all(has_label(c.config.labels, v) for v in values)


def _status(values: Sequence[str], _: Context) -> Match:
    known = {str(s) for s in Status}
    for value in values:
        if value not in known:
            raise Invalid(f"invalid filter 'status={value}'", hint=", ".join(sorted(known)))
    return lambda c: str(c.state.status) in values


def _exited(values: Sequence[str], _: Context) -> Match:
    try:
        codes = {int(v) for v in values}
    except ValueError:
        raise Invalid(f"invalid filter 'exited={values[0]}'") from None
    return lambda c: (
        c.state.exit_code in codes and not c.state.running and c.state.status != Status.CREATED
    )


def _before(values: Sequence[str], context: Context) -> Match:
    others = [context.find(v) for v in values]
    return lambda c: all(c.created < other.created and c.id != other.id for other in others)


def _since(values: Sequence[str], context: Context) -> Match:
    others = [context.find(v) for v in values]
    return lambda c: all(c.created > other.created and c.id != other.id for other in others)


def _ancestor(values: Sequence[str], context: Context) -> Match:
    layers: list[tuple[str, ...]] = []
    ids: set[str] = set()
    for value in values:
        try:
            image = context.images.get(value)
        except NotFound:
            continue
        ids.add(image.id)
        layers.append(tuple(layer.diff_id for layer in image.layers))

    def match(container: Container) -> bool:
        if container.image in ids:
            return True
        try:
            own = tuple(la.diff_id for la in context.images.get(container.image).layers)
        except NotFound:
            return False
        return any(ancestor and own[: len(ancestor)] == ancestor for ancestor in layers)

    return match


def _volume(values: Sequence[str], _: Context) -> Match:
    return lambda c: any(v in (m.name, m.destination, m.source) for m in c.mounts for v in values)


def _network(values: Sequence[str], context: Context) -> Match:
    def match(container: Container) -> bool:
        networks = context.networks_of(container)
        return any(
            v == name or (v and network_id.startswith(v))
            for name, network_id in networks.items()
            for v in values
        )

    return match


def _health(values: Sequence[str], _: Context) -> Match:
    for value in values:
        if value not in ("none", "starting", "healthy", "unhealthy"):
            raise Invalid(f"invalid filter 'health={value}'")
    return lambda c: (c.state.health.status if c.state.health else "none") in values


def _ports(text: str) -> set[str]:
    span, _, protocol = text.partition("/")
    first, dash, last = span.partition("-")
    try:
        numbers = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise Invalid(f"invalid filter: port '{text}'") from None
    return {f"{number}/{protocol or 'tcp'}" for number in numbers}


def _expose(values: Sequence[str], _: Context) -> Match:
    wanted = {port for value in values for port in _ports(value)}

    def match(container: Container) -> bool:
        exposed = {*container.config.exposed_ports, *container.host_config.port_bindings}
        return any(_ports(port) & wanted for port in exposed)

    return match


def _publish(values: Sequence[str], _: Context) -> Match:
    wanted = {port for value in values for port in _ports(value)}

    def match(container: Container) -> bool:
        for port, bindings in container.host_config.port_bindings.items():
            protocol = port.partition("/")[2] or "tcp"
            if _ports(port) & wanted:
                return True
            if any(b.host_port and _ports(f"{b.host_port}/{protocol}") & wanted for b in bindings):
                return True
        return False

    return match


def _is_task(values: Sequence[str], _: Context) -> Match:
    if not {v.lower() for v in values} <= {"true", "false", "1", "0"}:
        raise Invalid(f"invalid filter 'is-task={values[0]}'")
    # There are no tasks here: those are of Swarm's.
    return lambda _: all(v.lower() in ("false", "0") for v in values)


def _isolation(values: Sequence[str], _: Context) -> Match:
    return lambda c: c.isolation in values or "default" in values


_MAKERS: Mapping[str, Callable[[Sequence[str], Context], Match]] = {
    "ancestor": _ancestor,
    "before": _before,
    "exited": _exited,
    "expose": _expose,
    "health": _health,
    "id": _id,
    "is-task": _is_task,
    "isolation": _isolation,
    "label": _label,
    "name": _name,
    "network": _network,
    "publish": _publish,
    "since": _since,
    "status": _status,
    "volume": _volume,
}


def prunable(filters: Mapping[str, Sequence[str]]) -> Match:
    """The filters of ``prune``: ``until``, ``label``, ``label!``. Raises Invalid."""
    for key in filters:
        if key not in ("until", "label", "label!"):
            raise Invalid(f"invalid filter '{key}'")
    untils = filters.get("until") or ()
    if len(untils) > 1:
        raise Invalid("more than one until filter specified")
    limit = point_in_time(untils[0]) if untils else None
    wanted, unwanted = filters.get("label") or (), filters.get("label!") or ()
    return lambda c: (
        (limit is None or nanoseconds(c.created) < limit)
        and all(has_label(c.config.labels, w) for w in wanted)
        and not any(has_label(c.config.labels, w) for w in unwanted)
    )
