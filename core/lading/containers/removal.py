"""Taking a container away.

The metadata row goes first, in one transaction with an intent that knows what else there is: from
then on the container is gone for everybody, and the rest is finished even after a crash.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lading.containers import streams, tell
from lading.containers.execs import Execs
from lading.containers.host_mounts import HostMounts
from lading.containers.parts import Parts
from lading.containers.records import Container, Status
from lading.containers.table import Live, Table
from lading.containers.volumes import view_key
from lading.errors import InUse, NotFound

log = logging.getLogger(__name__)

INTENT = "remove-container"


class Remover:
    """Removes containers that do not run."""

    def __init__(self, parts: Parts, table: Table, execs: Execs, host_mounts: HostMounts) -> None:
        self._parts = parts
        self._host_mounts = host_mounts
        self._table = table
        self._execs = execs

    def remove(self, live: Live, *, volumes: bool) -> None:
        """Remove it; the caller holds its lock. ``volumes``: anonymous ones as well."""
        parts, record = self._parts, live.record
        self._table.set_status(live, Status.REMOVING)
        doomed = [m.name for m in record.mounts if m.anonymous and m.name and volumes]
        details = {
            "filesystem": record.filesystem,
            "isolation": record.isolation,
            "views": [
                view_key(record.id, n) for n, m in enumerate(record.mounts) if m.type == "image"
            ],
            "volumes": doomed,
        }
        with parts.db.write() as connection:
            connection.execute("DELETE FROM containers WHERE id = ?", (record.id,))
            intent = parts.intents.begin(INTENT, record.id, details)
        for mount in record.mounts:
            if mount.type == "volume":
                parts.volumes.release(mount.name, record.id)
        streams.drop(live)
        if self.finish(record.id, details):
            parts.intents.end(intent)
        self._table.discard(live)
        self._execs.forget(record.id)
        self._tell(live, record)

    def _tell(self, live: Live, record: Container) -> None:
        tell.event(self._parts.events, record, "destroy")
        for wait in (*live.removals, *live.exits):
            wait.resolve(record.state.exit_code)
        live.removals.clear()
        live.exits.clear()

    def resume(self, container_id: str, details: Mapping[str, Any]) -> None:
        """Finish what a crash interrupted. Raises nothing: what fails is tried at each start."""
        self.finish(container_id, details)

    def finish(self, container_id: str, details: Mapping[str, Any]) -> bool:
        """Remove everything beside the metadata; False when something could not be."""
        parts = self._parts
        filesystem = details["filesystem"]
        steps: list[Callable[[], object]] = [
            partial(self._host_mounts.release, container_id),
            partial(parts.networks.forget, container_id),
            *(partial(self._remove_snapshot, filesystem, k) for k in details["views"]),
            partial(self._remove_snapshot, filesystem, container_id),
            *(partial(self._remove_volume, name) for name in details["volumes"]),
            partial(shutil.rmtree, parts.bundle(container_id), ignore_errors=True),
        ]
        done = True
        for step in steps:
            try:
                step()
            except Exception:
                log.exception('remove container "%s"', container_id)
                done = False
        return done

    def _remove_volume(self, name: str) -> None:
        try:
            self._parts.volumes.remove(name, force=True)
        except InUse:
            # Another container has it by --volumes-from.
            pass

    def _remove_snapshot(self, filesystem: str, key: str) -> None:
        try:
            self._parts.filesystems.get(filesystem).hook.remove(key=key)
        except NotFound:
            pass
