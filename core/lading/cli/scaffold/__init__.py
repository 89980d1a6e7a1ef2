"""``lading plugin new``: a whole distribution from templates.

The templates are files of this package, :class:`string.Template`'s syntax: ``common`` for every
role, then a folder per role with the module that implements all hooks and a test that runs the kit.
"""

from __future__ import annotations

import re
import time
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from lading.errors import Conflict, Invalid

SUMMARIES = {
    "isolation": "Lading isolation backend {name}: containers by clone(2)",
    "filesystem": "Lading filesystem backend {name}: snapshots as plain copies",
    "network": "Lading network backend {name}: bridges by ip(8) and nft(8)",
    "registry": "Lading registry transport {name}: images in OCI image layouts",
    "extension": "Lading extension {name}: events as lines of a file",
}

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new(role: str, name: str, directory: Path | None = None, author: str = "") -> Path:
    """Write a distribution for backend ``name`` of a role; returns its directory.

    Raises Invalid for an unknown role and a name that entry points and packages cannot have,
    Conflict for a directory that has something in it.
    """
    if role not in SUMMARIES:
        raise Invalid(f'unknown role "{role}"', hint="roles: " + ", ".join(SUMMARIES))
    if not _NAME.fullmatch(name):
        raise Invalid(f'bad name "{name}"', hint="lower-case letters, digits and dashes: my-driver")
    distribution = f"lading-{role}-{name}"
    top = directory or Path(distribution)
    if top.exists() and (not top.is_dir() or any(top.iterdir())):
        raise Conflict(f'"{top}" exists already')
    words = _words(role, name, distribution, author)
    words["use"] = _filled(_templates() / role / "use.template", words).strip()
    for path, template in _contents(role, words["package"]).items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(_filled(template, words))
    (top / words["package"] / "py.typed").touch()
    return top


def _words(role: str, name: str, distribution: str, author: str) -> dict[str, str]:
    return {
        "role": role,
        "name": name,
        "padding": " " * max(1, 11 - len(name)),
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "summary": SUMMARIES[role].format(name=name),
        "author": author or f"The authors of {distribution}",
        "year": time.strftime("%Y"),
    }


def _templates() -> Traversable:
    return files(__name__) / "templates"


def _contents(role: str, package: str) -> dict[str, Traversable]:
    common, own = _templates() / "common", _templates() / role
    return {
        "pyproject.toml": common / "pyproject.toml.template",
        "README.md": common / "README.md.template",
        "LICENSE": common / "LICENSE.template",
        ".gitignore": common / "gitignore.template",
        f"{package}/__init__.py": common / "init.py.template",
        f"{package}/backend.py": own / "backend.py.template",
        f"tests/test_{role}.py": own / "test_conformance.py.template",
    }


def _filled(template: Traversable, words: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(words)
