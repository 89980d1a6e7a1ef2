"""The hooks of the extension, in the daemon and in the spawner."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lading.errors import Invalid
from lading.hooks import Context, Probe, hookimpl
from lading.hooks.extension import Around, Commands, Routes, around

# Nothing heavy: monitors are forked from a process that has this module.
from lading_faults.rules import Rule, act
from lading_faults.table import CONFIGURED, Table

if TYPE_CHECKING:
    from lading.http.messages import Request, Response


class Faults:
    """Puts the rules around every hook of every backend."""

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self._options = context.options
        self._table = Table(context.run)
        self._in_daemon = False

    @hookimpl
    def probe(self) -> Probe:
        """Works everywhere, unless a configured rule is wrong."""
        try:
            self._configured()
        except Invalid as error:
            return Probe(False, error.message, error.hint)
        return Probe(usable=True)

    @hookimpl
    def register_commands(self, commands: Commands) -> None:
        """Add ``lading faults``."""
        commands.add(
            "faults", "lading_faults.commands:faults", "Let hooks of backends fail, by rule"
        )

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        """Add what ``lading faults`` asks for."""
        routes.add("GET", "/lading/faults", self._list)
        routes.add("POST", "/lading/faults", self._add)
        routes.add("DELETE", "/lading/faults", self._clear)
        routes.add("DELETE", "/lading/faults/{id}", self._remove)

    @hookimpl
    def wrap(self, role: str, name: str) -> object:
        """Put the rules around all hooks of the backend."""
        if role != "isolation" and not self._in_daemon:
            # Only the daemon loads other roles.
            self._in_daemon = True
            self._table.begin(self._configured())
        return around(role, self._ruled(role, name))

    def _configured(self) -> list[Rule]:
        for name in self._options:
            if name != "rules":
                raise Invalid(f'it has no option "{name}"', hint="options: rules")
        rows = self._options.get("rules", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Invalid("rules are tables", hint="[[extension.faults.rules]]")
        return [replace(Rule.of(row), id=f"{CONFIGURED}{n}") for n, row in enumerate(rows, 1)]

    def _ruled(self, role: str, backend: str) -> Around:
        def meet(hook: str, when: str) -> None:
            for rule in self._table.rules():
                if rule.fits(role, backend, hook, when) and rule.acts(self._table.count(rule)):
                    act(rule, self._table.directory)

        def call(hook: str, arguments: Mapping[str, Any]) -> Generator[None, Any, Any]:
            meet(hook, "before")
            result = yield
            meet(hook, "after")
            return result

        return call

    def _list(self, request: Request) -> Response:
        from lading.http.messages import Response

        rows = [
            {**asdict(rule), "fitted": self._table.counted(rule)} for rule in self._table.rules()
        ]
        return Response.json(rows)

    def _add(self, request: Request) -> Response:
        from lading.http.messages import Response

        try:
            members = json.loads(request.body.read(1 << 16))
        except ValueError as error:
            raise Invalid(f"rule: invalid JSON: {error}") from error
        if not isinstance(members, dict) or "id" in members:
            raise Invalid("rule: an object without id is wanted")
        return Response.json(asdict(self._table.add(Rule.of(members))), 201)

    def _remove(self, request: Request) -> Response:
        from lading.http.messages import Response

        self._table.remove(request.values["id"])
        return Response(204)

    def _clear(self, request: Request) -> Response:
        from lading.http.messages import Response

        self._table.clear()
        return Response(204)
