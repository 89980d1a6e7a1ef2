"""The device allow-list of a cgroup: control files on version 1, a BPF program on version 2.

``rules`` are OCI runtime-spec ``linux.resources.devices``: later rules win, members left out match
everything. The program has type BPF_PROG_TYPE_CGROUP_DEVICE; its context is ``struct
bpf_cgroup_dev_ctx`` (include/uapi/linux/bpf.h): access type, major, minor.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lading.linux import syscalls

Rule = Mapping[str, Any]

_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_BPF_F_ALLOW_MULTI = 2

_BLOCK, _CHARACTER = 1, 2
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Operation codes: Documentation/bpf/standardization/instruction-set.rst.
_LOAD_WORD, _AND_IMMEDIATE, _RIGHT_SHIFT = 0x61, 0x54, 0x74
_MOVE, _MOVE_IMMEDIATE, _JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER, _EXIT = 0xBC, 0xB4, 0x56, 0x5E, 0x95


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


def program(rules: Sequence[Rule]) -> bytes:
    """The BPF instructions: rules tried last to first, the first that matches decides."""
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),  # r2 = type in the low half, access in the high
        _instruction(_MOVE, 3, 2, 0),
        _instruction(_AND_IMMEDIATE, 2, 0, 0, 0xFFFF),
        _instruction(_RIGHT_SHIFT, 3, 0, 0, 16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for rule in reversed(rules):
        code += _block(rule)
    code += [_instruction(_MOVE_IMMEDIATE, 0, 0, 0, 0), _instruction(_EXIT, 0, 0, 0)]
    return b"".join(code)


def _block(rule: Rule) -> list[bytes]:
    """One rule: jump over its verdict unless everything matches."""
    tests: list[tuple[int, int, int, int]] = []
    kind = rule.get("type") or "a"
    if kind in ("b", "c"):
        tests.append((_JUMP_UNEQUAL, 2, 0, _BLOCK if kind == "b" else _CHARACTER))
    prologue: list[bytes] = []
    access = sum(_ACCESS[letter] for letter in rule.get("access") or "rwm" if letter in _ACCESS)
    if access != sum(_ACCESS.values()):
        # All that is asked for must be among what the rule names.
        prologue = [
            _instruction(_MOVE, 1, 3, 0),
            _instruction(_AND_IMMEDIATE, 1, 0, 0, access),
        ]
        tests.append((_JUMP_UNEQUAL_REGISTER, 1, 3, 0))
    for register, member in ((4, "major"), (5, "minor")):
        value = rule.get(member)
        if value is not None and value >= 0:
            tests.append((_JUMP_UNEQUAL, register, 0, value))
    verdict = [
        _instruction(_MOVE_IMMEDIATE, 0, 0, 0, 1 if rule.get("allow") else 0),
        _instruction(_EXIT, 0, 0, 0),
    ]
    jumps = []
    for index, (operation, register, source, value) in enumerate(tests):
        distance = len(tests) - index - 1 + len(verdict)
        jumps.append(_instruction(operation, register, source, distance, value))
    return prologue + jumps + verdict


def _instruction(code: int, to: int, source: int, offset: int, value: int = 0) -> bytes:
    return struct.pack("<BBhI", code, source << 4 | to, offset, value & 0xFFFFFFFF)


def attach_program(directory: str, rules: Sequence[Rule]) -> None:
    """Load the program and attach it to a version 2 group, where it stays until that is removed."""
    code = program(rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    load = struct.pack(
        "IIQQIIQII16s",
        _PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(buffer),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"lading_devices",
    )
    loaded = _bpf(_BPF_PROG_LOAD, load, "load the device program")
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attach = struct.pack("IIII", group, loaded, _ATTACH_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
        _bpf(_BPF_PROG_ATTACH, attach, "attach the device program")
    finally:
        os.close(group)
        os.close(loaded)


def _bpf(command: int, attributes: bytes, what: str) -> int:
    result = syscalls.libc.syscall(syscalls.SYS_BPF, command, attributes, len(attributes))
    return syscalls.check(result, f"bpf: {what} ({platform.machine()})")
