"""Users as an image's databases have them."""

from __future__ import annotations

import pytest

from lading.errors import Invalid
from lading.roots.users import resolve

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nbroken line\n"
GROUP = "root:x:0:\nweb:x:34:\nlogs:x:40:web,root\nops:x:41:web\n"


@pytest.mark.parametrize(
    ("user", "extra", "wanted"),
    [
        ("", [], (0, 0, (40,), "/root")),
        ("web", [], (33, 34, (40, 41), "/var/www")),
        ("33", [], (33, 34, (40, 41), "/var/www")),
        ("web:ops", [], (33, 41, (), "/var/www")),
        ("web:7", [], (33, 7, (), "/var/www")),
        ("1234", [], (1234, 0, (), "/")),
        ("1234:5678", ["logs", "99"], (1234, 5678, (40, 99), "/")),
    ],
)
def test_resolve(
    user: str, extra: list[str], wanted: tuple[int, int, tuple[int, ...], str]
) -> None:
    found = resolve(user, extra, PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == wanted


def test_an_image_without_databases_has_root_and_numbers() -> None:
    assert resolve("", [], "", "").home == "/root"
    assert resolve("5", [], "", "").uid == 5


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("web:crew", "unable to find group crew: no matching entries in group file"),
        ("4294967295", "must be in range"),
    ],
)
def test_unknown_users(user: str, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        resolve(user, [], PASSWD, GROUP)
