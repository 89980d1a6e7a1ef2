"""Distributions for one test: a module and a ``.dist-info`` in a directory, for PYTHONPATH."""

from __future__ import annotations

from pathlib import Path


def install(
    site: Path, name: str, source: str, *, role: str, attribute: str = "Backend", version: str = "1"
) -> None:
    """Put backend ``name`` of a role into ``site`` as distribution ``throwaway-<name>``."""
    module = f"throwaway_{name.replace('-', '_')}"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source)
    for old in site.glob(f"{module}-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: throwaway-{name}\nVersion: {version}\n"
    )
    (info / "entry_points.txt").write_text(f"[lading.{role}]\n{name} = {module}:{attribute}\n")


#: A filesystem backend that works: the plain copies of another, under another name.
COPIES = """
from lading_fs_vfs import Vfs
from lading.hooks import hookimpl

class Backend(Vfs):
    pass
"""
