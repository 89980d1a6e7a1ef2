"""Which stages of a Dockerfile a build needs, in which order."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lading.errors import Invalid
from lading.model import platforms
from lading.model.dockerfile import Dockerfile, Instruction
from lading.model.substitution import split_words, substitute

#: What may be given as a build argument without an ARG.
PREDEFINED = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
EPOCH = "SOURCE_DATE_EPOCH"

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. ``base`` is an image, or with ``parent`` the index of an earlier stage."""

    index: int
    name: str
    base: str
    parent: int | None
    platform: str
    origin: Instruction
    instructions: Sequence[Instruction]


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages to build, the wanted one last; ``globals`` are the ARGs before any stage."""

    stages: Sequence[Stage]
    every: Sequence[Stage]
    globals: Mapping[str, str]

    @property
    def steps(self) -> int:
        """How many steps are shown."""
        return sum(1 + len(stage.instructions) for stage in self.stages)

    def find(self, name: str) -> Stage | None:
        """A stage by name or number."""
        return _find(self.every, name)


def plan(
    file: Dockerfile, arguments: Mapping[str, str | None], target: str = "", platform: str = ""
) -> Plan:
    """Split a file into stages and choose those that ``target`` (the last one) needs.

    Raises Invalid for instructions in the wrong place and an unknown target.
    """
    values = platform_arguments(platform)
    stages: list[Stage] = []
    begun: tuple[Instruction, list[Instruction]] | None = None
    for instruction in file.instructions:
        if instruction.name == "FROM":
            if begun is not None:
                stages.append(_stage(*begun, stages, values, file.escape))
            begun = instruction, []
        elif begun is not None:
            begun[1].append(instruction)
        elif instruction.name == "ARG":
            values |= global_arguments(instruction, values, arguments, file.escape)
        else:
            raise instruction.wrong(
                f"no build stage in current context: {instruction.name} comes before the first FROM"
            )
    if begun is None:
        raise Invalid("the Dockerfile has no FROM")
    stages.append(_stage(*begun, stages, values, file.escape))
    wanted = stages[-1]
    if target:
        found = _find(stages, target)
        if found is None:
            raise Invalid(f"failed to reach build target {target} in Dockerfile")
        wanted = found
    return Plan(_needed(stages, wanted), stages, values)


def global_arguments(
    instruction: Instruction,
    values: Mapping[str, str],
    arguments: Mapping[str, str | None],
    escape: str,
) -> dict[str, str]:
    """What an ARG before the first FROM declares."""
    found: dict[str, str] = {}
    for word in split_words(instruction.rest, escape):
        name, equals, default = word.partition("=")
        given = arguments.get(name)
        if given is not None:
            found[name] = given
        elif equals:
            found[name] = substitute(default, {**values, **found}, escape=escape)
    return found


def platform_arguments(platform: str = "") -> dict[str, str]:
    """What every FROM and ARG knows of the platforms: this host's, and the image's."""
    here, wanted = platforms.parse(""), platforms.parse(platform)
    found: dict[str, str] = {}
    for prefix, one in (("BUILD", here), ("TARGET", wanted)):
        found |= {
            f"{prefix}PLATFORM": str(one),
            f"{prefix}OS": one.system,
            f"{prefix}ARCH": one.architecture,
            f"{prefix}VARIANT": one.variant,
        }
    return found


def undeclared(file: Dockerfile, arguments: Mapping[str, str | None]) -> list[str]:
    """The build arguments that no ARG of a file asks for, sorted."""
    declared = set(PREDEFINED) | {name.lower() for name in PREDEFINED} | {EPOCH}
    for instruction in file.instructions:
        if instruction.name == "ARG":
            words = split_words(instruction.rest, file.escape)
            declared |= {word.partition("=")[0] for word in words}
    return sorted(set(arguments) - declared)


def _stage(
    origin: Instruction,
    instructions: list[Instruction],
    earlier: Sequence[Stage],
    values: Mapping[str, str],
    escape: str,
) -> Stage:
    words = origin.rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise origin.wrong("FROM requires either one or three arguments: FROM image AS name")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise origin.wrong(f'invalid name for build stage: "{words[2]}"')
    for flag, _ in origin.flags:
        if flag != "platform":
            raise origin.wrong(f"unknown flag: --{flag} (FROM has only --platform)")
    try:
        base = substitute(words[0], values, escape=escape)
        platform = substitute(origin.flag("platform"), values, escape=escape)
        platforms.parse(platform)
    except Invalid as error:
        raise origin.wrong(str(error)) from error
    if not base:
        raise origin.wrong(f"base name ({words[0]}) should not be blank", words[0])
    parent = next((s.index for s in reversed(earlier) if s.name and s.name == base.lower()), None)
    return Stage(len(earlier), name, base, parent, platform, origin, tuple(instructions))


def _find(stages: Sequence[Stage], name: str) -> Stage | None:
    for stage in reversed(stages):
        if stage.name and stage.name == name.lower():
            return stage
    return stages[int(name)] if name.isdigit() and int(name) < len(stages) else None


def sources(stage: Stage) -> list[tuple[Instruction, str]]:
    """The names from which a stage's instructions take files."""
    found = []
    for instruction in stage.instructions:
        for flag, value in instruction.flags:
            if flag == "from":
                found.append((instruction, value))
            elif flag == "mount":
                source = mount_fields(value).get("from")
                if source:
                    found.append((instruction, source))
    return found


class ContextUses:
    """What of a plan has yet to look into the context; thread safe.

    A stage counts until it has run the triggers of its base image, of which nobody knows before.
    """

    def __init__(self, plan: Plan) -> None:
        self._left: set[int] = {id(stage) for stage in plan.stages}
        for stage in plan.stages:
            self._left |= {id(one) for one in stage.instructions if _uses_context(one)}

    def done(self, what: Stage | Instruction) -> None:
        """It will not look there again."""
        self._left.discard(id(what))

    def is_last(self, instruction: Instruction) -> bool:
        """Whether nothing else has to."""
        return self._left == {id(instruction)}


def _uses_context(instruction: Instruction) -> bool:
    flags = {flag for flag, _ in instruction.flags}
    if instruction.name == "RUN":
        return "mount" in flags
    return instruction.name in ("COPY", "ADD") and "from" not in flags


def mount_fields(text: str) -> dict[str, str]:
    """The fields of ``--mount``, a line of CSV; "true" for one without a value. Raises Invalid."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise Invalid(f"--mount={text}: {error}") from error
    found = {}
    for field in rows[0] if rows else []:
        name, equals, value = field.partition("=")
        found[name.strip().lower()] = value if equals else "true"
    return found


def _needed(stages: Sequence[Stage], wanted: Stage) -> list[Stage]:
    needed, todo = {wanted.index}, [wanted]
    while todo:
        stage = todo.pop()
        others = [stages[stage.parent]] if stage.parent is not None else []
        for instruction, name in sources(stage):
            found = _find(stages, name)
            if "$" in name:
                raise instruction.wrong(
                    f"variable expansion is not supported for from={name}: "
                    "name a stage of its own, FROM with an ARG from above all stages",
                    name,
                )
            if found is not None and found.index >= stage.index:
                if name.isdigit() or found.index == stage.index:
                    raise instruction.wrong(
                        f"invalid from flag value {name}: a stage can only take from earlier ones",
                        name,
                    )
                raise instruction.wrong(f'circular dependency: stage "{name}" comes later')
            if found is not None:
                others.append(found)
        for other in others:
            if other.index not in needed:
                needed.add(other.index)
                todo.append(other)
    return [stage for stage in stages if stage.index in needed]
