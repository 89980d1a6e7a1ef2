"""Events of containers, and how extensions see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lading.containers.records import Container, MountPoint
from lading.store.events import Events


def event(events: Events, container: Container, action: str, **attributes: str) -> None:
    """Publish an event of a container: its labels, image and name are in every one."""
    events.publish(
        "container",
        action,
        container.id,
        {
            **container.config.labels,
            "image": container.config.image or container.image,
            "name": container.name,
            **attributes,
        },
    )


def mounted(events: Events, mount: MountPoint, container: str) -> None:
    """Publish that a volume was mounted for a container."""
    attributes = {
        "container": container,
        "destination": mount.destination,
        "driver": mount.driver,
        "propagation": mount.propagation,
        "read/write": str(mount.rw).lower(),
    }
    events.publish("volume", "mount", mount.name, attributes)


def unmounted(events: Events, mount: MountPoint, container: str) -> None:
    """Publish that a volume is not mounted for a container any more."""
    events.publish(
        "volume", "unmount", mount.name, {"container": container, "driver": mount.driver}
    )


def request(container: Container) -> Mapping[str, Any]:
    """What extensions are shown before something happens to a container."""
    shown: dict[str, Any] = {
        "Id": container.id,
        "Name": f"/{container.name}",
        "Image": container.image,
        "Path": container.path,
        "Args": list(container.args),
        "Config": msgspec.to_builtins(container.config),
        "HostConfig": msgspec.to_builtins(container.host_config),
        "State": {"Status": str(container.state.status), "Pid": container.state.pid},
    }
    return shown
