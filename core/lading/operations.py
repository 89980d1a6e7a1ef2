"""Which operation the code at hand works for: an API request, or what the daemon does by itself.

An operation's id travels in a context variable: with the thread that answers the request, into the
threads that it starts (:func:`carried`), and, by the messages to spawner and monitor, into the
processes in which isolation hooks run. Extensions are told of begin and end; what wraps a backend's
hooks asks :func:`current` for whom it is called. Without extensions there are no operations.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from lading.hooks.extension import Operation

Result = TypeVar("Result")

log = logging.getLogger(__name__)

_current: ContextVar[str] = ContextVar("lading_operation", default="")


def current() -> str:
    """The id of the operation that this thread works for; empty when for none."""
    return _current.get()


@contextmanager
def within(operation_id: str) -> Iterator[None]:
    """Work for an operation that was begun elsewhere."""
    token = _current.set(operation_id)
    try:
        yield
    finally:
        _current.reset(token)


def carried(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function for another thread, where it works for the same operation. For one call."""
    return partial(copy_context().run, function) if current() else function


class Running:
    """An operation that has begun."""

    def __init__(self, operation: Operation, tell: Callable[[str, Mapping[str, Any]], None]):
        self.id = operation.id
        self._operation = operation
        self._tell = tell
        self._ended = False

    @contextmanager
    def part(self) -> Iterator[None]:
        """Work for it in this thread for a while; an exception ends it."""
        try:
            with within(self.id):
                yield
        except BaseException as error:
            self.end(str(error) or type(error).__name__)
            raise

    def end(self, error: str = "") -> None:
        """Tell that it is over; only the first call counts."""
        if not self._ended:
            self._ended = True
            self._tell("operation_ended", {"operation": self._operation, "error": error})


class Operations:
    """Begins operations and tells the extensions; false when there are none to be told."""

    def __init__(self, watchers: Sequence[Any] = ()) -> None:
        self._watchers = watchers

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def begin(self, name: str, attributes: Mapping[str, str], parent: str = "") -> Running:
        """Begin one; the caller sees to its end."""
        operation = Operation(os.urandom(16).hex(), name, time.time_ns(), attributes, parent)
        self._tell("operation_began", {"operation": operation})
        return Running(operation, self._tell)

    @contextmanager
    def of(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """One that begins and ends with the block; inside another one it is a part of that."""
        if not self or current():
            yield
            return
        running = self.begin(name, attributes)
        with running.part():
            yield
        running.end()

    def _tell(self, hook: str, arguments: Mapping[str, Any]) -> None:
        for watcher in self._watchers:
            try:
                getattr(watcher, hook)(**arguments)
            except Exception:
                log.exception("an extension failed in %s", hook)
