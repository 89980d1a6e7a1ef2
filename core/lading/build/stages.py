"""The stages of a build: those that do not need each other run side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from lading.build.output import Emit, Output, Voice
from lading.build.planner import Plan, Stage
from lading.build.state import State
from lading.build.steps import Steps, Tools, errors_of
from lading.errors import Cancelled, Invalid, NotFound
from lading.images import Image
from lading.model import platforms
from lading.model.dockerfile import Instruction
from lading.operations import carried

#: Fetches an image by name and platform; tells its progress.
Pull = Callable[[str, str, Emit], None]

#: Stages that run at a time.
PARALLEL = 4


class Stages:
    """Builds the stages of one plan."""

    def __init__(self, tools: Tools, chosen: Plan, escape: str, output: Output, pull: Pull) -> None:
        self._tools, self._plan, self._escape = tools, chosen, escape
        self._output, self._pull = output, pull
        self._built: dict[int, Future[State]] = {s.index: Future() for s in chosen.stages}
        #: What the last stage begins with; None for nothing.
        self.base: Image | None = None
        self._bases, self._extra = threading.Lock(), threading.Lock()
        self._base_images: dict[tuple[str, str], Image] = {}

    def build(self) -> Image:
        """All stages; the image of the last. Raises what the first that failed has raised."""
        work, step = [], 0
        for stage in self._plan.stages:
            work.append((stage, self._output.voice(), step))
            step += 1 + len(stage.instructions)
        if len(work) == 1:
            self._run(*work[0])
        else:
            self._run_all(work)
        last = self._plan.stages[-1]
        state = self._built[last.index].result()
        if state.image is None:
            raise Invalid("No image was generated. Is your Dockerfile empty?")
        return state.image

    def _run_all(self, work: list[tuple[Stage, Voice, int]]) -> None:
        """Begin them in order: one that waits for another, waits for one that has begun."""
        with ThreadPoolExecutor(PARALLEL, "build-stage") as pool:
            begun = [pool.submit(carried(self._run), *one) for one in work]
        errors = [error for one in begun if (error := one.exception()) is not None]
        for error in errors:
            # What the others were cancelled for.
            if not isinstance(error, Cancelled):
                raise error
        if errors:
            raise errors[0]

    def _run(self, stage: Stage, voice: Voice, step: int) -> None:
        done = self._built[stage.index]
        try:
            state = self._stage(stage, voice, step)
        except BaseException as error:
            if not isinstance(error, Cancelled):
                voice.fail()
            self._tools.stop.set()
            done.set_exception(Cancelled("a stage that this one needs has failed"))
            raise
        done.set_result(state)
        voice.end()

    def _stage(self, stage: Stage, voice: Voice, step: int) -> State:
        self._tools.stop.check()
        labels = sorted(self._tools.options.labels.items())
        total, planned = self._plan.steps + len(labels), step >= 0

        def announce(instruction: Instruction) -> None:
            nonlocal step
            step += 1
            number = step if planned else "+"
            voice.tell(f"Step {number}/{total} : {instruction.text}\n", hold=True)

        def source(name: str) -> Image:
            return self._source(name, voice, stage)

        announce(stage.origin)
        image: Image | None = None
        if stage.parent is not None:
            image = self._state(stage.parent, voice).image
        elif stage.base != "scratch":
            with errors_of(stage.origin):
                wanted = stage.platform or self._tools.options.platform
                image = self._base(stage.base, wanted, voice)
        state = State.of(
            image, self._tools.images.get, self._plan.globals, self._tools.options.arguments,
            self._escape,
        )  # fmt: skip
        state.platform = stage.platform or self._tools.options.platform
        voice.tell(f" ---> {state.identity[7:19]}\n", hold=True)
        steps = Steps(
            self._tools, stage, voice, announce, source,
            lambda name: self._plan.find(name) is not None,
        )  # fmt: skip
        steps.run(state)
        if stage is self._plan.stages[-1]:
            self.base = image
            for name, value in labels:
                steps.label(state, name, value)
        return state

    def _state(self, index: int, voice: Voice) -> State:
        """What a stage has come to. One that nobody saw to be needed, since only a trigger of a
        base image asks for it, is built now."""
        with self._extra:
            known = self._built.get(index)
            done = known or self._built.setdefault(index, Future())
        if known is None:
            try:
                done.set_result(self._stage(self._plan.every[index], voice, -1))
            except BaseException:
                done.set_exception(Cancelled("a stage that this one needs has failed"))
                raise
        return done.result()

    def _source(self, name: str, voice: Voice, asking: Stage) -> Image:
        stage = self._plan.find(name)
        if stage is None and name.isdigit():
            raise Invalid(f"invalid from flag value {name}: there is no such stage")
        if stage is None:
            return self._base(name, self._tools.options.platform, voice)
        if stage.index >= asking.index:
            raise Invalid(f'circular dependency: stage "{name}" comes later')
        image = self._state(stage.index, voice).image
        if image is None:
            raise Invalid(f"the stage {name} holds nothing")
        return image

    def _base(self, name: str, platform: str, voice: Voice) -> Image:
        """An image from outside; one build asks for each but once."""
        with self._bases:
            if known := self._base_images.get((name, platform)):
                return known
            image = self._fetched(name, platform, voice)
            self._base_images[name, platform] = image
        self._tools.hold(image.id)
        return image

    def _fetched(self, name: str, platform: str, voice: Voice) -> Image:
        images = self._tools.images
        wanted = platforms.parse(platform) if platform else None
        if not self._tools.options.pull:
            try:
                image = images.get(name)
            except NotFound:
                pass
            else:
                if wanted is None or wanted.accepts(*image.platform):
                    return image
        self._pull(name, platform, voice.emit)
        image = images.get(name)
        if wanted is not None and not wanted.accepts(*image.platform):
            raise NotFound(
                f"image with reference {name} was found but does not match the specified "
                f"platform: wanted {wanted}, actual: {'/'.join(filter(None, image.platform))}"
            )
        return image
