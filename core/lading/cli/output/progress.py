"""The stream of progress messages of pull, push, load, import and build.

On a terminal each id has a line of its own that is redrawn; elsewhere only what changes the state
is printed, a line each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from lading.cli.errors import Failure
from lading.cli.output.units import human_size

DEFAULT_WIDTH = 200
BAR_NARROW = 110


class Progress:
    """Shows messages on a stream."""

    def __init__(self, out: TextIO, *, terminal: bool | None = None, width: int = 0) -> None:
        self._out = out
        self._terminal = out.isatty() if terminal is None else terminal
        self._width = width or (_columns() if self._terminal else 0) or DEFAULT_WIDTH
        self._lines: dict[str, int] = {}

    def show(
        self, messages: Iterable[dict[str, Any]], *, aux: Callable[[Any], None] | None = None
    ) -> None:
        """Show all messages; ``aux`` gets the results among them. Raises Failure for an error."""
        for message in messages:
            if message.get("aux") is not None:
                if aux is not None:
                    aux(message["aux"])
                continue
            self._show(message)
        self._out.flush()

    def _show(self, message: dict[str, Any]) -> None:
        if message.get("error") or message.get("errorDetail"):
            self._out.flush()
            detail = message.get("errorDetail") or {}
            raise Failure(detail.get("message") or message["error"], code=detail.get("code") or 1)
        identity = message.get("id", "")
        progress = self._bar(message)
        if identity and (progress or "progressDetail" in message):
            self._show_at(identity, message, progress)
        else:
            # Lines that come after belong below all that was drawn.
            self._lines.clear()
            self._write(message, progress)
        self._out.flush()

    def _show_at(self, identity: str, message: dict[str, Any], progress: str) -> None:
        if not self._terminal:
            self._write(message, progress)
            return
        if identity not in self._lines:
            self._lines[identity] = len(self._lines)
            self._out.write("\n")
        up = len(self._lines) - self._lines[identity]
        self._out.write(f"\x1b[{up}A" if up else "")
        self._write(message, progress)
        self._out.write(f"\x1b[{up}B" if up else "")

    def _write(self, message: dict[str, Any], progress: str) -> None:
        if message.get("stream") is not None:
            self._out.write(message["stream"])
            return
        end = "\n"
        if self._terminal and progress:
            self._out.write("\x1b[2K\r")
            end = "\r"
        elif progress:
            return  # bars mean nothing in a file
        elif self._terminal and message.get("id") in self._lines:
            self._out.write("\x1b[2K\r")
            end = "\r"
        stamp = _stamp(message)
        head = f"{message['id']}: " if message.get("id") else ""
        sender = f"(from {message['from']}) " if message.get("from") else ""
        text = (
            f"{message.get('status', '')} {progress}".rstrip(" ")
            if progress
            else message.get("status", "")
        )
        self._out.write(f"{stamp}{head}{sender}{text}{end}")

    def _bar(self, message: dict[str, Any]) -> str:
        detail = message.get("progressDetail") or {}
        current, total = detail.get("current") or 0, detail.get("total") or 0
        if current <= 0 and total <= 0:
            return str(message.get("progress", "")) if not detail else ""
        if detail.get("units"):
            return (
                f"{current}/{total} {detail['units']}" if total else f"{current} {detail['units']}"
            )
        done = human_size(current)
        if total <= 0:
            return f"{done:>8}"
        percent = min(int(current / total * 100) // 2, 50)
        bar = ""
        if self._width > BAR_NARROW:
            bar = (
                f"[{'=' * percent}>{' ' * (50 - percent)}] " if percent < 50 else f"[{'=' * 50}>] "
            )
        return f"{bar}{done:>8}/{human_size(total)}" + self._left(detail)

    def _left(self, detail: dict[str, Any]) -> str:
        start, current, total = detail.get("start"), detail["current"], detail["total"]
        if not start or current >= total or self._width <= 50:
            return ""
        spent = time.time() - start
        return f" {_clock(spent / current * (total - current))}" if current else ""


def _clock(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m{rest}s"


def _stamp(message: dict[str, Any]) -> str:
    seconds = message.get("time")
    if not seconds:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z ", time.localtime(seconds))


def _columns() -> int:
    from lading.cli.streams.terminal import window_size  # late: only a terminal has a size

    size = window_size()
    return size[1] if size else 0


def drain(messages: Iterable[dict[str, Any]]) -> None:
    """Read messages without showing them; raises Failure for an error among them."""
    Progress(_Nowhere(sys.stdout), terminal=False).show(messages)  # type: ignore[arg-type]


class _Nowhere:
    """A text stream that shows nothing."""

    def __init__(self, like: TextIO) -> None:
        self.encoding = like.encoding

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None
