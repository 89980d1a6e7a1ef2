"""Routes of the daemon itself: ping, version, info, events, disk usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from lading.api import host_facts
from lading.api import render_container as render
from lading.api.containers import ImageNames
from lading.api.engine import Engine
from lading.api.parameters import filters, nanoseconds
from lading.api.render_image import layers_size, summaries
from lading.api.routes import Routes
from lading.api.streams import until_gone
from lading.api.version import Version, version_of
from lading.api.volumes import volume_json
from lading.build import pruning
from lading.containers import ListOptions, Status
from lading.errors import Invalid
from lading.http.messages import Request, Response
from lading.store.clock import now
from lading.store.events import FILTER_KEYS, Event

_UNCACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
# "1" is the classic builder: clients that know both must not ask for BuildKit.
_PING = _UNCACHED | {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Content-Type": "text/plain; charset=utf-8",
}
_DF_TYPES = ("container", "image", "volume", "build-cache")


class SystemRoutes:
    """What is neither a container nor one of its parts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("GET", "/_ping", self.ping)
        routes.add("HEAD", "/_ping", self.ping)
        routes.add("GET", "/version", self.version)
        routes.add("GET", "/info", self.info)
        routes.add("GET", "/events", self.events)
        routes.add("GET", "/system/df", self.disk_usage)

    def ping(self, request: Request) -> Response:
        """``GET`` and ``HEAD /_ping``."""
        return Response(200, dict(_PING), b"OK")

    def version(self, request: Request) -> Response:
        """``GET /version``."""
        return Response.json(host_facts.version())

    def info(self, request: Request) -> Response:
        """``GET /info``."""
        engine = self._engine
        states = [
            row.container.state.status for row in engine.containers.list(ListOptions(all=True))
        ]
        running = sum(s in (Status.RUNNING, Status.RESTARTING) for s in states)
        paused = states.count(Status.PAUSED)
        shown = host_facts.info() | {
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(engine.images.list(all=True)),
            "NGoroutines": 0,
            "NEventsListener": 0,
            "SystemTime": now(),
        }
        if version_of(request) >= (1, 50):
            del shown["BridgeNfIptables"], shown["BridgeNfIp6tables"]
        return Response.json(shown | engine.info())

    def events(self, request: Request) -> Response:
        """``GET /events``."""
        chosen = filters(request)
        for key in chosen:
            if key not in FILTER_KEYS:
                raise Invalid(f"invalid filter '{key}'")
        subscription = self._engine.events.subscribe(
            nanoseconds(request, "since") or None, nanoseconds(request, "until") or None, chosen
        )
        version = version_of(request)

        def answer() -> Iterator[bytes]:
            for event in subscription:
                if shown := _event_json(event, version):
                    yield msgspec.json.encode(shown) + b"\n"

        def close() -> None:
            self._engine.events.unsubscribe(subscription)

        return Response.stream(until_gone(request, answer(), close), "application/json")

    def disk_usage(self, request: Request) -> Response:
        """``GET /system/df``."""
        wanted = request.query.all("type")
        for kind in wanted:
            if kind not in _DF_TYPES:
                raise Invalid(f'unknown object type: "{kind}"')
        kinds = wanted or list(_DF_TYPES)
        shown: dict[str, Any] = {}
        if "image" in kinds:
            images = list(self._engine.images.list())
            shown["LayersSize"] = layers_size(images)
            shown["Images"] = summaries(
                images, version=version_of(request), users=self._image_users(), shared=True
            )
        if "container" in kinds:
            shown["Containers"] = self._containers(version_of(request))
        if "volume" in kinds:
            shown["Volumes"] = self._volumes()
        if "build-cache" in kinds:
            shown["BuildCache"] = [pruning.shown(r) for r in self._engine.builder().records()]
        return Response.json(shown)

    def _image_users(self) -> Counter[str]:
        listed = self._engine.containers.list(ListOptions(all=True))
        return Counter(row.container.image for row in listed)

    def _containers(self, version: Version) -> list[dict[str, Any]]:
        names = ImageNames(self._engine)
        return [
            render.summary(
                row, names.of(row.container), self._engine.networks.of(row.container), version
            )
            for row in self._engine.containers.list(ListOptions(all=True, size=True))
        ]

    def _volumes(self) -> list[dict[str, Any]]:
        volumes = self._engine.volumes
        return [
            volume_json(v, (volumes.size(v.name), len(volumes.users(v.name))))
            for v in volumes.list()
        ]


def _event_json(event: Event, version: Version) -> dict[str, Any]:
    shown = dict(event.as_json())
    if version < (1, 22):
        # Only containers and images had events, in their own form.
        if event.type not in ("container", "image"):
            return {}
        return {k: shown[k] for k in ("status", "id", "from", "time", "timeNano") if k in shown}
    return shown
