"""Lists of objects: as a table, by a Go template, as JSON lines, or ids only.

A command describes its objects once, as a :class:`Columns`: a function for each field that a
template may name, with the heading of its column. Everything else is the same for all lists.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lading.cli.errors import Failure

MINIMUM_WIDTH = 10
PADDING = 3

#: What a field is worked out from (the API's object), and how.
Compute = Callable[[Any], Any]


class Columns:
    """The fields of one kind of object.

    ``fields`` maps a field to its heading and function; ``methods`` are fields that take
    arguments (``.Label "x"``) and thus are in no JSON.
    """

    def __init__(
        self,
        name: str,
        fields: Mapping[str, tuple[str, Compute]],
        methods: Mapping[str, tuple[str, Compute]] | None = None,
    ) -> None:
        self.name = name
        self.fields = fields
        self.methods = methods or {}

    def row(self, data: Any) -> Row:
        """One object as a template sees it."""
        return Row(self, data)


class Row:
    """An object whose fields are worked out when they are asked for."""

    def __init__(self, columns: Columns, data: Any) -> None:
        self._columns = columns
        self._data = data

    @property
    def kind(self) -> str:
        """Its type, for messages."""
        return f"*formatter.{self._columns.name}"

    def field(self, name: str) -> Any:
        """The field's value; raises KeyError."""
        found = self._columns.fields.get(name) or self._columns.methods[name]
        return found[1](self._data)

    def plain(self) -> dict[str, Any]:
        """All fields, for JSON."""
        fields = self._columns.fields
        return {name: fields[name][1](self._data) for name in sorted(fields)}


class Heading:
    """Stands for a row when the heading is rendered: each field gives its title."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    @property
    def kind(self) -> str:
        """Its type, for messages."""
        return f"*formatter.{self._columns.name}"

    def field(self, name: str) -> Any:
        """The title; raises KeyError."""
        if name in self._columns.methods:
            return lambda *args: str(args[0]) if args else ""
        return self._columns.fields[name][0]


def show_list(
    columns: Columns,
    items: Iterable[Any],
    *,
    layout: str,
    table: Sequence[str],
    quiet: str = "",
) -> None:
    """Print the objects.

    ``layout`` is what ``--format`` says ("" for the table). ``table`` are the fields of the table,
    ``quiet`` the only field of each line with ``-q``.
    """
    write = sys.stdout.write
    if layout in ("", "table"):
        if quiet:
            for item in items:
                write(f"{columns.row(item).field(quiet)}\n")
            return
        rows = [[columns.fields[name][0] for name in table]]
        rows += [[str(columns.fields[name][1](item)) for name in table] for item in items]
        write(aligned(rows))
    elif layout == "json":
        _show_json(columns, items)
    elif layout == "raw" and quiet:
        for item in items:
            write(f"{quiet.lower()}: {columns.row(item).field(quiet)}\n")
    else:
        _show_template(columns, items, layout)


def _show_json(columns: Columns, items: Iterable[Any]) -> None:
    from lading.cli.gotemplate.functions import to_json  # late: `ps` alone needs no templates

    for item in items:
        sys.stdout.write(to_json(columns.row(item)) + "\n")


def _show_template(columns: Columns, items: Iterable[Any], layout: str) -> None:
    from lading.cli.gotemplate import Template, TemplateError

    in_table = layout.startswith("table ")
    source = layout.removeprefix("table ").strip(" ") if in_table else layout.strip(" ")
    source = source.replace("\\t", "\t").replace("\\n", "\n")
    try:
        template = Template(source)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", code=64) from error
    try:
        if not in_table:
            for item in items:
                sys.stdout.write(template.render(columns.row(item)) + "\n")
            return
        rows = [template.render(Heading(columns)).split("\t")]
        rows += [template.render(columns.row(item)).split("\t") for item in items]
    except TemplateError as error:
        raise Failure(f"failed to execute template: {error}") from error
    sys.stdout.write(aligned(rows))


def aligned(
    rows: Sequence[Sequence[str]], *, minimum: int = MINIMUM_WIDTH, padding: int = PADDING
) -> str:
    """Cells in columns, as Go's tabwriter sets them: the last cell of a line is not padded."""
    widths: list[int] = []
    for row in rows:
        for i, cell in enumerate(row[:-1]):
            if i == len(widths):
                widths.append(minimum)
            widths[i] = max(widths[i], len(cell) + padding)
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) for i, cell in enumerate(row[:-1])]
        lines.append("".join(cells) + (row[-1] if row else "") + "\n")
    return "".join(lines)


def render(layout: str, data: Any, *, end: str = "\n") -> None:
    """Print one object by ``--format``: ``json`` or a template."""
    from lading.cli.gotemplate import Template, TemplateError
    from lading.cli.gotemplate.functions import to_json

    source = "{{json .}}" if layout == "json" else layout
    try:
        template = Template(source)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", code=64) from error
    try:
        text = to_json(data) if layout == "json" else template.render(data)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from error
    sys.stdout.write(text + end)


def api_filters(conditions: Sequence[str]) -> dict[str, dict[str, bool]]:
    """``--filter key=value`` as the API wants it; raises Failure."""
    filters: dict[str, dict[str, bool]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise Failure(
                f"invalid filter '{condition}': bad format of filter (expected name=value)"
            )
        filters.setdefault(key.strip().lower(), {})[value.strip()] = True
    return filters
