"""Strategies: JSON of the shape that the API's types have, with something wrong in it now and then.

``LADING_FUZZ=N`` multiplies the number of examples; the usual ones are few.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from msgspec import inspect

#: Words that mean something somewhere, and such that mean nothing anywhere. No path leads to a
#: place on the host where something is that matters.
WORDS = (
    *("", "x", "busybox", "nope", "host", "none", "bridge", "default", "private", "shareable"),
    *("container:x", "ns:/tmp/lading-fuzz/n", "1", "-1", "0:0", "a=b", "=", ":", "80/tcp", "80-90"),
    *("99999", "10.231.0.0/24", "10.231.0.5", "fd00::/64", "::1", "02:42:ac:11:00:02", "local"),
    *(
        "json-file",
        "always",
        "on-failure",
        "unless-stopped",
        "KILL",
        "SIGRTMIN+3",
        "ALL",
        "NET_RAW",
    ),
    *("no-new-privileges", "seccomp=unconfined", "apparmor=x", "/tmp/lading-fuzz/a", "../../x"),
    *("/tmp/lading-fuzz/a:/b:ro", "v:/b", "v:/b:z", "/b", "tmpfs", "volume", "bind", "rprivate"),
    *("a\0b", "é", "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")),
    *("a\nb", " ", "x" * 300, "%s{{.ID}}", "size=1k", "1g", "1.5", "1e9", "0x10", "9" * 40),
    *("driver=vfs", "driver=nope", "lading.x", "CMD", "CMD-SHELL", "NONE", "sha256:" + "0" * 64),
)
NUMBERS = (0, 1, -1, 2, 100, 1024, 6 << 20, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**63, -(2**63))

words = st.sampled_from(WORDS) | st.text(max_size=8)
numbers = st.sampled_from(NUMBERS) | st.integers(-100, 100)
junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | words | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


def quick(examples: int) -> settings:
    """Settings for a test that runs with all others."""
    return settings(
        max_examples=examples * int(os.environ.get("LADING_FUZZ", "1")),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Shrinking would take minutes against a daemon; a failing example is small as it is.
        phases=tuple(Phase) if "LADING_FUZZ" in os.environ else (Phase.explicit, Phase.generate),
    )


def shaped(kind: type, most: int = 7, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of a type's shape with ``most`` members and those of ``members``, by wire name."""
    return _struct(inspect.type_info(kind), most, members)


def _struct(
    found: Any, most: int, members: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Any]:
    known = {f.encode_name: f.type for f in found.fields}

    if not known:
        return st.just({})

    def of(names: list[str]) -> st.SearchStrategy[Any]:
        wanted = {name: _mostly(_of(known[name])) for name in names}
        return st.fixed_dictionaries(wanted | members)

    return st.lists(st.sampled_from(sorted(known)), max_size=most, unique=True).flatmap(of)


def _mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 15).flatmap(lambda n: junk if n == 0 else right)


def _of(found: Any) -> st.SearchStrategy[Any]:
    match found:
        case inspect.StructType():
            return st.deferred(lambda: _struct(found, 7, {}))
        case inspect.ListType() | inspect.VarTupleType():
            return st.lists(_of(found.item_type), max_size=3)
        case inspect.TupleType():
            return st.tuples(*map(_of, found.item_types)).map(list)
        case inspect.DictType():
            return st.dictionaries(words, _of(found.value_type), max_size=3)
        case inspect.UnionType():
            return st.one_of(*map(_of, found.types))
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType() | inspect.FloatType():
            return numbers
        case inspect.StrType():
            return words
        case inspect.NoneType():
            return st.none()
    return junk
