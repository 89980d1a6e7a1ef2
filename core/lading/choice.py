"""What the configuration says about backends: what each is made from, and which may be loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lading import backends
from lading.config import Settings
from lading.hooks import Context
from lading.load_policy import Policy

#: The driver of networks that name none.
DEFAULT_NETWORK_DRIVER = "bridge"


def policy_of(settings: Settings) -> Policy:
    """The load policy of the configuration."""
    plugins = settings.plugins
    allow = None if plugins.allow is None else tuple(plugins.allow)
    return Policy(allow, plugins.require_root_owned, plugins.pins)


def contexts(settings: Settings, role: str) -> Callable[[str], Context]:
    """Makes the contexts of a role's backends."""
    options: dict[str, dict[str, Any]] = dict(getattr(settings, role, {}))
    if role == "filesystem":
        own = dict(options.get(settings.storage_driver, {}))
        for row in settings.storage_opts:
            key, _, value = row.partition("=")
            # Docker writes "overlay2.size=..."; the driver's name is understood.
            own[key.rpartition(".")[2]] = value
        options[settings.storage_driver] = own
    make = backends.contexts_under(
        Path(settings.data_root), Path(settings.exec_root), role, options
    )
    if role != "network":
        return make
    # The daemon-wide switches that dockerd has; a backend's own table wins.
    switches = {"iptables": settings.iptables, "ip-forward": settings.ip_forward}

    def with_switches(name: str) -> Context:
        context = make(name)
        return dataclasses.replace(context, options={**switches, **context.options})

    return with_switches


def default_of(settings: Settings, role: str) -> str:
    """The backend that is taken when nobody names one; "" for a role without such a thing."""
    defaults: Mapping[str, str] = {
        "isolation": settings.default_runtime,
        "filesystem": settings.storage_driver,
        "network": DEFAULT_NETWORK_DRIVER,
    }
    return defaults.get(role, "")
