"""Operations as a picture: a bar for each call, along the time.

Written as SVG by hand: it is rectangles and lines of text, for which a plotting library would be a
hundred times the code to install.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LABELS, ROW, TOP, MARGIN = 1100, 330, 20, 34, 10
#: Colours that stay apart for the colour-blind (Okabe and Ito).
COLOURS = {
    "isolation": "#0072b2",
    "filesystem": "#009e73",
    "network": "#e69f00",
    "registry": "#cc79a7",
}
ERROR = "#d55e00"
_TICKS = 8


def milliseconds(nanoseconds: int) -> str:
    """A duration as people read it."""
    value = nanoseconds / 1e6
    return f"{value:.3f} ms" if value < 10 else f"{value:.1f} ms"


def label(span: Mapping[str, Any]) -> str:
    """What a call is, in one line."""
    return f"{span['role']}.{span['hook']} ({span['backend']})"


def title(operation: Mapping[str, Any]) -> str:
    """What an operation is, ids shortened as in other lists."""
    return re.sub("([0-9a-f]{12})[0-9a-f]{52}", r"\1", operation["name"])


def drawn(operations: Sequence[Mapping[str, Any]]) -> str:
    """The operations as SVG, on one axis of time."""
    begin = min(op["began"] for op in operations)
    end = max(max(x["began"] + x["took"] for x in (op, *op["spans"])) for op in operations)
    span = max(end - begin, 1)
    rows = sum(1 + len(op["spans"]) for op in operations)
    height = TOP + rows * ROW + 2 * MARGIN + ROW
    scale = (WIDTH - LABELS - 110) / span
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *_axis(span, scale, height),
    ]
    y = TOP
    for operation in operations:
        parts += _bar(operation, title(operation), "#444444", begin, scale, y)
        y += ROW
        for call in operation["spans"]:
            colour = ERROR if call["error"] else COLOURS.get(call["role"], "#999999")
            parts += _bar(call, label(call), colour, begin, scale, y)
            y += ROW
    parts += _legend(height)
    return "\n".join([*parts, "</svg>", ""])


def _axis(span: int, scale: float, height: int) -> Iterator[str]:
    step = _round_up(span / _TICKS)
    at = 0
    while at <= span:
        x = LABELS + at * scale
        yield (
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - ROW - MARGIN}" '
            'stroke="#dddddd"/>'
        )
        yield f'<text x="{x:.1f}" y="{TOP - 14}" text-anchor="middle">{at / 1e6:g} ms</text>'
        at += step


def _round_up(step: float) -> int:
    """1, 2 or 5 times a power of ten, not below ``step``."""
    power = 1
    while power * 10 < step:
        power *= 10
    return next((power * n for n in (1, 2, 5, 10) if power * n >= step), power * 10)


def _bar(
    item: Mapping[str, Any], text: str, colour: str, begin: int, scale: float, y: int
) -> Iterator[str]:
    x = LABELS + (item["began"] - begin) * scale
    width = max(item["took"] * scale, 1.0)
    took = milliseconds(item["took"])
    about = ", ".join(f"{k}={v}" for k, v in item["attributes"].items())
    hint = "\n".join(filter(None, (f"{text}: {took}", about, item["error"])))
    shown = text if len(text) <= 48 else text[:47] + "…"
    yield f"<g><title>{escape(hint)}</title>"
    yield f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(shown)}</text>'
    yield f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>'
    yield f'<text x="{x + width + 4:.1f}" y="{y + 13}" fill="#555555">{took}</text></g>'


def _legend(height: int) -> Iterator[str]:
    x = LABELS
    y = height - MARGIN
    for name, colour in {**COLOURS, "failed": ERROR}.items():
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 17}" y="{y}">{name}</text>'
        x += 110
