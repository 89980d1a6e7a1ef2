"""Environment variables and labels, from flags and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from lading.cli.errors import Failure


def check_variable(value: str) -> str:
    """``NAME=VALUE``, or ``NAME`` alone for the value that this process has."""
    if not value.partition("=")[0]:
        raise ValueError(f"invalid environment variable: {value}")
    return value


def variables(files: Sequence[str], given: Sequence[str]) -> list[str]:
    """Those of the files, then those of the flags; the last of a name wins by its place."""
    found: list[str] = []
    for path in files:
        found += _file_variables(path)
    for value in given:
        found += _taken_over(value)
    return found


def _taken_over(value: str) -> list[str]:
    if "=" in value:
        return [value]
    own = os.environ.get(value)
    # A name that is not set here unsets the image's variable.
    return [value if own is None else f"{value}={own}"]


def _file_variables(path: str) -> Iterator[str]:
    for line in _lines(path):
        name, equals, value = line.partition("=")
        if not name.strip():
            raise Failure(f"no variable name on line '{line}'", code=125)
        if any(c.isspace() for c in name):
            raise Failure(f"variable '{name}' contains whitespaces", code=125)
        if equals:
            yield f"{name}={value}"
        elif name in os.environ:
            yield f"{name}={os.environ[name]}"


def labels(files: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Labels of the files, then of the flags."""
    found: dict[str, str] = {}
    for path in files:
        for line in _lines(path):
            key, _, value = line.partition("=")
            if any(c.isspace() for c in key):
                raise Failure(f"variable '{key}' contains whitespaces", code=125)
            found[key] = value
    for text in given:
        key, _, value = text.partition("=")
        found[key] = value
    return found


def _lines(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line in file:
                text = line.rstrip("\r\n").lstrip()
                if text and not text.startswith("#"):
                    yield text
    except UnicodeDecodeError as error:
        raise Failure(f"env file {path} contains invalid utf8 bytes", code=125) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"open {path}: {reason}", code=125) from error


def proxies(settings: Mapping[str, object], host: str) -> dict[str, str]:
    """The proxy variables that ``config.json`` sets for containers of a daemon."""
    table = settings.get(host) or settings.get("default")
    if not isinstance(table, Mapping):
        return {}
    names = {
        "httpProxy": "HTTP_PROXY",
        "httpsProxy": "HTTPS_PROXY",
        "ftpProxy": "FTP_PROXY",
        "noProxy": "NO_PROXY",
        "allProxy": "ALL_PROXY",
    }
    found: dict[str, str] = {}
    for key, name in names.items():
        value = table.get(key)
        if isinstance(value, str) and value:
            found |= {name: value, name.lower(): value}
    return found
