"""What of a Dockerfile can be seen to be wrong before its first step has run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lading.build.instruction import check_copying
from lading.build.planner import Stage
from lading.build.run_mounts import mounts_of
from lading.build.steps import errors_of
from lading.images.changes import Change, exec_form
from lading.model.dockerfile import Instruction

#: Instructions without variables: they mean the same wherever they stand.
_FIXED = ("CMD", "ENTRYPOINT", "HEALTHCHECK", "ONBUILD", "SHELL")


def check(stages: Iterable[Stage], escape: str, check_run: Callable[[Instruction], None]) -> None:
    """Raise Invalid for an instruction that cannot be carried out, whatever its variables are.

    Nobody shall wait for the steps before it to hear of a typo. ``check_run`` checks the flags of a
    RUN, and raises Denied for those that are not allowed.
    """
    for stage in stages:
        for instruction in stage.instructions:
            with errors_of(instruction):
                _check(instruction, escape, check_run)


def _check(instruction: Instruction, escape: str, check_run: Callable[[Instruction], None]) -> None:
    name, rest = instruction.name, instruction.rest
    if name == "RUN":
        check_run(instruction)
        exec_form(rest)
        if not any(flag == "mount" and "$" in value for flag, value in instruction.flags):
            mounts_of(instruction, str, "/")
    elif name in ("ADD", "COPY"):
        check_copying(instruction, escape)
    elif name in _FIXED or (name in ("ENV", "LABEL") and "$" not in rest):
        Change({}, escape=escape).apply(name, rest)
