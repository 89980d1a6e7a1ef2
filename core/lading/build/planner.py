"""Which stages of a Dockerfile a build needs, in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lading.build.parser import Dockerfile, Instruction
from lading.build.substitution import substitute
from lading.errors import Invalid

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


def plan(file: Dockerfile, arguments: Mapping[str, str | None], target: str = "") -> Plan:
    """Split a file into stages and choose those that ``target`` (the last one) needs.

    Raises Invalid for instructions in the wrong place and an unknown target.
    """
    values: dict[str, str] = {}
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
            raise Invalid(
                f"line {instruction.line}: no build stage in current context: "
                f"{instruction.name} comes before the first FROM"
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
    for word in instruction.rest.split():
        name, equals, default = word.partition("=")
        given = arguments.get(name)
        if given is not None:
            found[name] = given
        elif equals:
            found[name] = substitute(default, {**values, **found}, escape=escape)
    return found


def _stage(
    origin: Instruction,
    instructions: list[Instruction],
    earlier: Sequence[Stage],
    values: Mapping[str, str],
    escape: str,
) -> Stage:
    where = f"line {origin.line}"
    words = origin.rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise Invalid(f"{where}: FROM requires either one or three arguments: FROM image AS name")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise Invalid(f'{where}: invalid name for build stage: "{name}"')
    for flag, _ in origin.flags:
        if flag != "platform":
            raise Invalid(f"{where}: unknown flag: --{flag}", hint="FROM has only --platform")
    base = substitute(words[0], values, escape=escape)
    if not base:
        raise Invalid(f"{where}: base name ({words[0]}) should not be blank")
    parent = next((s.index for s in reversed(earlier) if s.name and s.name == base.lower()), None)
    platform = substitute(origin.flag("platform"), values, escape=escape)
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
                fields = dict(part.partition("=")[::2] for part in value.split(","))
                if "from" in fields:
                    found.append((instruction, fields["from"]))
    return found


def _needed(stages: Sequence[Stage], wanted: Stage) -> list[Stage]:
    needed, todo = {wanted.index}, [wanted]
    while todo:
        stage = todo.pop()
        others = [stages[stage.parent]] if stage.parent is not None else []
        for instruction, name in sources(stage):
            found = _find(stages, name)
            if found is not None and found.index >= stage.index:
                if name.isdigit() or found.index == stage.index:
                    raise Invalid(
                        f"line {instruction.line}: invalid from flag value {name}: "
                        "a stage can only take from earlier ones"
                    )
                raise Invalid(
                    f'line {instruction.line}: circular dependency: stage "{name}" comes later'
                )
            if found is not None:
                others.append(found)
        for other in others:
            if other.index not in needed:
                needed.add(other.index)
                todo.append(other)
    return [stage for stage in stages if stage.index in needed]
