"""What has happened, as ``docker events`` shows it: published once, seen by any number.

Publishing never waits for a reader. Each subscriber has a bounded queue; one that does not keep up
loses its subscription (it sees the end of its stream), not the daemon its memory. A bounded
history answers ``since``.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

HISTORY = 1000
QUEUE = 4096

Filters = Mapping[str, Sequence[str]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``type`` and ``action`` have Docker's words; ``time_nano`` counts from 1970."""

    type: str
    action: str
    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_nano: int = 0
    scope: str = "local"

    def as_json(self) -> dict[str, object]:
        """The object that ``GET /events`` streams, with the members of old clients."""
        wire: dict[str, object] = {}
        if self.type == "container":
            wire = {"status": self.action, "id": self.actor_id}
            if image := self.attributes.get("image"):
                wire["from"] = image
        elif self.type == "image":
            wire = {"status": self.action, "id": self.actor_id}
        wire |= {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.actor_id, "Attributes": dict(self.attributes)},
            "scope": self.scope,
            "time": self.time_nano // 1_000_000_000,
            "timeNano": self.time_nano,
        }
        return wire


class Subscription(Iterator[Event]):
    """The events that one reader sees; ``close`` ends the iteration, from any thread."""

    def __init__(self, matches: Callable[[Event], bool], until: int | None) -> None:
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._matches = matches
        self._until = until
        self._closed = False

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None at the end. Raises TimeoutError after ``timeout`` seconds."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while True:
            waits = [] if give_up is None else [give_up - time.monotonic()]
            if self._until is not None:
                waits.append((self._until - time.time_ns()) / 1e9)
            try:
                event = self._queue.get(timeout=max(0.0, min(waits)) if waits else None)
            except queue.Empty:
                if self._until is not None and time.time_ns() >= self._until:
                    return None
                if give_up is not None and time.monotonic() >= give_up:
                    raise TimeoutError("no event") from None
                continue
            if event is None or (self._until is not None and event.time_nano > self._until):
                return None
            return event

    def offer(self, event: Event) -> bool:
        """Queue an event that matches; False when this subscription is at its end."""
        if self._closed or self._queue.qsize() >= QUEUE:
            self.close()
            return False
        if self._matches(event):
            self._queue.put(event)
        return True

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._closed = True
        self._queue.put(None)


class Events:
    """The daemon's events."""

    def __init__(self, scope: str = "local") -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: list[Subscription] = []

    def publish(
        self, type: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None
    ) -> Event:
        """Tell everyone. ``attributes`` are Docker's: ``name``, ``image``, labels ..."""
        with self._lock:
            event = Event(
                type, action, actor_id, dict(attributes or {}), time.time_ns(), self._scope
            )
            self._history.append(event)
            self._subscriptions = [s for s in self._subscriptions if s.offer(event)]
        return event

    def subscribe(
        self,
        since: int | None = None,
        until: int | None = None,
        filters: Filters | None = None,
    ) -> Subscription:
        """See events; times in nanoseconds since 1970.

        Without ``since`` only what comes is seen. With an ``until`` in the past the iteration
        ends after the history.
        """
        subscription = Subscription(lambda event: matches(event, filters or {}), until)
        with self._lock:
            if since is not None:
                for event in self._history:
                    if event.time_nano >= since and (until is None or event.time_nano <= until):
                        subscription.offer(event)
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription whose reader has gone."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
        subscription.close()


def matches(event: Event, filters: Filters) -> bool:
    """Whether an event passes ``--filter``: any value of a key, all keys."""
    return all(_MATCHERS[key](event, values) for key, values in filters.items() if values)


def _type(event: Event, values: Sequence[str]) -> bool:
    return event.type in values


def _scope(event: Event, values: Sequence[str]) -> bool:
    return event.scope in values


def _action(event: Event, values: Sequence[str]) -> bool:
    # "exec_start: sh" and "health_status: healthy" match by their first word as well.
    return event.action in values or event.action.partition(":")[0] in values


def _label(event: Event, values: Sequence[str]) -> bool:
    for wanted in values:
        key, equals, value = wanted.partition("=")
        if key not in event.attributes or (equals and event.attributes[key] != value):
            return False
    return True


def _actor(*types: str) -> Callable[[Event, Sequence[str]], bool]:
    def match(event: Event, values: Sequence[str]) -> bool:
        names = (event.actor_id, event.attributes.get("name", ""))
        # A volume or network event names the container that it concerns.
        concerned = event.attributes.get(types[0], "")
        return any(
            (event.type in types and any(n.startswith(v) for n in names))
            or (concerned and concerned.startswith(v))
            for v in (v.lstrip("/") for v in values)
        )

    return match


def _image(event: Event, values: Sequence[str]) -> bool:
    if event.type == "image":
        names = {event.actor_id, event.attributes.get("name", "")}
    else:
        names = {event.attributes.get("image", "")}
    bare = {
        name.rpartition(":")[0] if "/" not in name.rpartition(":")[2] else name for name in names
    }
    return any(value in names | bare for value in values if value)


_MATCHERS: Mapping[str, Callable[[Event, Sequence[str]], bool]] = {
    "type": _type,
    "scope": _scope,
    "event": _action,
    "label": _label,
    "container": _actor("container"),
    "volume": _actor("volume"),
    "network": _actor("network"),
    "daemon": _actor("daemon"),
    "plugin": _actor("plugin"),
    "image": _image,
}

#: The keys that ``--filter`` of events takes.
FILTER_KEYS = frozenset(_MATCHERS)
