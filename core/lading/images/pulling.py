"""Pull: layers fetched side by side and unpacked meanwhile, each once however many pulls want it.

An image is registered when all its layers are here, verified and unpacked; until then it has no
name and cannot be run. What a pull that failed has fetched is found again by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lading.archive.compression import sniff
from lading.backends import Loaded
from lading.errors import Cancelled, Invalid, LadingError, NotFound, Unavailable
from lading.hooks.filesystem import Filesystem, LayerSource
from lading.hooks.registry import Registry, Remote, RemoteImage, RemoteLayer
from lading.images import sources, unpacking
from lading.images.downloads import Download, Emit, Stop, Turns, short
from lading.images.images import Images
from lading.images.records import Layer, NewLayer
from lading.images.unpacking import Ahead
from lading.model import legacy, oci
from lading.operations import carried

#: Seconds between looks whether the client is still there.
PATIENCE = 0.5

_MEDIA_TYPES = {"": oci.LAYER, "gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought; ``fresh`` when the image was not here before."""

    image: str
    digest: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Fetched:
    layer: NewLayer
    ahead: Ahead
    fresh: bool


class Pulling:
    """Pulls images; thread safe."""

    def __init__(self, images: Images, parallel: int) -> None:
        self._images, self._parallel = images, max(parallel, 1)
        self._turns = Turns()

    def fetch(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        found: RemoteImage,
        names: Sequence[str],
        emit: Emit,
        gone: Callable[[], bool],
    ) -> Pulled:
        """Fetch a resolved image and register it under canonical names.

        ``gone``: whether nobody wants it any more. Raises what the transport raises, Invalid,
        Cancelled.
        """
        job = _Job(self._images, self._turns, backend, remote, found, emit, names)
        try:
            with self._images.adding():
                layers = job.run(self._parallel, gone)
                config = _completed(found.config, layers)
                image_id = oci.digest_of(config)
                fresh = not self._known(image_id)
                if found.manifest is not None:
                    self._images.blobs.write(found.manifest.content)
                self._images.create(config, layers, names)
        except Cancelled:
            self._images.collect()
            raise
        return Pulled(image_id, found.digest, fresh)

    def _known(self, image_id: str) -> bool:
        try:
            self._images.get(image_id)
        except NotFound:
            return False
        return True


