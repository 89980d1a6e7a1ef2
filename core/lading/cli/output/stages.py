"""A build on a terminal: a line for each step, with its time, and below those that run what they
write at the moment.

The daemon marks what it tells with the stage. Steps that are done are written once, in the order in
which they end; the rest is drawn again a few times a second. When a step fails, all that it wrote
(as far as it is kept) follows.
"""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TextIO

from lading.cli.streams.terminal import window_size

EVERY_SECONDS = 0.15
#: Lines of a running step that are shown, and those that are kept for its failure.
SHOWN, KEPT = 6, 2000
_WIDTH = (24, 80)
_BEGIN = re.compile(r"Step (\d+|\+)/(\d+) : (.*)", re.DOTALL)
_DONE = re.compile(r" ---> (?:[0-9a-f]{12})?")
_NOISE = re.compile(r" ---> Running in [0-9a-f]{12}|Removing intermediate container [0-9a-f]{12}")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clipped(text: str, columns: int, *, pad: bool = False) -> str:
    """As much of a text as fits into so many columns of a terminal, filled up with ``pad``."""
    used, end = 0, len(text)
    for at, char in enumerate(text):
        wide = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        wide = 0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else wide
        if used + wide > columns:
            end = at
            break
        used += wide
    return text[:end] + " " * (columns - used if pad else 0)


class _Step:
    def __init__(self, stage: str, number: str, text: str) -> None:
        self.stage, self.number, self.text = stage, number, text
        self.begun = time.monotonic()
        self.cached = False
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.unfinished = ""

    def title(self, width: int) -> str:
        """The step with what it took, in one line."""
        took = "CACHED" if self.cached else f"{time.monotonic() - self.begun:.1f}s"
        head = f"[{self.stage} {self.number}] " if self.number else f"[{self.stage}] "
        room = max(width - len(took) - 6, 10)
        return clipped(f" => {clipped(head + _plain(self.text), room, pad=True)} {took}", width - 1)

    def add(self, text: str) -> None:
        """Output; a carriage return begins a line anew, as on a terminal."""
        *lines, self.unfinished = (self.unfinished + text.replace("\r\n", "\n")).split("\n")
        self.lines.extend(_plain(line) for line in lines)

    def last(self) -> list[str]:
        """The last lines."""
        rest = [_plain(self.unfinished)] if self.unfinished else []
        return [*list(self.lines)[-SHOWN + len(rest) :], *rest]


def _plain(line: str) -> str:
    return _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2].expandtabs())


class Display:
    """Shows one build; a context manager that clears what is drawn at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._running: dict[str, _Step] = {}
        self._drawn = 0
        self._paused = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="display", daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._clear()
            for step in self._running.values():
                self._out.write(f"{step.title(self._width())}\n")
                if isinstance(error, Exception):
                    # Of those that ran, one has failed.
                    rest = [_plain(step.unfinished)] if step.unfinished else []
                    self._out.writelines(f"    {line}\n" for line in [*step.lines, *rest])
            self._out.flush()

    def taken(self, messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Show what stages tell; the other messages pass."""
        for message in messages:
            stage = message.get("stage")
            if stage is None or "stream" not in message:
                with self._lock:
                    self._clear()
                    self._paused = True
                yield message
                with self._lock:
                    self._paused = False
                continue
            with self._lock:
                self._told(str(stage), str(message["stream"]))

    def _told(self, stage: str, text: str) -> None:
        step = self._running.get(stage)
        begin = _BEGIN.fullmatch(text.rstrip("\n"))
        if begin is not None:
            self._end(stage)
            self._running[stage] = _Step(stage, f"{begin[1]}/{begin[2]}", begin[3])
        elif step is None:
            self._clear()
            self._out.write(text)
        elif text == " ---> Using cache\n":
            step.cached = True
        elif _DONE.fullmatch(text.rstrip("\n")) and not step.unfinished:
            self._end(stage)
        elif not _NOISE.fullmatch(text.rstrip("\n")):
            step.add(text)

    def _end(self, stage: str) -> None:
        step = self._running.pop(stage, None)
        if step is not None:
            self._clear()
            self._out.write(f"{step.title(self._width())}\n")
            self._out.flush()

    # -- drawing

    def _tick(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            with self._lock:
                if not self._paused:
                    self._draw()

    def _draw(self) -> None:
        rows, width = window_size() or _WIDTH
        lines: list[str] = []
        for step in self._running.values():
            lines.append(step.title(width))
            lines += [clipped(f" => => {line}", width - 1) for line in step.last()]
        # What does not fit cannot be taken back.
        lines = lines[: max(rows - 1, 1)]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{line}\n" for line in lines)
        self._out.write(f"{up}\r{body}\x1b[J")
        self._drawn = len(lines)
        self._out.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._drawn = 0

    def _width(self) -> int:
        return (window_size() or _WIDTH)[1]
