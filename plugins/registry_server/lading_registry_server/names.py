"""Names of repositories: one name for what the protocols call ``foo`` and ``library/foo``."""

from __future__ import annotations

import re

OFFICIAL = "library/"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
#: What registries of 2014 took; today's grammar is narrower.
_LEGACY_NAME = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
LONGEST = 255


def is_name(text: str) -> bool:
    """Whether it is a repository's name in the distribution API."""
    return len(text) <= LONGEST and bool(_NAME.fullmatch(text))


def is_legacy_name(text: str) -> bool:
    """Whether it is one in the protocols of 2014."""
    parts = text.split("/")
    return (
        len(text) <= LONGEST and bool(_LEGACY_NAME.fullmatch(text)) and not {".", ".."} & set(parts)
    )


def is_tag(text: str) -> bool:
    """Whether it is a tag."""
    return bool(_TAG.fullmatch(text))


def stored(name: str) -> str:
    """The name under which a repository is kept."""
    short = name.removeprefix(OFFICIAL)
    return short if "/" not in short else name


def legacy(name: str) -> str:
    """The name that the protocols of 2014 show: it always has a namespace."""
    return name if "/" in name else OFFICIAL + name
