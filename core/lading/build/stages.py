"""The steps of a build: each instruction of each needed stage, from the cache where it can be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lading.build.cache import Cache, key_of
from lading.build.hosting import Hosting
from lading.build.layers import Copying, Layers
from lading.build.options import BuildOptions
from lading.build.planner import Plan, Stage
from lading.build.run_mounts import mounts_of
from lading.build.running import Command, Runner, words_of
from lading.build.state import State
from lading.errors import Denied, Invalid, NotFound, Unsupported
from lading.images import Image, Images, NewLayer
from lading.images.changes import exec_form, workdir
from lading.images.making import Making
from lading.model.dockerfile import Dockerfile, Instruction, parse
from lading.store.clock import timestamp

Pull = Callable[[str, str], None]
_SHELL = ["/bin/sh", "-c"]


class Stages:
    """Builds the stages of one plan."""

    def __init__(
        self,
        images: Images,
        making: Making,
        layers: Layers,
        cache: Cache,
        runner: Runner,
        hosting: Hosting,
        options: BuildOptions,
        chosen: Plan,
        escape: str,
        tell: Callable[[str], None],
        pull: Pull,
    ) -> None:
        self._images, self._making, self._cache, self._runner = images, making, cache, runner
        self._hosting, self._gone = hosting, threading.Event()
        self._options, self._plan, self._escape, self._tell = options, chosen, escape, tell
        self._pull = pull
        self._epoch = options.epoch
        self._layers = layers
        self._built: dict[int, State] = {}
        self._step = 0
        self._cached = not options.no_cache

    def build(self) -> Image:
        """All stages; the image of the last."""
        for stage in self._plan.stages:
            self._cached = not self._options.no_cache
            self._built[stage.index] = self._stage(stage)
        state = self._built[self._plan.stages[-1].index]
        if self._options.labels:
            labels = {**(state.settings.get("Labels") or {}), **self._options.labels}
            state.settings = {**state.settings, "Labels": labels}
            rows = " ".join(f"{k}={v}" for k, v in sorted(self._options.labels.items()))
            self._metadata(state, f"LABEL {rows}")
        if state.image is None:
            raise Invalid("No image was generated. Is your Dockerfile empty?")
        return state.image

    def _announce(self, instruction: Instruction) -> None:
        self._step += 1
        self._tell(f"Step {self._step}/{self._plan.steps} : {instruction.text}\n")

    def _stage(self, stage: Stage) -> State:
        self._announce(stage.origin)
        image: Image | None = None
        if stage.parent is not None:
            image = self._built[stage.parent].image
        elif stage.base != "scratch":
            image = self._base(stage.base, stage.platform or self._options.platform)
        state = State.of(
            image, self._images.get, self._plan.globals, self._options.arguments, self._escape
        )
        self._tell(f" ---> {state.identity[7:19]}\n")
        self._triggers(state)
        for instruction in stage.instructions:
            self._announce(instruction)
            self._one(state, instruction)
            self._tell(f" ---> {state.identity[7:19]}\n")
        return state

    def _base(self, name: str, platform: str) -> Image:
        if not self._options.pull:
            try:
                return self._images.get(name)
            except NotFound:
                pass
        self._pull(name, platform)
        return self._images.get(name)

    def _triggers(self, state: State) -> None:
        """What the base image has left for those built on it."""
        triggers = state.settings.pop("OnBuild", None) or []
        if triggers:
            plural = "" if len(triggers) == 1 else "s"
            self._tell(f"# Executing {len(triggers)} build trigger{plural}\n")
        for text in triggers:
            file: Dockerfile = parse(str(text).encode(), "ONBUILD")
            for instruction in file.instructions:
                self._one(state, instruction)

    def _one(self, state: State, instruction: Instruction) -> None:
        name = instruction.name
        try:
            if name == "RUN":
                self._run(state, instruction)
            elif name in ("COPY", "ADD"):
                self._copy(state, instruction)
            elif name == "WORKDIR":
                self._workdir(state, instruction)
            elif name == "ARG":
                state.declare(instruction.rest)
                self._metadata(state, f"ARG {instruction.rest}")
            else:
                self._metadata(state, state.apply(instruction))
        except (Invalid, NotFound, Unsupported, Denied) as error:
            raise type(error)(instruction.told(str(error))) from error

    # -- kinds of steps

    def _metadata(self, state: State, shown: str) -> None:
        created_by = f"/bin/sh -c #(nop)  {shown}"
        key = key_of(state.identity, created_by, repr(sorted(state.settings.items())), self._time)
        if not self._hit(state, key):
            self._derive(state, key, None, created_by)

    def _run(self, state: State, instruction: Instruction) -> None:
        if state.image is None:
            raise Invalid("RUN: a stage from scratch has nothing to run")
        shell = state.settings.get("Shell") or _SHELL
        words, script = words_of(instruction, exec_form(instruction.rest), shell)
        workdir = state.settings.get("WorkingDir") or "/"
        mounts = mounts_of(instruction, state.replaced, workdir)
        arguments = state.run_arguments()
        shown = " ".join(words)
        prefix = f"|{len(arguments)} {' '.join(arguments)} " if arguments else ""
        flags = repr((instruction.flags, self._hosting.key(mounts, self._source)))
        key = key_of(
            state.identity, "RUN", repr((words, script)), repr(arguments), flags, self._time
        )
        if self._hit(state, key):
            return
        command = Command(words, [*arguments, *state.proxies()], shown)
        with self._hosting.ready(mounts, script, self._source, self._gone) as given:
            layer = self._runner.run(
                state.image, instruction, command, given, self._tell,
                remove=self._options.remove, force_remove=self._options.force_remove,
                latest=None if self._epoch is None else self._epoch * 10**9,
            )  # fmt: skip
        self._derive(state, key, layer, prefix + shown)

    def _copy(self, state: State, instruction: Instruction) -> None:
        work = Copying.of(instruction, state)
        source = None
        if name := instruction.flag("from"):
            source = self._source(name)
        with self._layers.prepared(source, work) as ready:
            # The same image as the source needs no look into it.
            origin = ready.origin()
            quick = self._copy_key(state, work, origin) if origin else ""
            if quick and self._cached and (found := self._cache.get(quick)):
                self._take(state, found)
                return
            layer: NewLayer | None = None
            written = origin != "" and not self._cached
            if written:
                layer, content = ready.write(state.image)
            else:
                content = ready.content()
            key = self._copy_key(state, work, content)
            if not self._hit(state, key):
                if not written:
                    layer, content = ready.write(state.image)
                owner = f"--chown={work.owner} " if work.owner else ""
                shown = f"{work.name} {owner}{content} in {work.shown}"
                self._derive(state, key, layer, f"/bin/sh -c #(nop) {shown} ")
            if quick:
                self._cache.put(quick, state.identity)

    def _copy_key(self, state: State, work: Copying, content: str) -> str:
        flags = repr((work.owner, work.chmod, work.parents, work.keep))
        what = repr((work.sources, list(work.exclude))) if content.startswith("sha256:") else ""
        return key_of(state.identity, work.name, work.dest, flags, what, content, self._time)

    def _source(self, name: str) -> Image:
        stage = self._plan.find(name)
        if stage is None:
            return self._base(name, self._options.platform)
        image = self._built[stage.index].image
        if image is None:
            raise Invalid(f"the stage {name} holds nothing")
        return image

    def _workdir(self, state: State, instruction: Instruction) -> None:
        state.settings = workdir(state.settings, state.replaced(instruction.rest))
        place = str(state.settings["WorkingDir"])
        created_by = f"/bin/sh -c #(nop) WORKDIR {place}"
        key = key_of(state.identity, created_by, self._time)
        if not self._hit(state, key):
            with self._layers.prepared(None, Copying("WORKDIR", (), place)) as ready:
                self._derive(state, key, ready.write(state.image)[0], created_by)

    # -- images

    @property
    def _time(self) -> str:
        return "" if self._epoch is None else str(self._epoch)

    def _hit(self, state: State, key: str) -> bool:
        found = self._cache.get(key) if self._cached else ""
        if not found:
            # What follows stands on something new.
            self._cached = False
            return False
        self._take(state, found)
        return True

    def _take(self, state: State, found: str) -> None:
        state.identity = found
        self._tell(" ---> Using cache\n")

    def _derive(self, state: State, key: str, layer: NewLayer | None, created_by: str) -> None:
        settings: dict[str, Any] = state.settings
        epoch = self._epoch
        image_id = self._making.derived(
            state.image, settings, layer, created_by=created_by, author=state.author,
            created="" if epoch is None else timestamp(epoch * 10**9),
        )  # fmt: skip
        state.identity = image_id
        self._cache.put(key, image_id)
