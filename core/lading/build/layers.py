"""What COPY, ADD and WORKDIR add, from where, and the layer that it makes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from lading.archive import Archives, Root
from lading.build import context
from lading.build.context import Context
from lading.build.fetching import Fetching, is_remote
from lading.build.instruction import Copying
from lading.build.sources import content_of
from lading.build.stop import Stop
from lading.hooks.common import Mount
from lading.images import Image, Images, NewLayer
from lading.model import oci
from lading.monitor import Spawner
from lading.store.blobs import BlobWriter


@dataclass(frozen=True, slots=True)
class Seen:
    """A root; ``init``: with the init layer somewhere in it."""

    recipe: Sequence[Mount]
    init: bool = False


class Ready:
    """The sources of one instruction in place."""

    def __init__(
        self, layers: Layers, work: Copying, source: Image | None, stack: ExitStack
    ) -> None:
        self._layers, self._work, self._source, self._stack = layers, work, source, stack
        self._located: tuple[Copying, Seen] | None = None
        self._content = self._consume = False

    def origin(self) -> str:
        """A name that stands for the whole source, where it has one: the same name, the same
        content."""
        return self._source.top_chain if self._source else ""

    def content(self) -> str:
        """A digest of what is copied: names, kinds, modes and contents, not times."""
        layers, work = self._layers, self._work
        if self._source is None and not any(is_remote(name) for name in work.sources):
            return layers.content_of_context(work)
        found = layers.run("content", self._args(), ())
        if found is None:
            self._located = None
            found = layers.run("content", self._args(exactly=True), ())
        return str(found)

    def write(
        self, target: Image | None, *, content: bool = False, consume: bool = False
    ) -> tuple[NewLayer | None, str]:
        """The layer as a blob, None when there is nothing in it, and if wanted :meth:`content`.

        ``target``: what it is copied to. ``consume``: nobody needs the context after this.
        """
        self._content = content
        self._consume = consume and self._source is None and self._work.name == "COPY"
        layers = self._layers
        with layers.images.blobs.writer() as writer:
            done = self._copied(target, writer)
            if done is None:
                writer.restart()
                self._located = None
                done = self._copied(target, writer, exactly=True)
            if not done["entries"]:
                return None, done["content"]
            writer.commit_written(done["digest"], later=True)
        layer = NewLayer(done["digest"], done["digest"], oci.LAYER, done["size"], done["length"])
        return layer, done["content"]

    def _copied(self, target: Image | None, writer: BlobWriter, *, exactly: bool = False) -> Any:
        layers, args = self._layers, self._args(exactly=exactly)
        if target is None or self._work.link:
            seen = Seen(layers.empty(self._stack))
        else:
            seen = layers.view(target, self._stack, exactly=exactly)
        # With the init layer in view it may come to a second attempt.
        consume = self._consume and not seen.init
        args |= {"lower": _wire(seen.recipe), "init_target": seen.init, "consume": consume}
        return layers.run("copy", args, [writer.fileno()])

    def _args(self, *, exactly: bool = False) -> dict[str, Any]:
        if self._located is None:
            layers = self._layers
            self._located = layers.located(self._work, self._source, self._stack, exactly=exactly)
        (work, seen), epoch = self._located, self._layers.epoch
        return {
            "upper": _wire(seen.recipe),
            "init_source": seen.init,
            "layer": None,
            "sources": list(work.sources),
            "dest": work.dest,
            "files": [list(row) for row in work.files],
            "owner": work.owner,
            "chmod": work.chmod,
            "exclude": list(work.exclude),
            "parents": work.parents,
            "keep": work.keep,
            "unpacked": list(work.unpacked),
            "content": self._content,
            "mtime": None if epoch is None else epoch * 10**9,
            "now": time.time_ns(),
        }


class Layers:
    """Makes the layers of one build, from its context or from images."""

    def __init__(
        self,
        images: Images,
        archives: Archives,
        spawner: Spawner,
        files: Context,
        epoch: int | None,
        stop: Stop,
    ) -> None:
        self._stop = stop
        self.images, self.epoch = images, epoch
        self._archives, self._spawner = archives, spawner
        self._context = files

    @contextmanager
    def prepared(self, source: Image | None, work: Copying) -> Iterator[Ready]:
        """The sources of an instruction, of the context where ``source`` is None."""
        with ExitStack() as stack:
            yield Ready(self, work, source, stack)

    def run(self, function: str, args: dict[str, Any], fds: Sequence[int]) -> Any:
        """Run a task of this package."""
        task = self._spawner.task(f"lading.build.copying:{function}", args, fds)
        try:
            with self._stop.calling(task.cancel):
                return task.wait()
        finally:
            task.close()

    def content_of_context(self, work: Copying) -> str:
        """The digest of what is copied from the context."""
        with self._context.sources(work.exclude) as sources:
            return content_of(
                sources, work.sources, work.files, self._context.digests, parents=work.parents
            )

    def difference(self, base: Image | None, image: Image) -> NewLayer | None:
        """All that an image adds to its base, as one layer."""
        with ExitStack() as stack:
            lower = self.view(base, stack, exactly=True).recipe if base else self.empty(stack)
            upper = self.view(image, stack, exactly=True).recipe
            latest = None if self.epoch is None else self.epoch * 10**9
            return self.images.layer(lower, upper, latest=latest)

    def located(
        self, work: Copying, source: Image | None, stack: ExitStack, *, exactly: bool
    ) -> tuple[Copying, Seen]:
        """What is copied, and where that can be seen."""
        if source is not None:
            return work, self.view(source, stack, exactly=exactly)
        if work.name != "ADD":
            return work, Seen(context.recipe(self._context.directory))
        fetching = Fetching(self._archives, self._context.directory, self.temporary(stack))
        work, recipe = fetching.located(work, stack)
        return work, Seen(recipe)

    def view(self, image: Image, stack: ExitStack, *, exactly: bool) -> Seen:
        """An image's root, read-only; ``exactly``: without any init layer."""
        backend, unpacking = self.images.default_filesystem(), self.images.unpacking
        if exactly:
            parent, exact = unpacking.unpacked(image, backend), True
        else:
            parent, exact = unpacking.seen(image, backend)
        if not parent:
            return Seen(self.empty(stack))
        key = f"unpack-view-{uuid4().hex}"
        recipe = backend.hook.view(key=key, parent=parent, labels={})
        stack.callback(lambda: backend.hook.remove(key=key))
        return Seen(tuple(recipe), not exact)

    def empty(self, stack: ExitStack) -> Sequence[Mount]:
        """A root without anything in it."""
        return context.recipe(self.temporary(stack))

    def temporary(self, stack: ExitStack) -> Path:
        """An empty directory, until the stack ends."""
        made = Path(tempfile.mkdtemp(prefix="context-", dir=self._context.place.parent))
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made


def _wire(recipe: Sequence[Mount]) -> list[Any]:
    found: list[Any] = Root(recipe).to_wire()["rootfs"]
    return found
