"""What COPY, ADD and WORKDIR add, from where, and the layer that it makes."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from lading.archive import Archives, Root, compression, headers
from lading.build import context
from lading.build.sources import Digests, Sources, content_of
from lading.build.state import State
from lading.errors import Invalid, LadingError
from lading.hooks.common import Mount
from lading.images import Image, Images, NewLayer
from lading.images.changes import exec_form
from lading.linux import paths
from lading.model import oci
from lading.model.dockerfile import Instruction, file_heredocs
from lading.model.substitution import split_words, substitute
from lading.monitor import Spawner
from lading.store.blobs import BlobWriter

_FLAGS = {
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ADD": ("chown", "chmod", "link", "exclude", "checksum", "unpack"),
}


@dataclass(frozen=True, slots=True)
class Copying:
    """One instruction, its variables replaced. ``files`` are documents of the Dockerfile."""

    name: str
    sources: Sequence[str]
    dest: str
    files: Sequence[tuple[str, str]] = ()
    owner: str = ""
    chmod: int | None = None
    exclude: Sequence[str] = ()
    parents: bool = False
    checksum: str = ""
    shown: str = ""
    keep: bool = False

    @classmethod
    def of(cls, instruction: Instruction, state: State) -> Copying:
        """Read an instruction. Raises Invalid."""
        name = instruction.name
        for flag, _ in instruction.flags:
            if flag not in _FLAGS[name]:
                raise Invalid(f"{name}: unknown flag: --{flag}")
        documents = file_heredocs(instruction)
        words = exec_form(instruction.rest)
        if words is None:
            words = split_words(instruction.rest, state.escape)
        if len(words) < 2:
            raise Invalid(f"{name} requires at least two arguments: what, and where to")
        values = state.values()
        files = tuple(
            (d.name, substitute(d.content, values, keep_quotes=True) if d.expand else d.content)
            for w in words[:-1]
            if (d := documents.get(w)) is not None
        )
        sources = tuple(state.replaced(w) for w in words[:-1] if w not in documents)
        shown = state.replaced(words[-1])
        dest = posixpath.join(state.settings.get("WorkingDir") or "/", shown)
        if shown in (".", "..") or shown.endswith(("/.", "/..")):
            dest += "/"
        return cls(
            name, sources, dest, files, state.replaced(instruction.flag("chown")),
            _mode(state.replaced(instruction.flag("chmod"))),
            tuple(state.replaced(v) for k, v in instruction.flags if k == "exclude"),
            instruction.flag("parents") == "true", state.replaced(instruction.flag("checksum")),
            shown,
        )  # fmt: skip


def _mode(text: str) -> int | None:
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError as error:
        raise Invalid(f"invalid chmod parameter: '{text}'. it should be octal string") from error
    if not 0 <= mode <= 0o7777:
        raise Invalid(f"invalid chmod parameter: '{text}'. it should be between 0 and 07777")
    return mode


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

    def origin(self) -> str:
        """A name that stands for the whole source, where it has one: the same name, the same
        content."""
        return self._source.top_chain if self._source else ""

    def content(self) -> str:
        """A digest of what is copied: names, kinds, modes and contents, not times."""
        layers, work = self._layers, self._work
        if self._source is None and not any("://" in name for name in work.sources):
            return layers.content_of_context(work)
        found = layers.run("content", self._args(), ())
        if found is None:
            self._located = None
            found = layers.run("content", self._args(exactly=True), ())
        return str(found)

    def write(self, target: Image | None) -> tuple[NewLayer | None, str]:
        """The layer as a blob, None when there is nothing in it, and :meth:`content`.

        ``target``: what it is copied to.
        """
        layers = self._layers
        with layers.images.blobs.writer() as writer:
            done = self._copied(target, writer)
            if done is None:
                writer.restart()
                self._located = None
                done = self._copied(target, writer, exactly=True)
            if not done["entries"]:
                return None, done["content"]
            writer.commit_written(done["digest"])
        layer = NewLayer(done["digest"], done["digest"], oci.LAYER, done["size"], done["length"])
        return layer, done["content"]

    def _copied(self, target: Image | None, writer: BlobWriter, *, exactly: bool = False) -> Any:
        layers, args = self._layers, self._args(exactly=exactly)
        if target is None:
            seen = Seen(layers.empty(self._stack))
        else:
            seen = layers.view(target, self._stack, exactly=exactly)
        args |= {"lower": _wire(seen.recipe), "init_target": seen.init}
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
        directory: Path,
        digests: Digests,
        epoch: int | None,
    ) -> None:
        self.images, self.epoch = images, epoch
        self._archives, self._spawner = archives, spawner
        self._directory, self._digests = directory, digests

    @contextmanager
    def prepared(self, source: Image | None, work: Copying) -> Iterator[Ready]:
        """The sources of an instruction, of the context where ``source`` is None."""
        with ExitStack() as stack:
            yield Ready(self, work, source, stack)

    def run(self, function: str, args: dict[str, Any], fds: Sequence[int]) -> Any:
        """Run a task of this package."""
        task = self._spawner.task(f"lading.build.copying:{function}", args, fds)
        try:
            return task.wait()
        finally:
            task.close()

    def content_of_context(self, work: Copying) -> str:
        """The digest of what is copied from the context."""
        with paths.opened_root(self._directory) as root:
            sources = Sources(os.fsencode(self._directory), root, work.exclude)
            return content_of(
                sources, work.sources, work.files, self._digests, parents=work.parents
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
        return self._fetched(work, stack) if work.name == "ADD" else (work, self._context())

    def _context(self) -> Seen:
        return Seen(context.recipe(self._directory))

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
        made = Path(tempfile.mkdtemp(prefix="context-", dir=self._directory.parent))
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made

    def _fetched(self, work: Copying, stack: ExitStack) -> tuple[Copying, Seen]:
        """ADD's own: URLs are fetched, archives of the context unpacked."""
        special = [s for s in work.sources if "://" in s or self._is_archive(s)]
        if not special:
            return work, self._context()
        if len(work.sources) + len(work.files) > 1:
            raise Invalid("ADD of an archive or a URL must be its only source")
        place = self.temporary(stack)
        if "://" not in special[0]:
            with paths.opened_root(self._directory) as root:
                source = paths.open_in_root(root, special[0], os.O_RDONLY)
            stack.callback(os.close, source)
            self._archives.copy_in(Root(context.recipe(place)), "/", source)
            dest = work.dest.rstrip("/") + "/"
            work = replace(work, sources=("/",), dest=dest, keep=not work.owner)
            return work, Seen(context.recipe(place))
        name = posixpath.basename(urlsplit(special[0]).path)
        if not name:
            raise Invalid(f"cannot determine filename from url: {special[0]}")
        self._download(special[0], place / name, work.checksum)
        return replace(work, sources=(name,)), Seen(context.recipe(place))

    def _download(self, url: str, path: Path, checksum: str) -> None:
        digest = hashlib.sha256()
        with context.open_url(url) as response, open(path, "xb") as file:
            while piece := response.read(context.CHUNK):
                digest.update(piece)
                file.write(piece)
        path.chmod(0o600)
        if checksum and checksum != f"sha256:{digest.hexdigest()}":
            raise Invalid(
                f"digest mismatch sha256:{digest.hexdigest()} of {url}, expected {checksum}"
            )

    def _is_archive(self, name: str) -> bool:
        if any(c in name for c in "*?["):
            return False
        try:
            with paths.opened_root(self._directory) as root:
                source = paths.open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            stream, _ = compression.opened(compression.Descriptor(source))
            first = b""
            while len(first) < headers.BLOCK and (piece := stream.read(headers.BLOCK - len(first))):
                first += piece
            return len(first) == headers.BLOCK and headers.parse(first) is not None
        except (LadingError, OSError):
            return False
        finally:
            os.close(source)


def _wire(recipe: Sequence[Mount]) -> list[Any]:
    found: list[Any] = Root(recipe).to_wire()["rootfs"]
    return found
