"""Errors that cross a process border keep their kind, message and number."""

from __future__ import annotations

import errno

import pytest

from lading.errors import (
    Conflict,
    InUse,
    Invalid,
    LadingError,
    NotFound,
    StartFailed,
    from_wire,
    to_wire,
)


class OfOneModule(Invalid):
    """A subclass with a signature of its own, and the kind of its base."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")


@pytest.mark.parametrize("cls", [LadingError, NotFound, Conflict, InUse, Invalid])
def test_the_kind_is_kept_whoever_subclasses_it(cls: type[LadingError]) -> None:
    back = from_wire(to_wire(cls("what went wrong", hint="what helps")))
    assert type(back) is cls
    assert str(back) == "what went wrong (what helps)"


def test_a_subclass_without_a_kind_arrives_as_its_base() -> None:
    back = from_wire(to_wire(OfOneModule(3, "bad")))
    assert (type(back), str(back)) == (Invalid, "line 3: bad")


def test_numbers_are_kept() -> None:
    failed = from_wire(to_wire(StartFailed("exec: not found", errno=errno.ENOENT)))
    assert isinstance(failed, StartFailed)
    assert failed.errno == errno.ENOENT
    system = from_wire(to_wire(FileNotFoundError(errno.ENOENT, "No such file", "/x")))
    assert isinstance(system, FileNotFoundError)
    assert "/x" in str(system)
