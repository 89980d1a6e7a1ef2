"""What a build tells, in the order of its stages, whichever of them runs at the moment.

The first stage that has not ended speaks directly; what others say meanwhile is kept until it is
their turn. So a client sees the same text as if the stages had run one after the other. With
prefixes each line is told at once, marked with its stage.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Tells messages, all at once.
Emit = Callable[..., None]
Message = Mapping[str, Any]

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
CANCELLED = " ---> Cancelled: another stage has failed\n"
#: So many messages of a stage that waits for its turn are kept; the oldest go first.
MOST_KEPT = 20_000


class Output:
    """The output of one build; ``emit`` None tells nothing. Thread safe.

    ``marked``: the prefixes go into messages of their own, for clients that show stages.
    ``coloured``: what commands write to their standard error is red, as of dockerd.
    """

    def __init__(
        self,
        emit: Emit | None,
        prefixes: Sequence[str] = (),
        *,
        marked: bool = False,
        coloured: bool = False,
    ) -> None:
        self._emit, self._prefixes = emit, prefixes
        self.marked, self.coloured = marked, coloured
        self._lock = threading.Lock()
        self._voices: list[Voice] = []

    def voice(self) -> Voice:
        """The next stage's."""
        prefix = self._prefixes[len(self._voices)] if self._prefixes else ""
        voice = Voice(self, prefix)
        self._voices.append(voice)
        return voice

    def say(self, voice: Voice, messages: Sequence[Message], *, hold: bool) -> None:
        """Tell something now, or when it is the voice's turn; ``hold``: with what follows."""
        if self._emit is None:
            return
        with self._lock:
            # What only waits for another stage has nothing to tell.
            voice.begun = voice.begun or not hold
            voice.kept.extend(messages)
            if not hold and (self._prefixes or self._turn() is voice):
                self._flush(voice)

    def end(self, voice: Voice) -> None:
        """Its stage has ended: the next ones have their turn."""
        with self._lock:
            voice.ended = True
            for other in self._voices:
                self._flush(other)
                if not other.ended:
                    return

    def fail(self, voice: Voice) -> None:
        """Its stage has failed: what all have said is told, its own last, before they keep silent.

        A stage that is cut short by that says so.
        """
        with self._lock:
            for other in self._voices:
                if other is not voice and not other.ended and other.begun:
                    other.kept.append(other.message(CANCELLED))
                    self._flush(other)
            self._flush(voice)
            self._emit = None

    def _turn(self) -> Voice | None:
        return next((voice for voice in self._voices if not voice.ended), None)

    def _flush(self, voice: Voice) -> None:
        if voice.kept and self._emit is not None:
            messages = list(voice.kept)
            voice.kept.clear()
            self._emit(*messages)


class Voice:
    """What one stage tells."""

    def __init__(self, output: Output, prefix: str) -> None:
        self._output, self._prefix = output, prefix
        self._line = ""
        self.kept: deque[Message] = deque(maxlen=MOST_KEPT)
        self.begun = self.ended = False

    def tell(self, text: str, *, hold: bool = False) -> None:
        """Some text; ``hold``: together with the next."""
        if self._prefix and not self._output.marked:
            # A line is marked when it is whole.
            whole, newline, self._line = (self._line + text).rpartition("\n")
            text = whole + newline
        if text:
            # What is marked goes at once, since the client takes the times.
            self.emit(self.message(text), hold=hold and not self._output.marked)

    def message(self, text: str) -> Message:
        """Some text, whole lines where they are marked, as a message."""
        if self._prefix and self._output.marked:
            return {"stream": text, "stage": self._prefix}
        if self._prefix:
            text = "".join(f"[{self._prefix}] {line}\n" for line in text[:-1].split("\n"))
        return {"stream": text}

    def tell_error(self, text: str) -> None:
        """What a command has written to its standard error."""
        self.tell(f"{_RED}{text}{_PLAIN}" if self._output.coloured else text)

    def emit(self, message: Message, *, hold: bool = False) -> None:
        """A message of another kind, such as the progress of a pull."""
        self._output.say(self, [message], hold=hold)

    def end(self) -> None:
        """The stage has ended."""
        self._rest()
        self._output.end(self)

    def fail(self) -> None:
        """The stage has failed."""
        self._rest()
        self._output.fail(self)

    def _rest(self) -> None:
        if self._line:
            self.tell("\n")
