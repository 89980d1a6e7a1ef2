"""A starting container's place on the network, and the files that tell it of names."""

from __future__ import annotations

from contextlib import ExitStack

from lading.containers import modes
from lading.containers.parts import Parts
from lading.containers.records import Container
from lading.containers.table import Table
from lading.networks import Sandbox


def connect(parts: Parts, table: Table, record: Container, undo: ExitStack) -> Sandbox:
    """Give it a network namespace, or none of its own. Raises Conflict, NotFound."""
    host = record.host_config
    mode = host.network_mode
    if name := modes.network_container(host):
        other = table.find(name).record
        modes.check_joinable("network", name, running=other.state.running)
        mode = f"container:{other.id}"
    sandbox = parts.networks.allocate(record.id, mode, record)
    undo.callback(parts.networks.release, record.id)
    return sandbox
