"""A build from its context to a named image."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lading.archive import Archives
from lading.build import context
from lading.build.cache import Cache
from lading.build.cache_mounts import CacheMounts
from lading.build.context import Readable
from lading.build.hosting import Hosting
from lading.build.layers import Layers
from lading.build.options import BuildOptions
from lading.build.planner import plan, undeclared
from lading.build.running import Runner, WhenGone
from lading.build.sessions import Sessions
from lading.build.sources import Digests
from lading.build.stages import Pull, Stages
from lading.containers import Containers
from lading.errors import Invalid, Unsupported
from lading.images import Images
from lading.images.making import Making
from lading.model import reference
from lading.model.dockerfile import LARGEST, parse
from lading.monitor import Spawner
from lading.store.db import Database

Emit = Callable[[Mapping[str, Any]], None]


class Builder:
    """Builds of one daemon; thread safe."""

    def __init__(
        self,
        images: Images,
        containers: Containers,
        archives: Archives,
        spawner: Spawner,
        db: Database,
        root: Path,
        run_root: Path,
    ) -> None:
        self._images, self._containers, self._archives = images, containers, archives
        self._spawner = spawner
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

    def build(
        self,
        body: Readable,
        options: BuildOptions,
        emit: Emit,
        pull: Pull,
        when_gone: WhenGone,
    ) -> str:
        """Build; the image's id. Raises Invalid, CommandFailed and what its parts raise."""
        if options.squash:
            raise Unsupported("squashing of builds is not supported")
        names = [_name(tag) for tag in options.tags]
        directory = Path(tempfile.mkdtemp(prefix="context-", dir=self._root))
        try:
            with self._images.adding():
                name = options.dockerfile or "Dockerfile"
                if options.remote:
                    digests = context.fetch(options.remote, directory, self._archives, name)
                else:
                    digests = context.spool(body, directory, self._archives)
                image_id = self._run(directory, digests, options, emit, pull, when_gone)
                for named in names:
                    self._images.tag(image_id, named)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
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
        directory: Path,
        digests: Digests,
        options: BuildOptions,
        emit: Emit,
        pull: Pull,
        when_gone: WhenGone,
    ) -> str:
        text = context.read_dockerfile(directory, options.dockerfile, LARGEST)
        context.drop_ignored(directory, options.dockerfile)
        file = parse(text, _shown(options.dockerfile))
        chosen = plan(file, options.arguments, options.target, options.platform)
        runner = Runner(self._containers, options.host, when_gone)
        making = Making(self._images.catalog, self._images.blobs, self._archives)
        layers = Layers(
            self._images, self._archives, self._spawner, directory, digests, options.epoch
        )
        hosting = Hosting(
            self._containers, self._archives, layers, self.cache_mounts, self.sessions,
            options.session, directory, self._run_root,
        )  # fmt: skip
        stages = Stages(
            self._images, making, layers, self.cache, runner, hosting, options, chosen, file.escape,
            lambda line: None if options.quiet else emit({"stream": line}), pull,
        )  # fmt: skip
        image = stages.build()
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
