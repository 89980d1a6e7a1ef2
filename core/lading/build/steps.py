"""The instructions of one stage, from the cache where they can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lading.build.cache import Cache, key_of
from lading.build.candidates import Candidates
from lading.build.hosting import Hosting
from lading.build.instruction import Copying
from lading.build.layers import Layers
from lading.build.options import BuildOptions
from lading.build.output import Voice
from lading.build.planner import Stage
from lading.build.run_mounts import mounts_of
from lading.build.running import Command, CommandFailed, Runner, words_of
from lading.build.state import State
from lading.build.stop import Stop
from lading.errors import Cancelled, Invalid, LadingError
from lading.images import Image, Images, NewLayer
from lading.images.changes import exec_form, workdir
from lading.images.making import Making
from lading.model.dockerfile import Dockerfile, Instruction, parse
from lading.store.clock import timestamp

_SHELL = ["/bin/sh", "-c"]


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages of one build share. ``hold`` keeps an image while the build runs."""

    images: Images
    making: Making
    layers: Layers
    cache: Cache
    candidates: Candidates
    runner: Runner
    hosting: Hosting
    options: BuildOptions
    stop: Stop
    hold: Callable[[str], None]


class Steps:
    """Carries out the instructions of one stage; ``source`` gives the images it takes from."""

    def __init__(
        self,
        tools: Tools,
        stage: Stage,
        voice: Voice,
        announce: Callable[[Instruction], None],
        source: Callable[[str], Image],
    ) -> None:
        self._tools, self._stage, self._voice = tools, stage, voice
        self._announce, self._source = announce, source
        self._options, self._epoch = tools.options, tools.options.epoch
        self._cached = not tools.options.no_cache

    def run(self, state: State) -> None:
        """All of them, and before them what the base image has left for those built on it."""
        self._triggers(state)
        for instruction in self._stage.instructions:
            self._announce(instruction)
            self._one(state, instruction)
            self._voice.tell(f" ---> {state.identity[7:19]}\n", hold=True)

    def _triggers(self, state: State) -> None:
        triggers = state.settings.pop("OnBuild", None) or []
        if triggers:
            plural = "" if len(triggers) == 1 else "s"
            self._voice.tell(f"# Executing {len(triggers)} build trigger{plural}\n", hold=True)
        for text in triggers:
            file: Dockerfile = parse(str(text).encode(), "ONBUILD")
            for instruction in file.instructions:
                self._one(state, instruction)

    def _one(self, state: State, instruction: Instruction) -> None:
        self._tools.stop.check()
        name = instruction.name
        with errors_of(instruction):
            if name == "RUN":
                self._run(state, instruction)
            elif name in ("COPY", "ADD"):
                self._copy(state, instruction)
            elif name == "WORKDIR":
                self._workdir(state, instruction)
            elif name == "ARG":
                state.declare(instruction.rest)
                self.metadata(state, f"ARG {instruction.rest}")
            else:
                self.metadata(state, state.apply(instruction))

    # -- kinds of steps

    def metadata(self, state: State, shown: str) -> None:
        """A step that changes only settings, which ``state`` has already."""
        created_by = _noted(state, f" {shown}")
        key = key_of(state.key, created_by, repr(sorted(state.settings.items())), self._time)
        if not self._hit(state, key, created_by):
            self._derive(state, key, None, created_by)

    def _run(self, state: State, instruction: Instruction) -> None:
        tools = self._tools
        tools.runner.check(instruction)
        shell = state.settings.get("Shell") or _SHELL
        words, script = words_of(instruction, exec_form(instruction.rest), shell)
        place = state.settings.get("WorkingDir") or "/"
        mounts = mounts_of(instruction, state.replaced, place)
        if not state.identity:
            if not mounts:
                raise Invalid("RUN: a stage from scratch has nothing to run")
            # What is mounted may be all that it needs.
            self.metadata(state, "FROM scratch")
        arguments = state.run_arguments()
        shown = " ".join(words)
        prefix = f"|{len(arguments)} {' '.join(arguments)} " if arguments else ""
        flags = repr((instruction.flags, tools.hosting.key(mounts, self._source)))
        key = key_of(state.key, "RUN", repr((words, script)), repr(arguments), flags, self._time)
        if self._hit(state, key, prefix + shown):
            return
        image = state.image
        assert image is not None
        command = Command(words, [*arguments, *state.proxies()], shown)
        with tools.hosting.ready(mounts, script, self._source, tools.stop.event) as given:
            layer = tools.runner.run(
                image, instruction, command, given, self._voice.tell,
                remove=self._options.remove, force_remove=self._options.force_remove,
                latest=None if self._epoch is None else self._epoch * 10**9,
            )  # fmt: skip
        self._derive(state, key, layer, prefix + shown)

    def _copy(self, state: State, instruction: Instruction) -> None:
        work = Copying.of(instruction, state)
        source = None
        if name := instruction.flag("from"):
            source = self._source(name)
        with self._tools.layers.prepared(source, work) as ready:
            # The same image as the source needs no look into it.
            origin = ready.origin()
            quick = self._copy_key(state, work, origin) if origin else ""
            if quick and self._cached and (found := self._tools.cache.get(quick)):
                self._take(state, found)
                return
            layer: NewLayer | None = None
            written = origin != "" and not self._cached
            if written:
                layer, content = ready.write(state.image, content=True)
            else:
                content = ready.content()
            key = self._copy_key(state, work, content)
            before = state.identity
            # Docker's line, which has no space there.
            owner = f"--chown={work.owner}" if work.owner else ""
            created_by = _noted(state, f"{work.name} {owner}{content} in {work.shown} ")
            if not self._hit(state, key, created_by):
                if not written:
                    layer, _ = ready.write(state.image)
                self._derive(state, key, layer, created_by)
            if quick:
                self._tools.cache.put(quick, state.identity, before, created_by)

    def _copy_key(self, state: State, work: Copying, content: str) -> str:
        flags = repr(
            (work.owner, work.chmod, work.parents, work.keep, work.link, work.unpack, work.keep_git)
        )
        named = repr((work.sources, list(work.exclude), work.files))
        what = named if content.startswith("sha256:") else ""
        return key_of(state.key, work.name, work.dest, flags, what, content, self._time)

    def _workdir(self, state: State, instruction: Instruction) -> None:
        named = state.replaced(instruction.rest)
        if not named:
            raise Invalid("WORKDIR requires at least one argument")
        state.settings = workdir(state.settings, named)
        place = str(state.settings["WorkingDir"])
        created_by = _noted(state, f"WORKDIR {place}")
        key = key_of(state.key, created_by, self._time)
        if not self._hit(state, key, created_by):
            with self._tools.layers.prepared(None, Copying("WORKDIR", (), place)) as ready:
                self._derive(state, key, ready.write(state.image)[0], created_by)

    # -- images

    @property
    def _time(self) -> str:
        return "" if self._epoch is None else str(self._epoch)

    def _hit(self, state: State, key: str, created_by: str) -> bool:
        found = self._tools.cache.get(key) if self._cached else ""
        if not found and self._cached:
            found = self._tools.candidates.after(state, created_by)
            if found:
                self._tools.cache.put(key, found, state.identity, created_by)
        if not found:
            # What follows stands on something new.
            self._cached = False
            self._voice.tell("")
            return False
        self._take(state, found)
        return True

    def _take(self, state: State, found: str) -> None:
        self._tools.hold(found)
        state.identity = found
        self._voice.tell(" ---> Using cache\n", hold=True)

    def _derive(self, state: State, key: str, layer: NewLayer | None, created_by: str) -> None:
        self._tools.stop.check()
        settings: dict[str, Any] = state.settings
        epoch = self._epoch
        image_id = self._tools.making.derived(
            state.image, settings, layer, created_by=created_by, author=state.author,
            created="" if epoch is None else timestamp(epoch * 10**9), platform=state.platform,
        )  # fmt: skip
        self._tools.hold(image_id)
        self._tools.cache.put(key, image_id, state.identity, created_by)
        state.identity = image_id


def _noted(state: State, what: str) -> str:
    """Docker's line of history for a step that runs nothing."""
    return f"{' '.join(state.settings.get('Shell') or _SHELL)} #(nop) {what}"


@contextmanager
def errors_of(instruction: Instruction) -> Iterator[None]:
    """Let errors tell of which instruction they are."""
    try:
        yield
    except (CommandFailed, Cancelled):
        raise
    except LadingError as error:
        if "\n" not in error.message:
            # Else it is of another stage's, and says so.
            error.message, error.hint = instruction.told(str(error)), ""
        raise
