"""One snapshotter behind a socket: whose socket it is, whose namespace, and collecting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lading.errors import Conflict, LadingError, NotFound, Unavailable, Unsupported

if TYPE_CHECKING:
    from lading_fs_snapshotter.client import Client

log = logging.getLogger(__name__)

_PLUGIN_TYPE = "io.containerd.snapshotter.v1"
#: Labels of a namespace that say which engine's snapshots of which snapshotter it holds.
_OWNER = "lading/"


class Service:
    """Connects at the first call; thread safe."""

    def __init__(
        self, address: str, namespace: str, snapshotter: str, timeout: float, owner: str
    ) -> None:
        self.address, self.namespace, self.snapshotter = address, namespace, snapshotter
        self._timeout, self._owner = timeout, owner
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._ready = False
        self._bare = False
        self._collecting = False
        self._again = False

    def call(self, method: str, **fields: Any) -> Any:
        """Call a method of the snapshots service. Raises as :meth:`Client.call`."""
        return self._open().call(method, snapshotter=self.snapshotter, **fields)

    def listed(self) -> Iterator[Any]:
        """All snapshots in the namespace."""
        return self._open().listed(self.snapshotter)

    def version(self, seconds: float) -> str:
        """The version of containerd; "" from a proxy snapshotter's own socket.

        Raises NotFound, saying what there is, when containerd does not have the snapshotter, and
        Unavailable when it has it and cannot use it.
        """
        client = self._connected()
        try:
            version = str(client.call("Version", seconds=seconds).version)
        except Unsupported:
            return ""
        wanted = [f"type=={_PLUGIN_TYPE}"]
        plugins = client.call("Plugins", seconds=seconds, filters=wanted).plugins
        broken = {p.id: p.init_err.message for p in plugins if p.init_err.code}
        if self.snapshotter in broken:
            why = " ".join(broken[self.snapshotter].split())
            raise Unavailable(
                f'containerd cannot use its snapshotter "{self.snapshotter}": {why}',
                hint="see containerd's log",
            )
        usable = sorted(p.id for p in plugins if p.id not in broken)
        if self.snapshotter not in usable:
            raise NotFound(
                f'containerd has no snapshotter "{self.snapshotter}"',
                hint=f"it has: {', '.join(usable) or 'none'}; others go under [proxy_plugins] of "
                "its config",
            )
        return version

    def collect(self) -> None:
        """Let containerd take from the disk what it has removed, soon and not twice at a time."""
        with self._lock:
            if self._bare:
                return
            self._again = True
            if self._collecting:
                return
            self._collecting = True
        threading.Thread(target=self._collect, name="collect", daemon=True).start()

    def _collect(self) -> None:
        while True:
            with self._lock:
                if not self._again:
                    self._collecting = False
                    return
                self._again = False
            lease = f"lading-{uuid4().hex}"
            try:
                client = self._open()
                client.call("CreateLease", id=lease)
                client.call("DeleteLease", id=lease, sync=True)
            except LadingError as error:
                # The next collection, ours or containerd's, takes it.
                log.warning("collecting removed snapshots: %s", error)

    def _connected(self) -> Client:
        # Not at the top of the module: gRPC takes 20 MB, and threads that must not be forked.
        from lading_fs_snapshotter.client import Client

        with self._lock:
            if self._client is None:
                self._client = Client(self.address, self.namespace, self._timeout)
            return self._client

    def _open(self) -> Client:
        client = self._connected()
        if not self._ready:
            try:
                self._claim(client)
            except Unsupported:
                # No namespaces: a proxy snapshotter's own socket, and there is no collector.
                self._bare = True
            self._ready = True
        return client

    def _claim(self, client: Client) -> None:
        """Make sure that the namespace is this engine's: it removes what it does not know there."""
        mine = {f"{_OWNER}{self.snapshotter}": self._owner}
        # Made before it is looked at: containerd answers for namespaces that are not there, too.
        try:
            client.call("CreateNamespace", namespace={"name": self.namespace, "labels": mine})
            return
        except Conflict:
            labels = client.call("GetNamespace", name=self.namespace).namespace.labels
        (label,) = mine
        owner = labels.get(label)
        if owner == self._owner:
            return
        if owner is not None:
            raise Unavailable(
                f'containerd\'s namespace "{self.namespace}" belongs to the engine with {owner}',
                hint='set the option "namespace", or remove that label with: '
                f"ctr namespaces label {self.namespace} {label}=",
            )
        if not any(name.startswith(_OWNER) for name in labels):
            raise Unavailable(
                f'containerd\'s namespace "{self.namespace}" was not made by Lading',
                hint='set the option "namespace" to one that no other program uses, or give it to '
                f"this engine: ctr namespaces label {self.namespace} {label}={self._owner}",
            )
        client.call(
            "UpdateNamespace",
            namespace={"name": self.namespace, "labels": mine},
            update_mask={"paths": [f"labels.{label}"]},
        )
