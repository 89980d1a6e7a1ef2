"""What a subvolume has changed against the one that it was made from, by btrfs's own records.

Every block of btrfs's trees has the number of the transaction that wrote it, so a search can leave
out all that is older than the snapshot (BTRFS_IOC_TREE_SEARCH_V2; the items are in
linux/btrfs_tree.h). It reads as much as was changed, where a walk reads both trees. Nothing is
looked up by path, so nothing that a container does meanwhile leads out of its subvolume.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lading_fs_btrfs.subvolumes import FIRST_FREE_OBJECTID as ROOT
from lading_fs_btrfs.subvolumes import GET_SUBVOL_INFO

_TREE_SEARCH_V2 = 0xC0709411
_SYNC = 0x9408

#: tree (0: that of the descriptor); objectid, offset and transid from and to; type from and to; how
#: many; size of the buffer that follows.
_SEARCH = struct.Struct("=Q6Q4I32xQ")
_ROOM = 1 << 16
_COUNT = slice(64, 68)
#: transid, objectid, offset, type, length of the data that follow.
_HEADER = struct.Struct("=QQQII")
_OTRANSID = slice(352, 360)
_MOST = (1 << 64) - 1

_INODE_ITEM, _INODE_REF, _INODE_EXTREF, _DIR_INDEX = 1, 12, 13, 96

#: generation, transid, nbytes, mode.
_INODE = struct.Struct("=QQ8xQ20xI")
#: objectid and type of the key; length of the name, which follows.
_ENTRY = struct.Struct("=QB8x8x2xHx")
#: length of the name; the parent and the length.
_REF, _EXTREF = struct.Struct("=8xH"), struct.Struct("=Q8xH")

_Item = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class Inode:
    """A file. ``made`` is the transaction that made it: numbers are taken again."""

    number: int
    made: int
    changed: int
    size: int
    directory: bool


class Tree:
    """The records of one subvolume."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._paths: dict[int, list[bytes]] = {ROOT: [b""]}

    def origin(self) -> int:
        """The transaction in which the subvolume was made."""
        buffer = bytearray(504)
        fcntl.ioctl(self._descriptor, GET_SUBVOL_INFO, buffer)
        return int.from_bytes(buffer[_OTRANSID], "little")

    def sync(self) -> None:
        """Write the records that are only in memory to the tree: searches see nothing else.

        Of data appended to a file there is no record, in no transaction, before it is written back:
        BTRFS_IOC_SYNC does that, BTRFS_IOC_START_SYNC does not.
        """
        fcntl.ioctl(self._descriptor, _SYNC)

    def _items(
        self, first: tuple[int, int, int], last: tuple[int, int, int], since: int = 0
    ) -> Iterator[_Item]:
        """All items between two keys (objectid, type, offset) in blocks written since then."""
        at = first
        while at <= last:
            request = _SEARCH.pack(
                0, at[0], last[0], at[2], last[2], since, _MOST, at[1], last[1], 4096, 0, _ROOM
            )
            buffer = bytearray(request + bytes(_ROOM))
            fcntl.ioctl(self._descriptor, _TREE_SEARCH_V2, buffer)
            count = int.from_bytes(buffer[_COUNT], "little")
            if not count:
                return
            position = _SEARCH.size
            for _ in range(count):
                _, number, offset, kind, length = _HEADER.unpack_from(buffer, position)
                position += _HEADER.size
                yield number, kind, offset, bytes(buffer[position : position + length])
                position += length
            at = _after(number, kind, offset)

    def inodes(self, since: int) -> Iterator[Inode]:
        """The files that were touched since a transaction."""
        for number, kind, _, data in self._items((ROOT, 0, 0), (_MOST - 256, 255, _MOST), since):
            if kind == _INODE_ITEM and (found := _inode(number, data)).changed >= since:
                yield found

    def inode(self, number: int) -> Inode | None:
        """A file by its number."""
        key = (number, _INODE_ITEM, 0)
        return next((_inode(number, data) for *_, data in self._items(key, key)), None)

    def entries(self, directory: int) -> dict[bytes, int]:
        """Names in a directory; those of subvolumes have the number 0."""
        found = {}
        first, last = (directory, _DIR_INDEX, 0), (directory, _DIR_INDEX, _MOST)
        for *_, data in self._items(first, last):
            number, kind, length = _ENTRY.unpack_from(data)
            name = data[_ENTRY.size : _ENTRY.size + length]
            found[name] = number if kind == _INODE_ITEM else 0
        return found

    def paths(self, number: int) -> list[bytes]:
        """All paths of a file."""
        if number not in self._paths:
            # A directory has one; of an orphan, which is deleted and open, there is none.
            self._paths[number] = [
                above + b"/" + name if above else name
                for directory, name in self._names(number)
                for above in self.paths(directory)
            ]
        return self._paths[number]

    def _names(self, number: int) -> Iterator[tuple[int, bytes]]:
        first, last = (number, _INODE_REF, 0), (number, _INODE_EXTREF, _MOST)
        for _, kind, offset, data in self._items(first, last):
            position = 0
            while position < len(data):
                if kind == _INODE_REF:
                    directory, (length,) = offset, _REF.unpack_from(data, position)
                    position += _REF.size
                else:
                    directory, length = _EXTREF.unpack_from(data, position)
                    position += _EXTREF.size
                yield directory, data[position : position + length]
                position += length

    def below(self, directory: int, path: bytes) -> Iterator[bytes]:
        """Every path below a directory."""
        stack = [(directory, path)]
        while stack:
            at, above = stack.pop()
            for name, number in self.entries(at).items():
                inside = above + b"/" + name if above else name
                yield inside
                if number:
                    stack.append((number, inside))

    def find(self, path: bytes) -> int:
        """The number of what is at a path, 0 for nothing."""
        at = ROOT
        for name in path.split(b"/"):
            at = self.entries(at).get(name, 0)
            if not at:
                return 0
        return at


