"""The face of the image store."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lading.archive import Applied, Archives, Hint
from lading.archive.compression import Source
from lading.backends import Backends, Loaded
from lading.errors import Invalid, NotFound
from lading.hooks.common import Mount
from lading.hooks.filesystem import Filesystem
from lading.images import saving
from lading.images.catalog import Catalog
from lading.images.changes import apply_changes
from lading.images.filters import ImageFilters
from lading.images.loading import Loading
from lading.images.making import Making, Readable
from lading.images.records import Deleted, HistoryLine, Image, NewLayer, PruneReport
from lading.images.removal import Removal, User
from lading.images.unpacking import Unpacking
from lading.model import reference
from lading.store.blobs import Blobs
from lading.store.db import Database
from lading.store.events import Events

log = logging.getLogger(__name__)

#: How long, in seconds, the blobs of a pull that did not end are kept over a restart.
RECENT_SECONDS = 24 * 3600.0

#: ``list`` is a method below.
Strings = list[str]


class Images:
    """All images of one daemon; thread safe.

    ``ref`` is a name (``latest`` is added), a name with digest, or an id or a unique prefix of one.
    Unknown ones raise NotFound. ``users`` and ``shown`` are set by the engine: which containers use
    an image, and at which directories of the host it is shown.
    """

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        filesystems: Backends[Filesystem],
        archives: Archives,
        events: Events,
    ) -> None:
        self.blobs = blobs
        self.catalog = Catalog(db, blobs)
        self.users: Callable[[str], Sequence[User]] = lambda image_id: ()
        self._filesystems, self._events = filesystems, events
        self.unpacking = Unpacking(self.catalog, blobs, filesystems, archives)
        self._making = Making(self.catalog, blobs, archives)
        self._loading = Loading(self.catalog, blobs, archives)
        self.shown: Callable[[str], Sequence[str]] = lambda image_id: ()
        self._removal = Removal(self.catalog, events, self._users_of, self._shown_at)
        # Held while blobs exist that no image refers to yet, so that a collection spares them.
        self._adding = _Adding()

    def start(self) -> None:
        """At daemon start: sweep what a killed one has left half made."""
        for digest in self.blobs.sweep():
            for image_id in self.catalog.with_blob(digest):
                log.warning("image %s is lost with its layer %s", image_id, digest)
                self.catalog.drop(image_id)
        self.unpacking.sweep()
        # A pull that was cut off finds its layers again.
        self.collect(spare=RECENT_SECONDS)

    def _users_of(self, image_id: str) -> Sequence[User]:
        return self.users(image_id)

    def _shown_at(self, image_id: str) -> Sequence[str]:
        return self.shown(image_id)

    # -- looking up

    def get(self, ref: str) -> Image:
        """An image. Raises NotFound; Conflict for an ambiguous prefix."""
        return self.catalog.get(self.catalog.find(ref))

    def list(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, all: bool = False
    ) -> list[Image]:
        """Images, the newest first; without ``all`` those that are only others' parents are left
        out. Raises Invalid for unknown filters."""
        chosen = ImageFilters(filters or {}, self.get)
        found = [self.catalog.get(image_id) for image_id in self.catalog.ids()]
        parents = {image.parent for image in found if image.parent}
        shown = [
            image
            for image in found
            if all or image.repo_tags or image.repo_digests or image.id not in parents
        ]
        shown = [named for image in shown if (named := chosen.apply(image)) is not None]
        return sorted(shown, key=lambda image: image.created, reverse=True)

    def history(self, ref: str) -> Sequence[HistoryLine]:
        """How an image was made, the newest first."""
        image = self.get(ref)
        layers, known = list(image.layers), self._steps(image)
        lines = []
        for number, row in enumerate(image.config.history, 1):
            size = 0
            if not row.empty_layer and layers:
                size = max(layers.pop(0).size, 0)
            step = known.get(number)
            name, tags = (step.id, step.repo_tags) if step else ("<missing>", ())
            lines.append(
                HistoryLine(name, row.created or "", row.created_by, tags, size, row.comment)
            )
        return lines[::-1]

    def _steps(self, image: Image) -> dict[int, Image]:
        """The image and those it was made of that are here, by how many lines of history each
        has."""
        found = {len(image.config.history): image}
        while image.parent:
            try:
                image = self.get(image.parent)
            except NotFound:
                break
            found.setdefault(len(image.config.history), image)
        return found

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once."""
        sizes = {
            layer.diff_id: max(layer.size, 0)
            for image_id in self.catalog.ids()
            for layer in self.catalog.get(image_id).layers
        }
        return sum(sizes.values())

    # -- names

    def tag(self, ref: str, name: str) -> None:
        """Give an image another name, taking it from whichever had it. Raises Invalid."""
        named = reference.parse(name)
        if named.digest:
            raise Invalid("refusing to create a tag with a digest reference")
        image_id = self.catalog.find(ref)
        self.catalog.point(named.with_default_tag().canonical, image_id)
        shown = named.with_default_tag().familiar
        self._events.publish("image", "tag", image_id, {"name": shown})

    def remove(self, ref: str, *, force: bool = False, noprune: bool = False) -> Sequence[Deleted]:
        """``rmi``. Raises Conflict when containers, or names elsewhere, need it."""
        done = self._removal.remove(ref, force=force, prune=not noprune)
        if any(row.deleted for row in done):
            self.collect()
        return done

    def prune(self, filters: Mapping[str, Sequence[str]]) -> PruneReport:
        """Remove images that nothing uses: those without a name, or with ``dangling=false`` all."""
        values = {k: v for k, v in filters.items() if k != "dangling"}
        dangling = (filters.get("dangling") or ["true"])[0].lower() in ("true", "1")
        done: deque[Deleted] = deque()
        before = self._space()
        for image in self.list(values):
            if (dangling and image.repo_tags) or self.users(image.id) or self.shown(image.id):
                continue
            for name in image.repo_tags or (image.id,):
                done += self._removal.remove(name, force=False, prune=True)
        self.collect()
        self._events.publish("image", "prune", "", {"reclaimed": str(before - self._space())})
        return PruneReport(tuple(done), max(0, before - self._space()))

    def discard(self, image_ids: Iterable[str]) -> None:
        """Remove images that nobody needs: they have neither names nor users nor children."""
        for image_id in image_ids:
            self._removal.discard(image_id)
        self.collect()

    def _space(self) -> int:
        return self.layers_size()

    def collect(self, *, spare: float = 0) -> None:
        """Remove blobs and snapshots that no image needs, unless images are just being added.

        ``spare`` keeps the blobs of the last so many seconds.
        """
        with self._adding.exclusively() as alone:
            if not alone:
                return
            needed = self.catalog.referenced_blobs()
            for digest in list(self.blobs.walk()):
                if digest not in needed and self.blobs.age(digest) >= spare:
                    self.blobs.remove(digest)
            self.unpacking.collect(self.catalog.chains())

    # -- making

    def adding(self) -> _Adding:
        """A context in which blobs without an image yet are safe: pulls and builds stay in it."""
        return self._adding

    def create(
        self,
        config_bytes: bytes,
        layers: Sequence[NewLayer],
        names: Iterable[str] = (),
        *,
        unpack: bool = True,
    ) -> Image:
        """Register an image from content that is here; ``names`` are canonical.

        With ``unpack`` its layers are unpacked on the default backend first, and verified by that:
        nothing half pulled can be run. Raises Invalid for a layer that is not what it should be.
        """
        image = self.catalog.get(self.catalog.add(config_bytes, layers))
        if unpack:
            self._unpack_or_forget(image)
        for name in names:
            self.catalog.point(name, image.id)
        return self.catalog.get(image.id)

    def _unpack_or_forget(self, image: Image) -> None:
        try:
            self.unpacking.unpacked(image, self._filesystems.get())
        except BaseException:
            if not self.catalog.canonical_names(image.id) and not self.users(image.id):
                self.catalog.drop(image.id)
            raise

    def import_(
        self,
        stream: Readable,
        *,
        repo: str = "",
        tag: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """An image from a root file system as tar. Raises Invalid; nothing is left then."""
        named = _named(repo, tag)
        try:
            with self._adding:
                image_id = self._making.import_(
                    stream, changes=changes, message=message, platform=platform
                )
                self._unpack_or_forget(self.catalog.get(image_id))
        except BaseException:
            self.collect()
            raise
        if named is not None:
            self.catalog.point(named.canonical, image_id)
        self._events.publish(
            "image", "import", image_id, {"name": named.familiar if named else image_id}
        )
        return self.catalog.get(image_id)

    def commit(
        self,
        parent: Image | None,
        settings: dict[str, Any],
        lower: Sequence[Mount],
        upper: Sequence[Mount],
        layer: Hint | None = None,
        *,
        repo: str = "",
        tag: str = "",
        changes: Sequence[str] = (),
        created_by: str = "",
        author: str = "",
        comment: str = "",
        container: str = "",
        container_config: Mapping[str, Any] | None = None,
    ) -> Image:
        """An image with what ``upper`` changes against ``lower`` as its new top layer.

        ``settings`` is its config, to which ``changes`` are applied. Raises Invalid.
        """
        named = _named(repo, tag)
        settings = apply_changes(settings, changes)
        with self._adding:
            image_id = self._making.commit(
                parent, settings, lower, upper, layer,
                created_by=created_by, author=author, comment=comment, container=container,
                container_config=container_config,
            )  # fmt: skip
            if named is not None:
                self.catalog.point(named.canonical, image_id)
        return self.catalog.get(image_id)

    def layer(
        self,
        lower: Sequence[Mount],
        upper: Sequence[Mount],
        layer: Hint | None = None,
        *,
        latest: int | None = None,
    ) -> NewLayer | None:
        """What ``upper`` changes against ``lower`` as a layer's blob, None for nothing: a build's.

        To be called within :meth:`adding`. No time in it is after ``latest``, in nanoseconds.
        """
        return self._making.layer(lower, upper, layer, latest, later=True)

    def default_filesystem(self) -> Loaded[Filesystem]:
        """The backend on which new images are unpacked."""
        return self._filesystems.get()

    def measure(self, digest: str) -> Applied:
        """Read a layer's blob through: its diff ID, length and sizes."""
        with self.blobs.open(digest) as blob:
            return self._making.measure(blob.fileno())

    def tell(self, action: str, actor: str, name: str) -> None:
        """Publish an event about an image."""
        self._events.publish("image", action, actor, {"name": name})

    # -- archives

    def root(self, ref: str) -> Iterator[bytes]:
        """A tar of what a container of the image would see, without the engine's mount points."""
        image, backend = self.get(ref), self._filesystems.get()
        return self.unpacking.root(image, backend)

    def save(self, refs: Sequence[str]) -> Iterator[bytes]:
        """A tar with images: by name with that tag, by repository with all, by id with none."""
        chosen: dict[str, Strings] = {}
        for ref in refs:
            for image_id, tags in self._to_save(ref):
                rows = chosen.setdefault(image_id, [])
                rows += [tag for tag in tags if tag not in rows]
        images = [(self._measured(image_id), tags) for image_id, tags in chosen.items()]
        return saving.save(images, self.blobs)

    def _to_save(self, ref: str) -> Iterator[tuple[str, Sequence[str]]]:
        try:
            named = reference.parse(ref)
        except Invalid:
            named = None
        if named is not None and not named.tag and not named.digest:
            rows = [
                (name, image_id)
                for name, image_id in self.catalog.names()
                if reference.unfamiliar(name).name == named.name
            ]
            if rows:
                for name, image_id in rows:
                    yield image_id, [reference.unfamiliar(name).familiar]
                return
        image = self.get(ref)
        tag = named.with_default_tag().familiar if named is not None else ""
        yield image.id, [tag] if tag in image.repo_tags else []

    def _measured(self, image_id: str) -> Image:
        """The image with the lengths of its layers known, which a tar needs in advance."""
        image = self.catalog.get(image_id)
        for layer in image.layers:
            if layer.length < 0:
                read = self.measure(layer.digest)
                self.catalog.measured(layer.diff_id, read.size, read.length)
        return self.catalog.get(image_id)

    def load(self, stream: Source, tell: Callable[[Mapping[str, Any]], None]) -> Iterator[str]:
        """Load an archive; yields the name of each image, its id where it has none.

        ``tell`` gets progress in the form of Docker's JSON messages.
        """
        try:
            with self._adding:
                for image_id, names in self._loading.load(stream):
                    image = self.catalog.get(image_id)
                    for layer in image.layers:
                        tell({"id": layer.diff_id[7:19], "status": "Loading layer"})
                    self._unpack_or_forget(image)
                    for name in names:
                        self.catalog.point(name, image_id)
                    self._events.publish("image", "load", image_id, {"name": image_id})
                    yield from [reference.unfamiliar(name).familiar for name in names] or [image_id]
        finally:
            self.collect()

    # -- for containers

    def snapshot_for(self, image: Image, filesystem: str = "") -> str:
        """The committed snapshot on a backend ("" = default) that a container stands on.

        Unpacks what is missing there.
        """
        return self.unpacking.snapshot_for(image, filesystem)


def _named(repo: str, tag: str) -> reference.Reference | None:
    if not repo:
        return None
    named = reference.parse(repo)
    if named.digest:
        raise Invalid("an image cannot be given a digest for a name")
    return named.with_tag(tag) if tag else named.with_default_tag()


class _Adding:
    """Counts those that add content; a collection runs only when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._adding = 0

    def __enter__(self) -> None:
        with self._lock:
            self._adding += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._adding -= 1

    def exclusively(self) -> _Exclusive:
        """A context whose value says whether nobody is adding; nobody begins inside it."""
        return _Exclusive(self._lock, lambda: self._adding == 0)


class _Exclusive:
    def __init__(self, lock: threading.Condition, alone: Callable[[], bool]) -> None:
        self._lock, self._alone = lock, alone

    def __enter__(self) -> bool:
        self._lock.acquire()
        return self._alone()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
