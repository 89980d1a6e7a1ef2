"""How bodies of the Docker API are read: as leniently as the Go server that clients grew up with.

Clients send ``null`` for what they leave empty, one string where a list of words is meant, and
member names in any case. :func:`decode` evens that out by the declared types and then lets
msgspec check them, so the Structs of :mod:`lading.model.docker` hold plain lists and maps.

- a null member of an object is absent; a null in a list or a map is the empty value of its type
- unknown members are ignored; names match in any case, the exact spelling first
- a wrong type is an error that names the path
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import inspect

from lading.errors import Invalid


class Body(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """Base of the API's bodies: CamelCase members, all with defaults."""


Words = Annotated[list[str], msgspec.Meta(extra={"words": True})]
"""A list of strings that may be sent as one string."""

T = TypeVar("T", bound=Body)
Normaliser = Callable[[Any], Any]


def decode(data: bytes, kind: type[T]) -> T:
    """Read a body; an empty one is ``kind()``. Raises Invalid, naming the member that is wrong."""
    if not data.strip():
        return kind()
    try:
        raw = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Invalid(f"request body: invalid JSON: {error}") from error
    return convert(raw, kind)


def convert(raw: object, kind: type[T]) -> T:
    """The same for JSON that is parsed already."""
    if raw is None:
        return kind()
    try:
        return msgspec.convert(_normaliser(kind)(raw), kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"request body: {error}") from error


@cache
def _normaliser(kind: type[Body]) -> Normaliser:
    return _plan(inspect.type_info(kind)) or _same


def _same(value: Any) -> Any:
    return value


def _plan(kind: inspect.Type) -> Normaliser | None:
    """What to do with values of this type; None when nothing."""
    match kind:
        case inspect.StructType():
            return _struct(kind)
        case inspect.DictType():
            return _dict(kind)
        case inspect.ListType():
            return _list(kind)
        case inspect.Metadata(extra={"words": True}):
            return _words
        case inspect.Metadata():
            return _plan(kind.type)
        case inspect.UnionType():
            plans = [plan for member in kind.types if (plan := _plan(member))]
            return plans[0] if plans else None
        case _:
            return None


def _struct(kind: inspect.StructType) -> Normaliser:
    members = {f.encode_name: (f.encode_name, _plan(f.type)) for f in kind.fields}
    any_case = {name.lower(): member for name, member in members.items()}

    def normalise(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        result = {}
        for name, item in value.items():
            member = members.get(name) or any_case.get(name.lower())
            if member is not None and item is not None:
                key, plan = member
                result[key] = plan(item) if plan else item
        return result

    return normalise


def _dict(kind: inspect.DictType) -> Normaliser:
    plan, empty = _plan(kind.value_type) or _same, _empty(kind.value_type)

    def normalise(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: empty() if v is None else plan(v) for k, v in value.items()}

    return normalise


def _list(kind: inspect.ListType) -> Normaliser:
    plan, empty = _plan(kind.item_type) or _same, _empty(kind.item_type)

    def normalise(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [empty() if v is None else plan(v) for v in value]

    return normalise


def _words(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _empty(kind: inspect.Type) -> Callable[[], Any]:
    match kind:
        case inspect.StructType() | inspect.DictType():
            return dict
        case inspect.ListType():
            return list
        case inspect.StrType():
            return str
        case inspect.Metadata():
            return _empty(kind.type)
        case _:
            return lambda: None
