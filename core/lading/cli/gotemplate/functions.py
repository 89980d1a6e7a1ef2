"""The functions of templates: Go's own and those that Docker adds, and how Go prints values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_VERB = re.compile(r"%([-+# 0]*)(\d+|\*)?(?:\.(\d+))?([a-zA-Z%])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


class TemplateError(Exception):
    """A template that cannot be parsed or rendered."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


class Missing:
    """What a map has under a key that it does not have: false, and ``<no value>`` when printed."""

    def plain(self) -> None:
        """Null in JSON."""
        return


MISSING = Missing()


def truth(value: Any) -> bool:
    """Whether Go's ``if`` takes the first branch: everything but zero and empty values."""
    if isinstance(value, bool | int | float | str | list | tuple | dict):
        return bool(value)
    return value is not None and value is not MISSING


def show(value: Any) -> str:
    """A value as ``fmt.Print`` writes it."""
    return "<no value>" if value is MISSING else _inner(value)


def _inner(value: Any) -> str:
    if value is None or value is MISSING:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{k}:{_inner(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_inner(v) for v in value) + "]"
    return str(value)


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return re.sub(r"e([+-])0*(\d)\b", r"e\g<1>0\2", repr(value))


def to_json(value: Any) -> str:
    """Compact JSON as Docker's ``json`` prints it: no HTML escapes, UTF-8 as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    to_plain = getattr(value, "plain", None)
    if to_plain is None:
        raise TypeError(f"json: unsupported type: {type(value).__name__}")
    return to_plain()


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def printf(layout: str, *values: Any) -> str:
    """``fmt.Sprintf`` for the usual verbs."""
    rest = list(values)

    def replace(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if width == "*":
            width = str(rest.pop(0)) if rest else ""
        if not rest:
            return f"%!{verb}(MISSING)"
        spec = f"%{flags or ''}{width or ''}"
        return _verb(spec, precision, verb, rest.pop(0))

    text = _VERB.sub(replace, layout)
    if rest:
        extra = ", ".join(f"{_type_name(v)}={_inner(v)}" for v in rest)
        text += f"%!(EXTRA {extra})"
    return text


def _verb(spec: str, precision: str | None, verb: str, value: Any) -> str:
    exact = f".{precision}" if precision is not None else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb in "svq":
        shown = _inner(value)
        if verb == "q":
            shown = _quoted(shown) if isinstance(value, str) else f"'{shown}'"
        limit = exact if verb == "s" else ""
        return f"{spec}{limit}s" % shown
    if verb in "dxXoc" and number and isinstance(value, int):
        return f"{spec}{verb}" % value
    if verb in "xX" and isinstance(value, str):
        shown = value.encode().hex()
        return f"{spec}s" % (shown.upper() if verb == "X" else shown)
    if verb == "b" and number:
        return f"{spec}s" % format(value, "b")
    if verb in "feEgG" and number:
        return str(f"{spec}{exact}{verb}" % value)
    if verb == "t" and isinstance(value, bool):
        return f"{spec}s" % _inner(value)
    if verb == "T":
        return _type_name(value)
    return f"%!{verb}({_type_name(value)}={_inner(value)})"


def _type_name(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", type(None): "<nil>"}
    if isinstance(value, Mapping):
        return "map[string]interface {}"
    return names.get(type(value), "[]interface {}")


def index(value: Any, *keys: Any) -> Any:
    """``index x 1 "a"`` is ``x[1]["a"]``; a missing key of a map gives nothing."""
    for key in keys:
        if value is None or value is MISSING:
            # A null in JSON stands for Go's empty map of strings nearly everywhere.
            return ""
        if isinstance(value, Mapping):
            texts = all(isinstance(v, str) for v in value.values())
            value = value.get(key, "" if texts else MISSING)
        elif isinstance(value, list | tuple | str):
            if not isinstance(key, int):
                raise TemplateError(f"cannot index slice/array with type {_type_name(key)}")
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        else:
            raise TemplateError(f"can't index item of type {_type_name(value)}")
    return value


def cut(value: Any, *bounds: int) -> Any:
    """``slice x 1 2`` is ``x[1:2]``."""
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= start <= end <= len(value):
        raise TemplateError(f"index out of range: {end}")
    return value[start:end]


def length(value: Any) -> int:
    """``len``."""
    if value is None or isinstance(value, bool | int | float):
        raise TemplateError(f"len of type {_type_name(value)}")
    return len(value.encode()) if isinstance(value, str) else len(value)


def equal(first: Any, *others: Any) -> bool:
    """``eq``: whether the first equals one of the others."""
    if not others:
        raise TemplateError("missing argument for comparison")
    for other in others:
        _comparable(first, other)
        if first == other:
            return True
    return False


def _comparable(first: Any, second: Any) -> None:
    if first is None or second is None:
        return
    kinds = [
        "bool" if isinstance(v, bool) else "number" if isinstance(v, int | float) else type(v)
        for v in (first, second)
    ]
    if kinds[0] != kinds[1]:
        raise TemplateError("incompatible types for comparison")


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def function(first: Any, second: Any) -> bool:
        _comparable(first, second)
        if first is None or isinstance(first, bool | list | dict):
            raise TemplateError("invalid type for comparison")
        return compare(first, second)

    return function


def pad(text: str, before: int, after: int) -> str:
    """Spaces on both sides of a text that is not empty."""
    return " " * before + text + " " * after if text else text


def truncate(text: str, size: int) -> str:
    """The first characters."""
    return text[:size]


def joined(items: Any, separator: str) -> str:
    """``join``."""
    return separator.join(_inner(item) for item in items or ())


def line(*values: Any) -> str:
    """``println``: spaces between all values, and a line end."""
    return " ".join(_inner(value) for value in values) + "\n"


def concatenated(*values: Any) -> str:
    """``print``: spaces only between values of which neither is a text."""
    text = ""
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            text += " "
        text += _inner(value)
    return text


def url_query(*values: Any) -> str:
    """``urlquery``: escaped for use in a query."""
    from urllib.parse import quote_plus  # late: rare

    return quote_plus(concatenated(*values))


def _title(text: str) -> str:
    return re.sub(r"(^|\s)(\S)", lambda found: found.group(1) + found.group(2).upper(), text)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: values[-1],  # evaluated by the template itself, to stop early
    "or": lambda *values: values[-1],
    "not": lambda value: not truth(value),
    "eq": equal,
    "ne": lambda first, second: not equal(first, second),
    "lt": _ordered(lambda a, b: bool(a < b)),
    "le": _ordered(lambda a, b: bool(a <= b)),
    "gt": _ordered(lambda a, b: bool(a > b)),
    "ge": _ordered(lambda a, b: bool(a >= b)),
    "html": lambda *values: concatenated(*values).translate(_HTML),
    "index": index,
    "join": joined,
    "js": lambda *values: json.dumps(concatenated(*values))[1:-1].replace("'", "\\'"),
    "json": to_json,
    "len": length,
    "lower": lambda text: text.lower(),
    "pad": pad,
    "print": concatenated,
    "printf": printf,
    "println": line,
    "slice": cut,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": _title,
    "truncate": truncate,
    "upper": lambda text: text.upper(),
    "urlquery": url_query,
}