def _after(number: int, kind: int, offset: int) -> tuple[int, int, int]:
    if offset < _MOST:
        return number, kind, offset + 1
    return (number, kind + 1, 0) if kind < 255 else (number + 1, 0, 0)


def _inode(number: int, data: bytes) -> Inode:
    made, changed, size, mode = _INODE.unpack_from(data)
    return Inode(number, made, changed, size, stat.S_ISDIR(mode))


@contextmanager
def opened(path: Path) -> Iterator[Tree]:
    """The tree of the subvolume at a path, with all that was written so far."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        tree = Tree(descriptor)
        tree.sync()
        yield tree
    finally:
        os.close(descriptor)


def changed_inodes(top: Path, parent: Path | None) -> list[Inode]:
    """The files of a subvolume that it does not have from its parent as they are."""
    with opened(top) as tree:
        return list(tree.inodes(tree.origin() if parent else 0))


def changed_paths(top: Path, parent: Path | None) -> list[bytes]:
    """A superset of the paths at which a subvolume differs from its parent, parents first."""
    with opened(top) as tree:
        if parent is None:
            return sorted(tree.below(ROOT, b""))
        found: set[bytes] = set()
        with opened(parent) as old:
            for inode in tree.inodes(tree.origin()):
                found.update(tree.paths(inode.number))
                if inode.directory:
                    found.update(_in_directory(inode, tree, old))
    found.discard(b"")
    return sorted(found)


def _in_directory(inode: Inode, tree: Tree, old: Tree) -> Iterator[bytes]:
    """What a changed directory hides or shows that its own files do not tell."""
    before = old.inode(inode.number)
    known = before is not None and before.made == inode.made
    if not known:
        # What it holds is new, or was moved and tells so itself; but it may stand for another.
        for path in tree.paths(inode.number):
            yield from _replaced(path, old)
        return
    for path in tree.paths(inode.number):
        if path not in old.paths(inode.number):
            yield from tree.below(inode.number, path)
            yield from _replaced(path, old)
        names = tree.entries(inode.number).keys() ^ old.entries(inode.number).keys()
        yield from (path + b"/" + name if path else name for name in names)


def _replaced(path: bytes, old: Tree) -> Iterator[bytes]:
    number = old.find(path)
    if number:
        yield from old.below(number, path)
