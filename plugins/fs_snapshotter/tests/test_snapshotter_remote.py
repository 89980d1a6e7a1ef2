"""Layers that a remote snapshotter has by itself, through a real containerd and a real engine.

The snapshotter is one of the tests' own: a proxy plugin of one containerd that keeps its snapshots
in another, and answers for the layers of the image under test as stargz and nydus do.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from lading.errors import Conflict
from lading.hooks import Mount
from lading.linux import mounts, syscalls
from lading.testing.containerd import Containerd, running_containerd
from lading.testing.daemon import Daemon, busybox_image, nothing_left
from lading.testing.registries import own_registry
from lading_fs_snapshotter.client import Client
from lading_fs_snapshotter.messages import MESSAGES

pytestmark = pytest.mark.root

_KEEP = {"containerd.io/gc.root": "test"}
_PREFIX = "/containerd.services.snapshots.v1.Snapshots/"


class Lazy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A snapshotter that has every layer which it is asked for by its source."""

    def __init__(self, backing: Containerd, place: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix:{backing.address}")
        self.client = Client(backing.address, "backing", 30)
        self.place = place
        self.asked: list[dict[str, str]] = []

    def service(self, details: Any) -> Any:
        method = details.method.removeprefix(_PREFIX)
        if method == "List":
            return grpc.unary_stream_rpc_method_handler(self._list)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._call(method, request, context)
        )

    def _forwarded(self, method: str, request: bytes) -> Any:
        # The first field of every request is the snapshotter's name; a later one wins.
        request += b"\x0a\x09overlayfs"
        if method in ("Prepare", "View", "Commit"):
            # Nor is anything told the backing containerd that keeps it from collecting.
            request += MESSAGES["PrepareSnapshotRequest"](labels=_KEEP).SerializeToString()
        metadata = [("containerd-namespace", "backing")]
        kind = self.channel.unary_stream if method == "List" else self.channel.unary_unary
        return kind(_PREFIX + method)(request, metadata=metadata)

    def _list(self, request: bytes, context: Any) -> Any:
        yield from self._forwarded("List", request)

    def _call(self, method: str, request: bytes, context: Any) -> Any:
        try:
            if method == "Prepare":
                asked = MESSAGES["PrepareSnapshotRequest"].FromString(request)
                if "containerd.io/snapshot/cri.layer-digest" in asked.labels:
                    self._provide(asked)
                    context.abort(grpc.StatusCode.ALREADY_EXISTS, "it is here")
            return self._forwarded(method, request)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())

    def _provide(self, asked: Any) -> None:
        """Commit the layer under its target's name, with a file that only this snapshotter has."""
        labels = {**asked.labels, **_KEEP}
        self.asked.append(labels)
        common = {"snapshotter": "overlayfs", "key": asked.key}
        self.client.call("Prepare", parent=asked.parent, labels=labels, **common)
        recipe = [
            Mount(m.type, m.source, tuple(m.options))
            for m in self.client.call("Mounts", **common).mounts
        ]
        self.place.mkdir(exist_ok=True)
        mounts.mount_recipe(recipe, self.place)
        try:
            with tarfile.open(fileobj=io.BytesIO(busybox_image())) as tar:
                tar.extractall(self.place, filter="fully_trusted")
            (self.place / "lazily").write_text("loaded")
        finally:
            syscalls.umount2(str(self.place), syscalls.MNT_DETACH)
        target = labels["containerd.io/snapshot.ref"]
        try:
            self.client.call("Commit", name=target, labels=labels, **common)
        except Conflict:
            self.client.call("Remove", **common)


@pytest.fixture
def lazy(containerd: Containerd, tmp_path: Path) -> Iterator[Lazy]:
    handler = Lazy(containerd, tmp_path / "layer")
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(f"unix:{tmp_path}/lazy")
    server.start()
    yield handler
    server.stop(None).wait()


@pytest.mark.parametrize("driver", ["stargz", "overlay"])
def test_an_image_from_a_registry_is_run_without_unpacking(
    lazy: Lazy, tmp_path: Path, driver: str
) -> None:
    plugin = f'\n[proxy_plugins.lazy]\ntype = "snapshot"\naddress = "{tmp_path}/lazy"\n'
    site = tmp_path / "site"
    site.mkdir()
    with (
        running_containerd(more=plugin) as front,
        own_registry(site) as registry,
        nothing_left(),
        Daemon() as daemon,
    ):
        (daemon.root / "lading.toml").write_text(
            f'[filesystem.stargz]\naddress = "{front.address}"\nsnapshotter = "lazy"\n'
        )
        daemon.stop()
        daemon.flags = (f"--config-file={daemon.root}/lading.toml", f"--storage-driver={driver}")
        daemon.start()
        name = f"{registry.host}/team/busybox:1"
        daemon.client("lading", "import", "-", name, input=busybox_image())
        daemon.client("lading", "push", name)
        assert lazy.asked == []
        daemon.client("lading", "rmi", name)
        daemon.client("lading", "pull", name)
        # On another backend than the default it is asked for when it is wanted there.
        assert len(lazy.asked) == (driver == "stargz")
        words = ["run", "--rm", "--storage=stargz", name, "cat", "/lazily"]
        assert daemon.client("lading", *words).stdout == b"loaded"
        (labels,) = lazy.asked
        assert labels["containerd.io/snapshot/cri.image-ref"] == name
        digest = labels["containerd.io/snapshot/cri.layer-digest"]
        assert labels["containerd.io/snapshot/cri.image-layers"] == digest
        blob = daemon.root / "data/blobs" / digest.replace(":", "/")
        assert blob.exists()
        daemon.client("lading", "rmi", name)
        assert front.snapshots("lazy") == []
