"""Snapshots of images: layers unpacked on a filesystem backend, when first needed there.

Names on the backend: a layer's chain ID; ``init:<hex>`` for the init layer on top of an image,
which holds the mount points that an engine needs (docs/decisions/0004); ``unpack-<n>`` while one is
made. An image that a container's root was adopted for has only an ``init:`` snapshot, which stands
on the one of the image before. Layers come from the blobs, so every backend can have every image
without a registry.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast
from uuid import uuid4

from lading.archive import Applied, Archives, Root
from lading.archive.piped import piped
from lading.backends import Backends, Loaded
from lading.errors import Conflict, Invalid, LadingError, NotFound
from lading.hooks.filesystem import Filesystem, Kind, LayerDirectories, LayerSource, RemoteLayers
from lading.images import sources
from lading.images.catalog import Catalog
from lading.images.records import Image, Layer
from lading.model import oci
from lading.operations import carried
from lading.store.blobs import Blobs

#: Layers of one image that are unpacked at a time; each keeps a processor busy.
PARALLEL = 2

_MAKING = "unpack-"
_INIT = "init:"


@dataclass(frozen=True, slots=True)
class Ahead:
    """A layer that was unpacked before its parent; empty where that could not be done."""

    key: str = ""
    applied: Applied | None = None


class Unpacking:
    """Makes and removes snapshots of images; thread safe."""

    def __init__(
        self, catalog: Catalog, blobs: Blobs, filesystems: Backends[Filesystem], archives: Archives
    ) -> None:
        self._catalog, self._blobs = catalog, blobs
        self._filesystems, self._archives = filesystems, archives
        self._locks: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._ready: set[tuple[str, str]] = set()

    def snapshot_for(self, image: Image, filesystem: str) -> str:
        """The committed snapshot that a container of the image is prepared on."""
        backend = self._filesystems.get(filesystem)
        name = _init_name(image.top_chain)
        if (backend.name, name) in self._ready:
            return name
        with self._locks[backend.name, name]:
            if not _exists(backend, name):
                if below := self._stackable(image, backend):
                    self._stack(image, below, backend)
                else:
                    parent = self.unpacked(image, backend)
                    self._make_init(backend, name, parent)
        self._ready.add((backend.name, name))
        return name

    def seen(self, image: Image, backend: Loaded[Filesystem]) -> tuple[str, bool]:
        """A committed snapshot that shows the image, and whether it shows nothing else.

        The other kind has the init layer somewhere: all that is at its places may be its doing.
        """
        if not image.layers or _exists(backend, image.top_chain):
            return image.top_chain, True
        if self._stackable(image, backend) or _exists(backend, _init_name(image.top_chain)):
            return self.snapshot_for(image, backend.name), False
        return self.unpacked(image, backend), True

    def root(self, image: Image, backend: Loaded[Filesystem]) -> Iterator[bytes]:
        """The image's own tree as a tar."""
        parent = self.unpacked(image, backend)
        key = f"{_MAKING}view-{uuid4().hex}"

        def write(out: int) -> None:
            recipe = backend.hook.view(key=key, parent=parent, labels={})
            try:
                self._archives.export(Root(tuple(recipe)), out)
            finally:
                _remove(backend, key)

        return piped(write)

    def adopt(self, layers: Sequence[str], filesystem: str, key: str) -> str:
        """Let a container's root be that of the image which its changes make, by diff IDs.

        Nothing is unpacked for that image then. Its parent is the image's before, with the init
        layer; so the snapshots of the layers alone may never exist. Returns the snapshot's name.
        """
        backend = self._filesystems.get(filesystem)
        name = _init_name(oci.chain_ids(list(layers))[-1])
        with self._locks[backend.name, name]:
            if not _exists(backend, name):
                backend.hook.commit(key=key, name=name)
        self._ready.add((backend.name, name))
        return name

    def _stackable(self, image: Image, backend: Loaded[Filesystem]) -> int:
        """How many layers are there with an init layer among them, and not without; 0 for none."""
        for count in range(len(image.layers), 0, -1):
            chain = image.layers[count - 1].chain_id
            if _exists(backend, chain):
                return 0
            if _exists(backend, _init_name(chain)):
                return count
        return 0

    def _stack(self, image: Image, below: int, backend: Loaded[Filesystem]) -> None:
        """Unpack what is missing on top of a snapshot that has the init layer."""
        parent = _init_name(image.layers[below - 1].chain_id)
        for layer in image.layers[below:]:
            name = _init_name(layer.chain_id)
            key = f"{_MAKING}{uuid4().hex}"
            recipe = backend.hook.prepare(key=key, parent=parent, labels={})
            try:
                with self._blobs.open(layer.digest) as blob:
                    applied = self._archives.apply(Root(tuple(recipe)), blob.fileno(), init=True)
                self._finish(layer, key, applied, backend, name)
            except BaseException:
                _remove(backend, key)
                raise
            parent = name

    def unpacked(self, image: Image, backend: Loaded[Filesystem]) -> str:
        """Make sure that all layers are on the backend; the top one's snapshot, or ""."""
        missing = [la for la in image.layers if not _exists(backend, la.chain_id)]
        if missing:
            self._unpack(image, missing, backend)
        return image.top_chain

    def _unpack(self, image: Image, missing: list[Layer], backend: Loaded[Filesystem]) -> None:
        parents = dict(
            zip(
                [la.chain_id for la in image.layers],
                ["", *(la.chain_id for la in image.layers)],
                strict=False,
            )
        )
        known = sources.of_image(image, self._blobs) if remote(backend) else {}
        with ThreadPoolExecutor(PARALLEL, "unpack") as pool:
            early = [
                (
                    layer,
                    pool.submit(carried(self.ahead), layer, bool(parents[layer.chain_id]), backend),
                )
                for layer in missing
            ]
            try:
                for layer, future in early:
                    chain = layer.chain_id
                    self.settle(layer, parents[chain], future.result(), backend, known.get(chain))
            except BaseException:
                for _, future in early:
                    if not future.cancel() and future.exception() is None:
                        self.abandon(future.result(), backend)
                raise

    def ahead(self, layer: Layer, has_parent: bool, backend: Loaded[Filesystem]) -> Ahead:
        """Unpack a layer into a directory of its own, before its parent is there, if that goes.

        The blob must be here. Give the result to :meth:`settle` or :meth:`abandon`.
        """
        if "layer-directory" not in backend.capabilities or _exists(backend, layer.chain_id):
            return Ahead()
        key = f"{_MAKING}{uuid4().hex}"
        backend.hook.prepare(key=key, parent="", labels={})
        try:
            directory = _layers(backend).layer_directory(key=key)
            with self._blobs.open(layer.digest) as blob:
                applied = self._archives.apply_directory(
                    directory, blob.fileno(), parent=has_parent
                )
        except BaseException:
            _remove(backend, key)
            raise
        if applied is None:
            _remove(backend, key)
            return Ahead()
        return Ahead(key, applied)

    def settle(
        self,
        layer: Layer,
        parent: str,
        ahead: Ahead,
        backend: Loaded[Filesystem],
        source: LayerSource | None = None,
    ) -> Applied | None:
        """Put a layer on its parent, which is there by now; None when nothing had to be unpacked.

        Raises Invalid for a layer that is not what it should be.
        """
        with self._locks[backend.name, layer.chain_id]:
            if _exists(backend, layer.chain_id):
                self.abandon(ahead, backend)
                return None
            if ahead.applied is None:
                return self._mounted(layer, parent, backend, source)
            try:
                if parent:
                    if not self._adopted(ahead.key, ahead.applied, parent, backend):
                        _remove(backend, ahead.key)
                        return self._mounted(layer, parent, backend, source)
                    _layers(backend).rebase(key=ahead.key, parent=parent)
                self._finish(layer, ahead.key, ahead.applied, backend)
            except BaseException:
                _remove(backend, ahead.key)
                raise
            return ahead.applied

    def _adopted(
        self, key: str, applied: Applied, parent: str, backend: Loaded[Filesystem]
    ) -> bool:
        """Settle what depends on the parent; False when the layer has to be unpacked anew."""
        if applied.settled:
            return True
        view = f"{_MAKING}{uuid4().hex}"
        recipe = backend.hook.view(key=view, parent=parent, labels={})
        try:
            directory = _layers(backend).layer_directory(key=key)
            return self._archives.adopt(directory, recipe, applied)
        finally:
            _remove(backend, view)

    def abandon(self, ahead: Ahead, backend: Loaded[Filesystem]) -> None:
        """Drop a layer that was unpacked for nothing; a settled one stays."""
        if ahead.key:
            _remove(backend, ahead.key)

    def _mounted(
        self,
        layer: Layer,
        parent: str,
        backend: Loaded[Filesystem],
        source: LayerSource | None,
    ) -> Applied | None:
        """Unpack a layer with its parent in view, unless the backend gets it from its source."""
        key = f"{_MAKING}{uuid4().hex}"
        if source is None or not remote(backend):
            recipe = backend.hook.prepare(key=key, parent=parent, labels={})
        else:
            hook = cast(RemoteLayers, backend.manager.hook)
            found = hook.prepare_layer(key=key, name=layer.chain_id, parent=parent, source=source)
            if found is None:
                return None
            recipe = found
        try:
            with self._blobs.open(layer.digest) as blob:
                applied = self._archives.apply(Root(tuple(recipe)), blob.fileno(), alone=not parent)
            self._finish(layer, key, applied, backend)
        except BaseException:
            _remove(backend, key)
            raise
        return applied

    def _finish(
        self,
        layer: Layer,
        key: str,
        applied: Applied,
        backend: Loaded[Filesystem],
        name: str = "",
    ) -> None:
        if applied.diff_id != layer.diff_id:
            raise Invalid(
                f"layer {layer.digest} unpacks to {applied.diff_id}, the image says {layer.diff_id}"
            )
        backend.hook.commit(key=key, name=name or layer.chain_id)
        if layer.size < 0 or layer.length < 0:
            self._catalog.measured(layer.diff_id, applied.size, applied.length)

    def _make_init(self, backend: Loaded[Filesystem], name: str, parent: str) -> None:
        key = f"{_MAKING}{uuid4().hex}"
        recipe = backend.hook.prepare(key=key, parent=parent, labels={})
        try:
            self._archives.touch_init(Root(tuple(recipe)))
            backend.hook.commit(key=key, name=name)
        except BaseException:
            _remove(backend, key)
            raise

    def vacate(self, images: Sequence[Image], backend: Loaded[Filesystem]) -> bool:
        """Remove the snapshots of images from a backend, but for those that others need.

        Whether nothing of them is left there; containers that stand on one keep it.
        """
        mine = {image.id for image in images}
        kept = {
            layer.chain_id
            for image_id in self._catalog.ids()
            if image_id not in mine and _exists(backend, self._catalog.get(image_id).top_chain)
            for layer in self._catalog.get(image_id).layers
        }
        doomed = {layer.chain_id for image in images for layer in image.layers} - kept
        names = {_init_name(chain) for chain in doomed} | doomed
        gone = True
        for snapshot in reversed(list(backend.hook.walk())):
            if snapshot.kind is Kind.COMMITTED and snapshot.key in names:
                self._ready.discard((backend.name, snapshot.key))
                try:
                    backend.hook.remove(key=snapshot.key)
                except Conflict:
                    gone = False
        return gone

    def collect(self, wanted: Iterable[str]) -> None:
        """Remove the snapshots of layers that no image has any more, on all backends."""
        keep = set(wanted) | {_init_name(chain) for chain in wanted} | {_init_name("")}
        self._filesystems.each(lambda backend: self._collect(backend, keep))

    def _collect(self, backend: Loaded[Filesystem], keep: Set[str]) -> None:
        doomed = [
            s.key
            for s in backend.hook.walk()
            if s.kind is Kind.COMMITTED and s.key not in keep and _ours(s.key)
        ]
        for name in reversed(doomed):
            self._ready.discard((backend.name, name))
            try:
                backend.hook.remove(key=name)
            except (Conflict, NotFound):
                # A container still stands on it: it goes with the next collection.
                continue

    def sweep(self) -> None:
        """At start: remove what a killed daemon has left half made."""

        def half_made(backend: Loaded[Filesystem]) -> None:
            for snapshot in list(backend.hook.walk()):
                if snapshot.key.startswith(_MAKING):
                    _remove(backend, snapshot.key)

        self._filesystems.each(half_made, at_start=True)


def _init_name(chain: str) -> str:
    return _INIT + (chain.removeprefix("sha256:") or "empty")


def _ours(name: str) -> bool:
    return name.startswith(("sha256:", _INIT))


def _exists(backend: Loaded[Filesystem], name: str) -> bool:
    try:
        backend.hook.stat(key=name)
    except NotFound:
        return False
    return True


def _remove(backend: Loaded[Filesystem], key: str) -> None:
    try:
        backend.hook.remove(key=key)
    except LadingError:
        pass


def remote(backend: Loaded[Filesystem]) -> bool:
    """Whether a backend may have layers without anybody unpacking them."""
    return "remote-layers" in backend.capabilities


def _layers(backend: Loaded[Filesystem]) -> LayerDirectories:
    backend.require("layer-directory")
    return cast(LayerDirectories, backend.manager.hook)
