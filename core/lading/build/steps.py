"""The instructions of one stage, from the cache where they can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from lading.build.planner import ContextUses, Stage
from lading.build.run_mounts import RunMount, mounts_of
from lading.build.running import Command, CommandFailed, Runner, words_of
from lading.build.sources import MISSING
from lading.build.state import State
from lading.build.stop import Stop
from lading.errors import Cancelled, Invalid, LadingError
from lading.images import Image, Images, NewLayer
from lading.images.changes import exec_form, workdir
from lading.images.making import Making
from lading.model.dockerfile import Dockerfile, Instruction, parse
from lading.store.clock import timestamp

_SHELL = ["/bin/sh", "-c"]
_NOTHING_RUN = "#(nop) "


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
    uses: ContextUses


class Steps:
    """Carries out the instructions of one stage.

    ``source`` gives the images it takes from, and ``is_stage`` whether such a name is a stage's.
    """

    def __init__(
        self,
        tools: Tools,
        stage: Stage,
        voice: Voice,
        announce: Callable[[Instruction], None],
        source: Callable[[str], Image],
        is_stage: Callable[[str], bool],
    ) -> None:
        self._is_stage = is_stage
        self._tools, self._stage, self._voice = tools, stage, voice
        self._announce, self._source = announce, source
        self._options, self._epoch = tools.options, tools.options.epoch
        self._cached = not tools.options.no_cache

    def run(self, state: State) -> None:
        """All of them, and before them what the base image has left for those built on it."""
        self._triggers(state)
        self._tools.uses.done(self._stage)
        for instruction in self._stage.instructions:
            self._announce(instruction)
            self._one(state, instruction)
            self._tools.uses.done(instruction)
            self._voice.tell(f" ---> {state.identity[7:19]}\n", hold=True)

    def label(self, state: State, name: str, value: str) -> None:
        """One more step, which the file does not have."""
        text = f"LABEL {name}={value}"
        self._announce(Instruction("LABEL", "", text, 0))
        labels = {**(state.settings.get("Labels") or {}), name: value}
        state.settings = {**state.settings, "Labels": labels}
        self.metadata(state, text)
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
                try:
                    self._run(state, instruction)
                except CommandFailed as error:
                    if not self._options.classic:
                        # dockerd's clients know its words, which tell of no place.
                        error.message = instruction.told(error.message, instruction.rest)
                    raise
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
            self._derive(state, [key], None, created_by)

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

        def key(*, exactly: bool) -> str:
            mounted = tools.hosting.key(mounts, self._source, exactly=exactly)
            flags = repr((instruction.flags, mounted))
            what = repr((words, script)), repr(arguments), flags, self._time
            return key_of(state.key, "RUN", *what)

        quick = key(exactly=False)
        if found := self._known(quick):
            self._take(state, found)
            return
        # A stage that was built anew may have come out the same.
        keys = [key(exactly=True), quick] if self._mounts_stage(mounts) else [quick]
        before = state.identity
        if self._hit(state, keys[0], prefix + shown):
            for other in keys[1:]:
                tools.cache.put(other, state.identity, before, prefix + shown)
            return
        image = state.image
        assert image is not None
        command = Command(words, [*arguments, *state.proxies()], shown)
        with tools.hosting.ready(mounts, script, self._source, tools.stop.event) as given:
            layer, container = tools.runner.run(
                image, instruction, command, given, self._voice,
                remove=self._options.remove, force_remove=self._options.force_remove,
                latest=None if self._epoch is None else self._epoch * 10**9,
            )  # fmt: skip
        front = [f"|{len(arguments)}", *arguments] if arguments else []
        ran = {"Cmd": [*front, *words], "Entrypoint": None}
        self._derive(state, keys, layer, prefix + shown, ran=ran, container=container)

    def _mounts_stage(self, mounts: Sequence[RunMount]) -> bool:
        return any(m.kind == "bind" and m.origin and self._is_stage(m.origin) for m in mounts)

    def _copy(self, state: State, instruction: Instruction) -> None:
        work = Copying.of(instruction, state)
        source = None
        if name := instruction.flag("from"):
            source = self._source(name)
        with self._tools.layers.prepared(source, work) as ready:
            # The same image as the source needs no look into it.
            origin = ready.origin()
            quick = self._copy_key(state, work, origin) if origin else ""
            if quick and (found := self._known(quick)):
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
                    last = self._tools.uses.is_last(instruction)
                    layer, _ = ready.write(state.image, consume=last)
                self._derive(state, [key], layer, created_by)
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
                self._derive(state, [key], ready.write(state.image)[0], created_by)

    # -- images

    @property
    def _time(self) -> str:
        return "" if self._epoch is None else str(self._epoch)

    def _hit(self, state: State, key: str, created_by: str) -> bool:
        found = self._known(key)
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

    def _known(self, key: str) -> str:
        """What the cache has and may be taken; "" for nothing."""
        found = self._tools.cache.get(key) if self._cached else ""
        return found if found and self._tools.candidates.admits(found) else ""

    def _take(self, state: State, found: str) -> None:
        self._tools.hold(found)
        state.identity = found
        self._voice.tell(" ---> Using cache\n", hold=True)

    def _derive(
        self,
        state: State,
        keys: Sequence[str],
        layer: NewLayer | None,
        created_by: str,
        *,
        ran: Mapping[str, Any] | None = None,
        container: str = "",
    ) -> None:
        """The next image; ``ran`` is how the config of a RUN's ``container`` differs from it."""
        self._tools.stop.check()
        settings, epoch = state.with_parent(), self._epoch
        image_id = self._tools.making.derived(
            state.image, settings, layer, created_by=created_by, author=state.author,
            created="" if epoch is None else timestamp(epoch * 10**9), platform=state.platform,
            container="" if epoch is not None else container,
            container_config={**settings, **(ran or {"Cmd": _noted_words(state, created_by)})},
        )  # fmt: skip
        self._tools.hold(image_id)
        for key in keys:
            self._tools.cache.put(key, image_id, state.identity, created_by)
        state.identity = image_id


def _noted(state: State, what: str) -> str:
    """Docker's line of history for a step that runs nothing."""
    return f"{' '.join(state.settings.get('Shell') or _SHELL)} {_NOTHING_RUN}{what}"


def _noted_words(state: State, line: str) -> list[str]:
    """The same as the words of a command, as Docker has them: a comment for the shell."""
    what = line.partition(_NOTHING_RUN)[2]
    # With a space it has come as a word of its own.
    comment = [_NOTHING_RUN, what[1:]] if what.startswith(" ") else [_NOTHING_RUN + what]
    return [*(state.settings.get("Shell") or _SHELL), *comment]


@contextmanager
def errors_of(instruction: Instruction) -> Iterator[None]:
    """Let errors tell of which instruction they are."""
    try:
        yield
    except (CommandFailed, Cancelled):
        raise
    except LadingError as error:
        if name := instruction.flag("from"):
            error.message = error.message.replace(MISSING, f"file not found in {name}")
        if "\n" not in error.message:
            # Else it is of another stage's, and says so.
            error.message, error.hint = instruction.told(str(error)), ""
        raise
