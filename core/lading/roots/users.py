"""Users and groups as an image's ``/etc/passwd`` and ``/etc/group`` have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lading.errors import Invalid


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is: ids inside the container, supplementary groups, home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(user: str, extra_groups: Sequence[str], passwd: str, group: str) -> Identity:
    """Read ``user[:group]``, each a name or a number; "" is root.

    Numbers need no entry. Without a group of its own the user gets the supplementary groups of
    the database. Raises Invalid for a name without entry.
    """
    name, colon, group_name = user.partition(":")
    uid, gid, home, login = _user(name or "0", passwd)
    groups: list[int] = []
    if colon and group_name:
        gid = _group(group_name, group)
    elif login:
        groups = [g for _, g, members in _groups(group) if login in members]
    groups += [_group(g, group) for g in extra_groups]
    return Identity(uid, gid, tuple(dict.fromkeys(groups)), home)


def _user(name: str, passwd: str) -> tuple[int, int, str, str]:
    number = int(name) if name.isascii() and name.isdecimal() else None
    by_number = None
    for login, uid, gid, home in _users(passwd):
        if login == name:
            return uid, gid, home, login
        if uid == number and by_number is None:
            by_number = (uid, gid, home, login)
    if by_number is not None:
        return by_number
    if number is None:
        raise Invalid(f"unable to find user {name}: no matching entries in passwd file")
    _check_range(number, "uids")
    return number, 0, "/root" if number == 0 else "/", ""


def _group(name: str, group: str) -> int:
    number = int(name) if name.isascii() and name.isdecimal() else None
    for entry, gid, _ in _groups(group):
        if entry == name or gid == number:
            return gid
    if number is None:
        raise Invalid(f"unable to find group {name}: no matching entries in group file")
    _check_range(number, "gids")
    return number


def _check_range(number: int, what: str) -> None:
    if number > 0x7FFF_FFFF:
        raise Invalid(f"{what} and gids must be in range 0-2147483647")


def _users(passwd: str) -> Iterator[tuple[str, int, int, str]]:
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdecimal() and fields[3].isdecimal():
            yield fields[0], int(fields[2]), int(fields[3]), fields[5]


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdecimal():
            members = fields[3].split(",") if len(fields) > 3 else []
            yield fields[0], int(fields[2]), members
