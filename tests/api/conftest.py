"""The published definitions of the Docker Engine API, where they are at hand, and a checker."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


# What Docker's own daemons answer although their definitions do not say so.
UNDOCUMENTED = (
    # Lading's own member of /info.
    r"^\$\.Lading: unknown member",
    # Go's nil of a list, a map or a pointer is null on the wire; clients rely on the member.
    r"Config\.(Cmd|Entrypoint|Volumes|OnBuild): null",
    r"^\$\.HostConfig\.(MemorySwappiness|OomKillDisable): null",
    r"^\$\.ExitCode: null",
    # 1.41: members and values that its own daemon sends
    r"\.HostConfig\.(Isolation: ''|RestartPolicy\.Name: 'no'), expected one of",
    r"\.Config(From|Only): unknown member",
    r"^\$\.(status|id|from|scope): unknown member",
    r"\.Mounts\[\d+\]\.\w+: unknown member",
    r"^\$\.Containers\[\d+\]: .*, expected array",
)


#: Of an image's configs alone: a container has an empty list or map there.
UNDOCUMENTED_OF_IMAGES = (r"^\$\.(Container)?Config\.(Env|Labels): null",)


class Definitions:
    """One version of the API in Swagger 2.0."""

    def __init__(self, path: Path) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._document = yaml.load(path.read_text(), loader)

    def hold(self, method: str, path: str, status: int, value: object) -> None:
        """Fail where an answer is not what the definitions promise, naming each member."""
        operation = self._document["paths"][path][method.lower()]
        answer = operation["responses"].get(status) or operation["responses"].get(str(status))
        assert answer is not None, f"{method} {path}: {status} is not among the documented answers"
        expected = UNDOCUMENTED + (UNDOCUMENTED_OF_IMAGES if path.startswith("/images/") else ())
        problems = [
            problem
            for problem in self._check(answer["schema"], value, "$")
            if not any(re.search(known, problem) for known in expected)
        ]
        assert not problems, f"{method} {path}:\n" + "\n".join(problems)

    def routes(self) -> list[tuple[str, str]]:
        """All methods and paths."""
        paths: Mapping[str, Mapping[str, object]] = self._document["paths"]
        return [(method.upper(), path) for path, methods in paths.items() for method in methods]

    def _resolved(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema with its reference followed and the parts of ``allOf`` merged."""
        if "$ref" in schema:
            return self._resolved(self._document["definitions"][schema["$ref"].rpartition("/")[2]])
        whole = {**schema, "properties": dict(schema.get("properties", {}))}
        for part in schema.get("allOf", ()):
            resolved = self._resolved(part)
            whole["properties"] |= resolved["properties"]
            whole.setdefault("type", resolved.get("type", "object"))
        return whole

    def _check(self, reference: Mapping[str, Any], value: object, where: str) -> Iterator[str]:
        schema = self._resolved(reference)
        kind = schema.get("type", "object" if schema["properties"] else None)
        if value is None:
            if not (schema.get("x-nullable") or reference.get("x-nullable")):
                yield f"{where}: null, expected {kind}"
            return
        if kind is not None:
            fits = isinstance(value, TYPES[kind])
            if not fits or (isinstance(value, bool) and kind in ("integer", "number")):
                yield f"{where}: {value!r}, expected {kind}"
                return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r}, expected one of {schema['enum']}"
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from self._check(schema.get("items", {}), item, f"{where}[{number}]")
        elif isinstance(value, dict):
            yield from self._check_members(schema, value, where)

    def _check_members(
        self, schema: Mapping[str, Any], value: Mapping[str, object], where: str
    ) -> Iterator[str]:
        properties = schema["properties"]
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}.{name}: missing"
        rest = schema.get("additionalProperties")
        for name, item in value.items():
            if name in properties:
                yield from self._check(properties[name], item, f"{where}.{name}")
            elif isinstance(rest, dict):
                yield from self._check(rest, item, f"{where}.{name}")
            elif properties and not rest:
                yield f"{where}.{name}: unknown member"


@functools.cache
def _definitions(version: str) -> Definitions | None:
    folder = Path(os.environ.get("LADING_DOCKER_API", ROOT.parent / "shared" / "docker-api"))
    path = folder / f"engine-v{version}.yaml"
    return Definitions(path) if path.is_file() else None


@pytest.fixture
def definitions() -> Callable[[str], Definitions]:
    """The definitions of a version; skips where they are not at hand."""

    def of(version: str) -> Definitions:
        found = _definitions(version)
        if found is None:
            pytest.skip(
                f"no engine-v{version}.yaml; set LADING_DOCKER_API to a folder with it, "
                "from the public repository moby/moby"
            )
        return found

    return of
