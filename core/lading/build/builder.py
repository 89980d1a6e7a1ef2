"""A build from its context to a named image."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lading.archive import Archives
from lading.build import pruning
from lading.build.cache import Cache, Record
from lading.build.cache_mounts import CacheMounts
from lading.build.candidates import Candidates
from lading.build.checking import check
from lading.build.context import Context, Readable
from lading.build.hosting import Hosting
from lading.build.layers import Layers
from lading.build.options import BuildOptions
from lading.build.output import Emit, Output
from lading.build.planner import ContextUses, plan, undeclared
from lading.build.running import INTENT, Runner
from lading.build.sessions import Sessions
from lading.build.stages import Pull, Stages
from lading.build.steps import Tools
from lading.build.stop import Stop
from lading.containers import Containers
from lading.errors import Invalid, NotFound
from lading.images import Images
from lading.images.making import Making
from lading.model import reference
from lading.model.dockerfile import LARGEST, parse
from lading.monitor import Spawner
from lading.store.clock import timestamp
from lading.store.db import Database
from lading.store.intents import Finish, Intents

WhenGone = Callable[[Callable[[], None]], AbstractContextManager[None]]


class Builder:
    """Builds of one daemon; thread safe."""

    def __init__(
        self,
        images: Images,
        containers: Containers,
        archives: Archives,
        spawner: Spawner,
        db: Database,
        intents: Intents,
        root: Path,
        run_root: Path,
    ) -> None:
        self._images, self._containers, self._archives = images, containers, archives
        self._spawner, self._intents = spawner, intents
        self._root = root / "build"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run_root = run_root / "build"
        shutil.rmtree(self._run_root, ignore_errors=True)
        self._run_root.mkdir(mode=0o711, parents=True)
        self.cache = Cache(db, images)
        self.cache_mounts = CacheMounts(self._root / "mounts")
        self.sessions = Sessions()
        # What a killed daemon was working on.
        for left in self._root.glob("context-*"):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def finishers(self) -> Mapping[str, Finish]:
        """What clears away the containers of builds that a crash has ended."""

        def remove(name: str, details: Mapping[str, Any]) -> None:
            try:
                self._containers.remove(name, force=True, volumes=True)
            except NotFound:
                # The crash came before there was one.
                return

        return {INTENT: remove}

    def records(self) -> list[Record]:
        """What the cache holds: steps, and the cache directories of RUN."""
        return [*self.cache.records(), *self.cache_mounts.records()]

    def prune(
        self, filters: Mapping[str, Sequence[str]], *, all: bool, keep: int
    ) -> tuple[list[str], int]:
        """Remove what no image needs; with ``all`` forget the rest too. Ids and bytes.

        Goes on, the least recently used first, until no more than ``keep`` bytes are left.
        """
        return pruning.prune(self.cache, self.cache_mounts, filters, all=all, keep=keep)

    def build(
        self,
        body: Readable,
        options: BuildOptions,
        emit: Emit,
        pull: Pull,
        when_gone: WhenGone,
    ) -> str:
        """Build; the image's id. Raises Invalid, CommandFailed and what its parts raise."""
        names = [_name(tag) for tag in options.tags]
        directory = Path(tempfile.mkdtemp(prefix="context-", dir=self._root))
        # For RUN --mount, whoever that runs as; on the host the directory above is closed.
        directory.chmod(0o755)
        files = Context(directory, self._archives)
        try:
            with self._images.adding():
                if options.remote:
                    files.fetch(options.remote, options.dockerfile)
                else:
                    files.receive(body, options.dockerfile)
                with self.cache.held() as hold:
                    image_id = self._run(files, options, emit, pull, when_gone, hold)
                for named in names:
                    self._images.tag(image_id, named)
        finally:
            files.drop()
            self.sessions.forget(options.session)
        if options.quiet:
            emit({"stream": f"{image_id}\n"})
        else:
            emit({"stream": f"Successfully built {image_id[7:19]}\n"})
            for named in names:
                emit({"stream": f"Successfully tagged {named}\n"})
        return image_id

    def _run(
        self,
        files: Context,
        options: BuildOptions,
        emit: Emit,
        pull: Pull,
        when_gone: WhenGone,
        hold: Callable[[str], None],
    ) -> str:
        text = files.begin(options.dockerfile, LARGEST)
        file = parse(text, _shown(options.dockerfile))
        chosen = plan(file, options.arguments, options.target, options.platform)
        stop = Stop()
        runner = Runner(self._containers, options.host, options.allowed, self._intents, stop)
        check(chosen.every, file.escape, runner.check)
        making = Making(self._images.catalog, self._images.blobs, self._archives)
        layers = Layers(self._images, self._archives, self._spawner, files, options.epoch, stop)
        hosting = Hosting(
            self._containers, self._archives, layers, self.cache_mounts, self.sessions,
            options.session, files, self._run_root,
        )  # fmt: skip
        tools = Tools(
            self._images, making, layers, self.cache,
            Candidates(self._images, making, options.cache_from, own=options.cache_own),
            runner, hosting, options, stop, hold, ContextUses(chosen),
        )  # fmt: skip
        prefixes = [s.name or str(s.index) for s in chosen.stages]
        if not (options.marked or (options.prefixes and len(prefixes) > 1)):
            prefixes = []
        output = Output(
            None if options.quiet else emit, prefixes,
            marked=options.marked, coloured=options.classic,
        )  # fmt: skip
        with when_gone(stop.set):
            stages = Stages(tools, chosen, file.escape, output, pull)
            image = stages.build()
        if options.squash:
            layer = layers.difference(stages.base, image)
            created = "" if options.epoch is None else timestamp(options.epoch * 10**9)
            image = self._images.get(making.squashed(image, stages.base, layer, created))
        unused = undeclared(file, options.arguments)
        if unused and not options.quiet:
            listed = " ".join(unused)
            told = f"[Warning] One or more build-args [{listed}] were not consumed\n"
            emit({"stream": told})
        emit({"aux": {"ID": image.id}})
        return image.id


def _shown(dockerfile: str) -> str:
    """The file's name in messages; clients give one from elsewhere a name that tells nothing."""
    return "Dockerfile" if dockerfile.startswith(".dockerfile.") else dockerfile or "Dockerfile"


def _name(tag: str) -> str:
    named = reference.parse(tag)
    if named.digest:
        raise Invalid(f"invalid tag {tag!r}: a digest is not a name")
    return named.with_default_tag().familiar
