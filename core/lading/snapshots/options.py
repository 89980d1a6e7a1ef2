"""The options of a backend's table in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lading.errors import Invalid
from lading.hooks.common import Context

Option = bool | float | str
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_options(context: Context, defaults: Mapping[str, Option]) -> dict[str, Any]:
    """Every option, of the type that its default has; those of ``--storage-opt`` come as texts.

    Raises Invalid for one that is not among the defaults, and for a value of another type.
    """
    for name in context.options:
        if name not in defaults:
            raise Invalid(
                f'unknown option "{name}"', hint=f"known: {', '.join(defaults) or 'none'}"
            )
    return {
        name: _typed(name, context.options.get(name, default), type(default))
        for name, default in defaults.items()
    }


def _typed(name: str, value: Any, wanted: type) -> Option:
    try:
        if wanted is bool:
            return value if isinstance(value, bool) else _WORDS[value.lower()]
        if wanted is float and not isinstance(value, bool):
            return float(value)
        if wanted is str and isinstance(value, str):
            return value
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    what = {bool: "true or false", float: "a number", str: "a text"}[wanted]
    raise Invalid(f'option {name}: "{value}" is not {what}')
