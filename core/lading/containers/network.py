"""A container's place on the network, and the files that tell it of names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from lading.containers import modes
from lading.containers.parts import Parts
from lading.containers.records import Container
from lading.containers.table import Live, Table
from lading.errors import Conflict, NotFound
from lading.model.docker import EndpointSettings, NetworkingConfig
from lading.networks import Link, Sandbox


class Connector:
    """Connects starting containers, and moves running ones between networks."""

    def __init__(self, parts: Parts, table: Table) -> None:
        self._parts = parts
        self._table = table

    def allocate(self, record: Container, undo: ExitStack) -> Sandbox:
        """Give a starting container its network. Raises Conflict, NotFound, Unavailable."""
        joined = ""
        if name := modes.network_container(record.host_config):
            other = self._table.find(name).record
            modes.check_joinable("network", name, running=other.state.running)
            joined = other.id
        sandbox = self._parts.networks.allocate(
            record,
            links=tuple(self._links(record)),
            joined=joined,
            remapped=bool(self._parts.id_maps(record.host_config)[0]),
        )
        undo.callback(self._parts.networks.release, record.id)
        return sandbox

    def _links(self, record: Container) -> Iterator[Link]:
        for text in record.host_config.links:
            name, alias = _linked(text)
            other = self._table.find(name.removeprefix("/")).record
            if not other.state.running:
                raise Conflict(
                    f"Cannot link to a non running container: /{other.name} AS "
                    f"/{record.name}/{alias}"
                )
            yield Link(other.id, other.name, alias, other.config)

    def shared_files(self, record: Container) -> Container:
        """The record with the files of the container whose network it shares, if it does."""
        name = modes.network_container(record.host_config)
        if not name:
            return record
        other = self._table.find(name).record
        return msgspec.structs.replace(
            record,
            hostname_path=other.hostname_path,
            hosts_path=other.hosts_path,
            resolv_conf_path=other.resolv_conf_path,
        )

    def connect(self, live: Live, network: str, settings: EndpointSettings) -> None:
        """Join a network, now if it runs, at its next start else."""
        networks = self._parts.networks
        with live.lock.doing("its connection to a network"):
            found = networks.get(network)
            sandbox = networks.connect(network, live.record, settings)
            endpoints = {**live.record.networking.endpoints_config, found.name: settings}
            self._save(live, endpoints)
            if sandbox is not None:
                write_files(live.record, sandbox)

    def disconnect(self, live: Live, network: str) -> None:
        """Leave a network."""
        networks = self._parts.networks
        with live.lock.doing("its disconnection from a network"):
            sandbox = networks.disconnect(network, live.record)
            found = networks.get(network)
            endpoints = {
                name: settings
                for name, settings in live.record.networking.endpoints_config.items()
                if name not in (network, found.name, found.id)
            }
            self._save(live, endpoints)
            if sandbox is not None:
                write_files(live.record, sandbox)

    def unlink(self, live: Live, alias: str) -> None:
        """Take a link away. Raises NotFound when there is none of that name."""
        with live.lock:
            host = live.record.host_config
            links = [text for text in host.links if _linked(text)[1] != alias]
            if links == host.links:
                raise NotFound(f'container "/{live.record.name}" has no link "{alias}"')
            host = msgspec.structs.replace(host, links=links)
            self._table.save(live, msgspec.structs.replace(live.record, host_config=host))
            sandbox = self._parts.networks.unlink(live.record, alias)
            if sandbox is not None:
                write_files(live.record, sandbox)

    def _save(self, live: Live, endpoints: dict[str, EndpointSettings]) -> None:
        networking = NetworkingConfig(endpoints_config=endpoints)
        self._table.save(live, msgspec.structs.replace(live.record, networking=networking))


def write_files(record: Container, sandbox: Sandbox, hostname: str = "") -> None:
    """Write what is mounted over the image's files of these names.

    In place: a running container has the files themselves mounted, not their names.
    """
    for path, content in (
        (record.hosts_path, sandbox.hosts),
        (record.resolv_conf_path, sandbox.resolv_conf),
        (record.hostname_path, f"{hostname}\n" if hostname else ""),
    ):
        if content:
            Path(path).write_text(content)


def _linked(text: str) -> tuple[str, str]:
    """The other container and the alias of ``NAME:ALIAS``, ``NAME`` or ``/NAME:/OURS/ALIAS``."""
    name, colon, alias = text.partition(":")
    return name, (alias if colon else name).rpartition("/")[2]