class _Job:
    """The layers of one pull."""

    def __init__(
        self,
        images: Images,
        turns: Turns,
        backend: Loaded[Registry],
        remote: Remote,
        found: RemoteImage,
        emit: Emit,
        names: Sequence[str],
    ) -> None:
        self._images, self._turns = images, turns
        self._backend, self._remote = backend, remote
        self._emit, self._stop = emit, Stop()
        self._layers = list(found.layers)
        self._diff_ids = oci.decode_config(found.config).rootfs.diff_ids
        if self._diff_ids and len(self._diff_ids) != len(self._layers):
            raise Invalid(
                f"the image has {len(self._layers)} layers, its config {len(self._diff_ids)}"
            )
        # Without diff IDs nothing can be unpacked before everything is here.
        self._chain = oci.chain_ids(self._diff_ids) if self._diff_ids else [""] * len(self._layers)
        self._filesystem: Loaded[Filesystem] = images.default_filesystem()
        self._sources: Sequence[LayerSource] = ()
        if unpacking.remote(self._filesystem) and found.manifest is not None:
            digests = [layer.digest for layer in self._layers]
            self._sources = sources.of_pull(names, digests, found.manifest.content)

    def run(self, parallel: int, gone: Callable[[], bool]) -> list[NewLayer]:
        """Fetch all layers, and unpack them as far as that can be done in advance."""
        with ThreadPoolExecutor(parallel, "pull") as pool:
            futures = [pool.submit(carried(self._fetch), n) for n in range(len(self._layers))]
            with self._ending(futures):
                return [self._settled(n, futures, gone) for n in range(len(futures))]

    @contextmanager
    def _ending(self, futures: Sequence[Future[_Fetched]]) -> Iterator[None]:
        """On failure end the downloads and drop what was unpacked in advance."""
        try:
            yield
        except BaseException:
            self._stop.set()
            for future in futures:
                future.cancel()
            for future in futures:
                if not future.cancelled() and future.exception() is None:
                    self._images.unpacking.abandon(future.result().ahead, self._filesystem)
            raise

    def _settled(
        self, n: int, futures: Sequence[Future[_Fetched]], gone: Callable[[], bool]
    ) -> NewLayer:
        """Wait for a layer, unless another one fails, and put it on its parent."""
        while not futures[n].done():
            pending = [future for future in futures if not future.done()]
            done, _ = wait(pending, PATIENCE, FIRST_EXCEPTION)
            for future in done:
                future.result()
            if gone():
                raise Cancelled("the client went away")
        fetched = futures[n].result()
        layer = fetched.layer
        if self._chain[n]:
            applied = self._images.unpacking.settle(
                self._placed(n, layer), self._chain[n - 1] if n else "", fetched.ahead,
                self._filesystem, self._sources[n] if self._sources else None,
            )  # fmt: skip
            if applied is not None:
                layer = replace(layer, size=applied.size, length=applied.length)
        if fetched.fresh:
            self._tell(self._layers[n], "Pull complete")
        return layer

    def _placed(self, n: int, layer: NewLayer) -> Layer:
        return Layer(
            layer.diff_id, self._chain[n], layer.digest, layer.media_type, layer.size, layer.length
        )

    def _fetch(self, n: int) -> _Fetched:
        """In a thread of the pool: get the layer and unpack it, if that can be done in advance."""
        remote_layer = self._layers[n]
        diff_id = self._diff_ids[n] if self._diff_ids else ""
        with self._turns.turn(remote_layer.digest or remote_layer.key, self._stop):
            layer = self._here(remote_layer, diff_id)
            fresh = layer is None
            if layer is None:
                self._tell(remote_layer, "Pulling fs layer")
                layer = self._download(remote_layer, diff_id)
            else:
                self._tell(remote_layer, "Already exists")
        if not self._chain[n]:
            return _Fetched(layer, Ahead(), fresh)
        self._stop.check()
        if fresh:
            self._tell(remote_layer, "Extracting")
        ahead = self._images.unpacking.ahead(self._placed(n, layer), n > 0, self._filesystem)
        return _Fetched(layer, ahead, fresh)

    def _here(self, remote_layer: RemoteLayer, diff_id: str) -> NewLayer | None:
        """The layer, when some image has it, or an earlier pull has left its blob."""
        catalog, blobs = self._images.catalog, self._images.blobs
        known = (
            catalog.layer(diff_id)
            if diff_id
            else catalog.layer_by_digest(remote_layer.digest)
            if remote_layer.digest
            else None
        )
        if known is not None and blobs.has(known.digest):
            return NewLayer(known.diff_id, known.digest, known.media_type, known.size, known.length)
        if remote_layer.digest:
            there = blobs.has(remote_layer.digest)
            return self._described(remote_layer.digest, diff_id) if there else None
        left = catalog.fetched(self._key(remote_layer))
        usable = left is not None and diff_id in ("", left.diff_id) and blobs.has(left.digest)
        return left if usable else None

    def _key(self, remote_layer: RemoteLayer) -> str:
        """Keys mean something to their own registry only, so that none can vouch for another."""
        return f"{self._backend.name} {self._remote.host} {remote_layer.key}"

    def _download(self, remote_layer: RemoteLayer, diff_id: str) -> NewLayer:
        download = Download(
            self._images.blobs, self._backend, self._remote, remote_layer, self._emit, self._stop
        )
        key = remote_layer.digest or remote_layer.key
        digest = download.fetch(lambda: self._turns.wanted(key))
        layer = self._described(digest, diff_id)
        if not remote_layer.digest:
            self._images.catalog.remember_fetched(self._key(remote_layer), layer)
        return layer

    def _described(self, digest: str, diff_id: str) -> NewLayer:
        with self._images.blobs.open(digest) as blob:
            kind = sniff(blob.read(16))
        media_type = _MEDIA_TYPES.get(kind, f"{oci.LAYER}+{kind}")
        if diff_id:
            length = self._images.blobs.size(digest) if not kind else -1
            return NewLayer(diff_id, digest, media_type, -1, length)
        read = self._images.measure(digest)
        return NewLayer(read.diff_id, digest, media_type, read.size, read.length)

    def _tell(self, layer: RemoteLayer, status: str) -> None:
        label = short(layer.digest or layer.key)
        self._emit({"id": label, "status": status, "progressDetail": {}})


def _completed(config: bytes, layers: Sequence[NewLayer]) -> bytes:
    """The config as it came, or with the diff IDs that a protocol without digests lacks."""
    if oci.decode_config(config).rootfs.diff_ids or not layers:
        return config
    document = legacy.decode(config)
    document["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    return legacy.encode(document)


def is_transient(error: BaseException) -> bool:
    """Whether another source of the same image may do better."""
    return isinstance(error, (OSError, Unavailable, NotFound, Invalid)) or (
        isinstance(error, LadingError) and error.status >= 500
    )
