"""The device allow-list of a cgroup: control files on version 1, a BPF program on version 2.

``rules`` are OCI runtime-spec ``linux.resources.devices``: later rules win, members left out match
everything. The program has type BPF_PROG_TYPE_CGROUP_DEVICE; its context is ``struct
bpf_cgroup_dev_ctx`` (include/uapi/linux/bpf.h): access type, major, minor.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lading.linux import syscalls

Rule = Mapping[str, Any]

_BPF_PROG_LOAD, _BPF_PROG_ATTACH, _BPF_PROG_DETACH = 5, 8, 9
_BPF_PROG_GET_FD_BY_ID, _BPF_PROG_QUERY = 13, 16
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_BPF_F_ALLOW_MULTI = 2
_MOST_PROGRAMS = 64

_BLOCK, _CHARACTER = 1, 2
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7

# Operation codes: Documentation/bpf/standardization/instruction-set.rst.
_LOAD_WORD, _AND_IMMEDIATE, _RIGHT_SHIFT = 0x61, 0x54, 0x74
_MOVE, _MOVE_IMMEDIATE, _JUMP_EQUAL, _JUMP_UNEQUAL, _EXIT = 0xBC, 0xB4, 0x16, 0x56, 0x95


def legacy(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """(file, text) for version 1, in order."""
    for rule in rules:
        file = "devices.allow" if rule.get("allow") else "devices.deny"
        kind = rule.get("type") or "a"
        if kind == "a" and rule.get("major") is None and rule.get("minor") is None:
            yield file, "a"
            continue
        major, minor = _number(rule.get("major")), _number(rule.get("minor"))
        for one in ("b", "c") if kind == "a" else (kind,):
            yield file, f"{one} {major}:{minor} {rule.get('access') or 'rwm'}"


def _number(value: int | None) -> str:
    return "*" if value is None or value < 0 else str(value)


#: A set of devices: type (``b`` or ``c``), major and minor, None for any.
_Key = tuple[str, int | None, int | None]


def _effective(rules: Sequence[Rule]) -> tuple[bool, dict[_Key, int]]:
    """What the rules come to, as version 1 keeps it: a default, and exceptions with access bits."""
    default, exceptions = False, dict[_Key, int]()
    for rule in rules:
        allow = bool(rule.get("allow"))
        kind = rule.get("type") or "a"
        key = (_wildcard(rule.get("major")), _wildcard(rule.get("minor")))
        if kind == "a" and key == (None, None):
            default, exceptions = allow, {}
            continue
        access = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
        for one in ("b", "c") if kind == "a" else (kind,):
            present = exceptions.get((one, *key), 0)
            left = present & ~access if allow == default else present | access
            exceptions[(one, *key)] = left
    return default, {key: access for key, access in exceptions.items() if access}


def _wildcard(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


def program(rules: Sequence[Rule]) -> bytes:
    """The BPF instructions: one block per exception from the default, the first match decides."""
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),  # r2 = type in the low half, access in the high
        _instruction(_MOVE, 3, 2, 0),
        _instruction(_AND_IMMEDIATE, 2, 0, 0, 0xFFFF),
        _instruction(_RIGHT_SHIFT, 3, 0, 0, 16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    default, exceptions = _effective(rules)
    for key, access in exceptions.items():
        code += _block(key, access, allow=not default)
    code += _verdict(allow=default)
    return b"".join(code)


def _verdict(*, allow: bool) -> list[bytes]:
    return [_instruction(_MOVE_IMMEDIATE, 0, 0, 0, int(allow)), _instruction(_EXIT, 0, 0, 0)]


def _block(key: _Key, access: int, *, allow: bool) -> list[bytes]:
    """One exception: jump over its verdict unless everything matches.

    It allows when all that is asked for is in it, and denies when any of it is.
    """
    kind, major, minor = key
    asked = ~access & _ALL_ACCESS if allow else access
    prologue = [_instruction(_MOVE, 1, 3, 0), _instruction(_AND_IMMEDIATE, 1, 0, 0, asked)]
    tests = [
        (_JUMP_UNEQUAL, 2, _BLOCK if kind == "b" else _CHARACTER),
        (_JUMP_UNEQUAL if allow else _JUMP_EQUAL, 1, 0),
        *((_JUMP_UNEQUAL, 4, n) for n in (major,) if n is not None),
        *((_JUMP_UNEQUAL, 5, n) for n in (minor,) if n is not None),
    ]
    verdict = _verdict(allow=allow)
    jumps = []
    for index, (operation, register, value) in enumerate(tests):
        distance = len(tests) - index - 1 + len(verdict)
        jumps.append(_instruction(operation, register, 0, distance, value))
    return prologue + jumps + verdict


def _instruction(code: int, to: int, source: int, offset: int, value: int = 0) -> bytes:
    return struct.pack("<BBhI", code, source << 4 | to, offset, value & 0xFFFFFFFF)


def set_program(directory: str, rules: Sequence[Rule]) -> None:
    """Load the program and attach it to a version 2 group, in place of those attached before.

    It stays until the group is removed. The old ones go last: in between both must agree.
    """
    loaded = _load(program(rules))
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(group)
        attach = struct.pack("IIII", group, loaded, _ATTACH_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
        _bpf(_BPF_PROG_ATTACH, attach, "attach the device program")
        for number in before:
            old = _bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("III", number, 0, 0), "open a program")
            detach = struct.pack("III", group, old, _ATTACH_CGROUP_DEVICE)
            _bpf(_BPF_PROG_DETACH, detach, "detach the former device program")
            os.close(old)
    finally:
        os.close(group)
        os.close(loaded)


def _load(code: bytes) -> int:
    buffer = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    addresses = ctypes.addressof(buffer), ctypes.addressof(licence)
    count, name = len(code) // 8, b"lading_devices"
    load = struct.pack(
        "IIQQIIQII16s", _PROG_TYPE_CGROUP_DEVICE, count, *addresses, 0, 0, 0, 0, 0, name
    )
    return _bpf(_BPF_PROG_LOAD, load, "load the device program")


def _attached(group: int) -> Sequence[int]:
    """The ids of the device programs that are attached to just this group."""
    numbers = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    query = ctypes.create_string_buffer(
        struct.pack(
            "IIIIQII", group, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(numbers),
            _MOST_PROGRAMS, 0,
        )
    )  # fmt: skip
    _bpf(_BPF_PROG_QUERY, query, "query the device programs")
    (count,) = struct.unpack_from("I", query, 24)
    return numbers[:count]


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char], what: str) -> int:
    result = syscalls.libc.syscall(syscalls.SYS_BPF, command, attributes, len(attributes))
    return syscalls.check(result, f"bpf: {what}")
