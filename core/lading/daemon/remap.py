"""``--userns-remap``: which host ids stand for those in containers (subuid(5), subgid(5))."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from lading.containers.spec import IdMapping
from lading.errors import Invalid

#: The user that ``default`` means, as in Docker.
DEFAULT_USER = "dockremap"

Maps = tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]


def maps(text: str, etc: Path = Path("/etc")) -> Maps:
    """User and group maps for ``default``, ``user``, ``user:group``, each a name or a number.

    Raises Invalid when there is no such user or no subordinate ids for it.
    """
    if not text:
        return (), ()
    user, colon, group = text.partition(":")
    if user == "default":
        user = DEFAULT_USER
    names = _names(user, of_group=False)
    group_names = _names(group, of_group=True) if colon else names
    return (
        _ranges(etc / "subuid", names, user),
        _ranges(etc / "subgid", group_names, group or user),
    )


def _names(text: str, *, of_group: bool) -> frozenset[str]:
    """How a user or group may be written in the files: by name and by number."""
    try:
        if of_group:
            entry = grp.getgrgid(int(text)) if text.isdecimal() else grp.getgrnam(text)
            return frozenset({entry.gr_name, str(entry.gr_gid)})
        user = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
        return frozenset({user.pw_name, str(user.pw_uid)})
    except KeyError:
        raise Invalid(f'userns-remap: "{text}" is no user or group of this host') from None


def _ranges(path: Path, names: frozenset[str], shown: str) -> tuple[IdMapping, ...]:
    found: list[IdMapping] = []
    inside = 0
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names:
            start, size = int(fields[1]), int(fields[2])
            found.append(IdMapping(inside, start, size))
            inside += size
    if not found:
        raise Invalid(
            f'userns-remap: "{path}" has no ids for "{shown}"',
            hint=f"add a line such as {shown}:100000:65536",
        )
    return tuple(found)
