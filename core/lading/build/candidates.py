"""``--cache-from``: images, pulled perhaps, whose history shows what a step has led to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lading.build.state import State
from lading.errors import LadingError
from lading.images import Image, Images, NewLayer
from lading.images.making import Making


class Candidates:
    """The images of one build; what is not here is passed over, as in Docker."""

    def __init__(
        self, images: Images, making: Making, names: Sequence[str], *, own: bool = True
    ) -> None:
        self._making, self._own = making, own or not names
        self._images: list[Image] = []
        self._steps: set[str] = set()
        for name in names:
            try:
                at = images.get(name)
                self._images.append(at)
                self._steps.add(at.id)
                while at.parent and not self._own:
                    at = images.get(at.parent)
                    self._steps.add(at.id)
            except LadingError:
                continue

    def admits(self, image: str) -> bool:
        """Whether a step may be taken from the engine's own cache: with ``own`` any, else what a
        candidate was made of."""
        return self._own or image in self._steps

    def after(self, state: State, created_by: str) -> str:
        """The image that a step leads to, by the first candidate that has it; "" for none.

        A candidate has it when it stands on the same layers with the same history, and its next
        line of history is the step's.
        """
        parent = state.image if self._images else None
        for candidate in self._images:
            if state.identity and parent is None:
                return ""
            if found := self._in(candidate, parent, state, created_by):
                return found
        return ""

    def _in(self, candidate: Image, parent: Image | None, state: State, created_by: str) -> str:
        document: dict[str, Any] = msgspec.json.decode(candidate.config_bytes)
        history = document.get("history") or []
        known = parent.config.history if parent else ()
        layers = parent.layers if parent else ()
        if len(history) <= len(known) or len(candidate.layers) < len(layers):
            return ""
        lines = zip(history, known, strict=False)
        if any(a.get("created_by", "") != b.created_by for a, b in lines):
            return ""
        if any(a.diff_id != b.diff_id for a, b in zip(candidate.layers, layers, strict=False)):
            return ""
        line = history[len(known)]
        if line.get("created_by") != created_by:
            return ""
        settings = {k: v for k, v in (document.get("config") or {}).items() if k != "Image"}
        if len(history) == len(known) + 1 and settings == state.settings:
            # The candidate itself, with all that its own build has said.
            return candidate.id
        layer = None
        if not line.get("empty_layer"):
            if len(candidate.layers) <= len(layers):
                return ""
            top = candidate.layers[len(layers)]
            layer = NewLayer(top.diff_id, top.digest, top.media_type, top.size, top.length)
        return self._making.derived(
            parent, state.with_parent(), layer,
            created_by=created_by, author=line.get("author", ""),
            comment=line.get("comment", ""), created=line.get("created", ""),
        )  # fmt: skip
