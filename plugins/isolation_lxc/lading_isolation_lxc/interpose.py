"""Have a shared library call a function of ours instead of one that it imports.

liblxc runs a function of its caller's in a container that runs already (``attach``), but its init
it can only execute, from the container's root, with an environment, capabilities and messages that
are not OCI's. So the one call by which it would execute is led to us: the library's global offset
table, where the address of each imported function stands (System V ABI, "Dynamic Linking"), gets
another one. That is the library's copy in this process alone, and in those that are forked of it.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from typing import Any

from lading.errors import Unsupported
from lading.linux import syscalls

# elf(5): tags of the dynamic section, and the sizes of a relocation and of a symbol in ELF64.
_DT_STRTAB, _DT_SYMTAB = 5, 6
_TABLES = ((23, 2), (7, 8))  # DT_JMPREL and DT_PLTRELSZ, DT_RELA and DT_RELASZ
_RELA, _SYMBOL = struct.Struct("QQq"), struct.Struct("IBBHQQ")
_DYNAMIC = struct.Struct("qQ")


class _LinkMap(ctypes.Structure):
    """What a handle of dlopen(3) points to in the GNU C library (link.h)."""

    _fields_ = [("address", ctypes.c_size_t), ("name", ctypes.c_char_p), ("ld", ctypes.c_size_t)]


def slots(library: ctypes.CDLL, name: str) -> list[int]:
    """The addresses in the library's tables where the function ``name`` is looked up."""
    loaded = _LinkMap.from_address(library._handle)
    tags = dict(_dynamic(loaded.ld))

    def address(tag: int) -> int:
        # Some architectures leave these relative to where the library was loaded.
        value = tags[tag]
        return int(value if value >= loaded.address else value + loaded.address)

    found = []
    for table, size in _TABLES:
        for offset in range(0, tags.get(size, 0), _RELA.size):
            place, info, _ = _RELA.unpack(ctypes.string_at(address(table) + offset, _RELA.size))
            entry = address(_DT_SYMTAB) + (info >> 32) * _SYMBOL.size
            text = _SYMBOL.unpack(ctypes.string_at(entry, _SYMBOL.size))[0]
            if info >> 32 and ctypes.string_at(address(_DT_STRTAB) + text) == name.encode():
                found.append(loaded.address + place)
    return found


def _dynamic(place: int) -> Iterator[tuple[int, int]]:
    while True:
        tag, value = _DYNAMIC.unpack(ctypes.string_at(place, _DYNAMIC.size))
        if tag == 0:
            return
        yield tag, value
        place += _DYNAMIC.size


def replace(library: ctypes.CDLL, name: str, function: Any) -> None:
    """Lead the library's calls of ``name`` to a ctypes callback, which must be kept alive.

    Raises Unsupported when the library does not import it.
    """
    places = slots(library, name)
    if not places:
        raise Unsupported(f"{library._name} does not call {name}")
    for place in places:
        page = place & ~(mmap.PAGESIZE - 1)
        # Read-only since the library was linked (RELRO).
        result = syscalls.libc.mprotect(
            ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE
        )
        syscalls.check(result, "mprotect")
        ctypes.c_void_p.from_address(place).value = ctypes.cast(function, ctypes.c_void_p).value
