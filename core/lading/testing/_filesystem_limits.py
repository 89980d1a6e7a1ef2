"""Kit, part four: limits on a snapshot, where its writable layer lies, and whose its files are."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lading.errors import Invalid, Unsupported
from lading.linux.namespaces import new_user_namespace
from lading.testing._filesystem_case import Case, KitBase, put

MEBIBYTE = 1 << 20


class Limits(KitBase):
    """What the labels under ``lading.`` mean, on every backend that takes them."""

    def test_a_size_limit_counts_what_the_snapshot_writes_itself(self, case: Case) -> None:
        """quota-size: lading.size limits the bytes that are written to an active snapshot.

        Not those of its parents.
        """
        case.can("quota-size")
        case.commit("base", "", lambda top: _fill(top / "large", 24 * MEBIBYTE))
        _limited(case, "small", size=str(8 * MEBIBYTE))
        with case.mounted(case.backend.mounts(key="small")) as top:
            case.expect(4 * MEBIBYTE, _fill(top / "fits", 4 * MEBIBYTE))
            written = _fill(top / "more", 32 * MEBIBYTE)
            assert written < 8 * MEBIBYTE, f"wrote {written} bytes beyond; rule: {case.rule}"
        with case.active("free", "base") as top:
            case.expect(32 * MEBIBYTE, _fill(top / "more", 32 * MEBIBYTE))

    def test_an_inode_limit_counts_what_the_snapshot_makes_itself(self, case: Case) -> None:
        """quota-inodes: lading.inodes limits the files that are made in an active snapshot."""
        case.can("quota-inodes")
        case.commit("base", "", lambda top: [put(top / f"d/{n}") for n in range(64)])
        _limited(case, "small", inodes="32")
        made = 0
        with case.mounted(case.backend.mounts(key="small")) as top:
            try:
                for made in range(64):
                    put(top / f"new-{made}")
            except OSError as error:
                if error.errno not in (errno.EDQUOT, errno.ENOSPC):
                    raise
        assert 8 <= made <= 32, f"made {made} files; rule: {case.rule}"

    def test_a_limit_that_is_no_number_is_refused(self, case: Case) -> None:
        """quota-size: decimal; nothing is left behind."""
        case.can("quota-size")
        labels = {"lading.size": "much"}
        case.refused(
            (Invalid, Unsupported),
            lambda: case.backend.prepare(key="a", parent="", labels=labels),
        )
        case.expect([], list(case.backend.walk()))

    def test_the_writable_layer_lies_where_it_is_asked_for(self, case: Case) -> None:
        """upper-path: lading.path is the directory for the writable layer; remove leaves nothing"""
        case.can("upper-path")
        case.commit("base", "", lambda top: put(top / "f", "below"))
        elsewhere = case.places / "elsewhere"
        elsewhere.mkdir()
        with case.active("a", "base", **{"lading.path": str(elsewhere)}) as top:
            case.expect("below", (top / "f").read_text())
            _fill(top / "large", 4 * MEBIBYTE)
        found = [p for p in elsewhere.rglob("large") if p.stat().st_size == 4 * MEBIBYTE]
        case.expect(1, len(found))
        case.backend.remove(key="a")
        case.expect([], list(elsewhere.iterdir()))

    def test_a_recipe_can_be_mounted_for_a_user_namespace(self, case: Case) -> None:
        """idmap: its recipe may be mounted id-mapped; what is written has the owner it shows."""
        case.can("idmap")
        case.commit("base", "", lambda top: os.chown(put(top / "below", "text"), 7, 8))
        recipe = case.backend.prepare(key="a", parent="base", labels={})
        mapped = [replace(m, options=(*m.options, "idmap")) for m in recipe]
        maps = [(0, 200000, 65536)]
        userns = new_user_namespace(maps, maps)
        try:
            with case.mounted(mapped, userns) as top:
                case.expect((200007, 200008), _owner(top / "below"))
                (top / "below").write_text("changed")
                os.chown(top / "below", 200001, 200002)
        finally:
            os.close(userns)
        with case.mounted(case.backend.mounts(key="a")) as top:
            case.expect((1, 2), _owner(top / "below"))
            case.expect("changed", (top / "below").read_text())


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def _limited(case: Case, key: str, **limits: str) -> None:
    """Prepare a snapshot of "base" with limits; skips where this host has none."""
    labels = {f"lading.{name}": value for name, value in limits.items()}
    try:
        case.backend.prepare(key=key, parent="base", labels=labels)
    except Unsupported as error:
        pytest.skip(str(error))


def _fill(path: Path, size: int) -> int:
    """Write until a size or a limit is reached, to the disk; how much it took."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.tell() < size:
                file.write(os.urandom(MEBIBYTE))
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EDQUOT, errno.ENOSPC):
                raise
        return file.tell()
