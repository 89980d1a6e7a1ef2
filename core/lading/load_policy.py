"""Which installed plugins may be loaded at all: config that no API call can change.

The table ``[plugins]`` of the configuration::

    allow = ["lading-*"]            # distribution names, shell patterns; absent = all
    require-root-owned = true       # files owned by root and writable by nobody else
    [plugins.pins]
    lading-fs-overlay = "sha256:…"  # digest over the distribution's files

The pin is the sha256 over the lines ``<sha256 of content>  <path in the distribution>\\n`` of
all Python and data files of the distribution's import package, sorted by path.
"""

from __future__ import annotations

import hashlib
import importlib.util
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from lading.errors import Denied


@dataclass(frozen=True, slots=True)
class Policy:
    """The load policy; :meth:`check` is called before anything of a plugin is imported."""

    allow: tuple[str, ...] | None = None
    require_root_owned: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)

    def check(self, distribution: str, target: str) -> None:
        """Raise Denied, with the rule that was broken, unless the plugin may be loaded."""
        if self.allow is not None and not any(fnmatchcase(distribution, p) for p in self.allow):
            raise Denied(
                f'distribution "{distribution}" is not on the allow-list',
                hint="add it to plugins.allow in the configuration",
            )
        if not self.require_root_owned and distribution not in self.pins:
            return
        root = _package(target)
        if self.require_root_owned:
            for path in (root, *_files(root)):
                _check_owner(path)
        wanted = self.pins.get(distribution)
        if wanted is not None and (got := digest(root)) != wanted:
            raise Denied(
                f'distribution "{distribution}" has digest {got}, the pin says {wanted}',
                hint="reinstall it, or change plugins.pins if the new files are wanted",
            )


def digest(root: Path) -> str:
    """The digest of an import package's files, as pins give it."""
    total = hashlib.sha256()
    for path in _files(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _package(target: str) -> Path:
    module = target.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise Denied(f'the files of module "{module}" were not found')
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _check_owner(path: Path) -> None:
    status = path.stat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
        raise Denied(
            f'"{path}" is not owned by root, or others may write it',
            hint="chown root and chmod go-w, or turn plugins.require-root-owned off",
        )
