"""The backend object: the isolation contract, each hook in a few lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lading.bundle import seccomp
from lading.bundle.control import BundleBackend, host_refusal, host_warnings
from lading.bundle.state import State
from lading.errors import Unsupported
from lading.hooks import Context, Mount, Probe, hookimpl
from lading.hooks.isolation import Container, Started, Stdio
from lading.linux import cgroups
from lading_isolation_lxc import create, execute, library
from lading_isolation_lxc.places import Places

_OLDEST = 5
_REMEDY = "install LXC 5 or newer (Debian and Ubuntu: apt install liblxc1)"


class Lxc(BundleBackend):
    """Isolation through liblxc."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"userns", "netns-path", "seccomp", "update", "pause", "devices", "hooks", "init"}
    )

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.places = Places(context.run)

    @hookimpl
    def probe(self) -> Probe:
        """Usable for root with liblxc 5."""
        if unusable := host_refusal():
            return unusable
        try:
            version = library.version()
            interposable = library.interposable()
        except Unsupported as error:
            return Probe(usable=False, reason=error.message, remedy=_REMEDY)
        if int((re.findall(r"\d+", version) or ["0"])[0]) < _OLDEST:
            return Probe(usable=False, reason=f"liblxc {version} is too old", remedy=_REMEDY)
        if not interposable:
            reason = f"liblxc {version} works in a way not known here"
            return Probe(usable=False, reason=reason, remedy="use another isolation backend")
        libseccomp = seccomp.version()
        return Probe(
            usable=True,
            version=version,
            details={
                "cgroups": cgroups.hierarchies().mode,
                "libseccomp": libseccomp or "missing",
                "containers": str(self.places.containers),
            },
            warnings=tuple(host_warnings(libseccomp)),
        )

    @hookimpl
    def create(self, container: Container, rootfs: Sequence[Mount], stdio: Stdio) -> Started:
        """Fork a keeper, in which LXC starts the container."""
        started, channel = create.create(container, rootfs, stdio, self.places)
        self.waiting[container.id] = channel
        return started

    @hookimpl
    def exec(self, container: Container, process: Mapping[str, Any], stdio: Stdio) -> Started:
        """Have LXC attach a process, and execute in it."""
        return execute.execute(container, process, stdio, self.places)

    def end(self, container: Container, state: State) -> None:
        """Kill, wait for LXC's own cleaning, and remove what it leaves."""
        create.end(state.cgroup)
        self.places.remove(container)
