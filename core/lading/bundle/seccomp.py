"""OCI ``linux.seccomp`` compiled by libseccomp, and installed by seccomp(2).

Compiling Docker's default profile takes milliseconds, so the program is kept in a file named by
the profile's digest; installing one is a single call.

A profile that denies by an error number can only name the system calls of its day. To a program
that tries a newer one, "not permitted" is a failure, while "not implemented" makes it fall back to
an older one. So numbers above all that the profile names are answered with ENOSYS, by
instructions put before libseccomp's (as runc does since 2021).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lading.errors import Invalid, Unsupported
from lading.linux import syscalls

Json = Mapping[str, Any]

LIBRARY = "libseccomp.so.2"
_SECCOMP_SET_MODE_FILTER = 1
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "s390x": 348, "ppc64le": 358}

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_COMPARE = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_UNKNOWN_SYSCALL = -1
_ATTRIBUTE_NO_NEW_PRIVS, _ATTRIBUTE_OPTIMIZE = 3, 8
_BINARY_TREE = 2
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}

#: Part of the cache's file names: another one when the same profile compiles to something else.
_FORMAT = "3"

_X86_64 = 0xC000003E
#: x32 has no architecture of its own in the kernel: its numbers have this bit.
_X32, _X32_BIT = 0x4000003E, 0x40000000

# Classic BPF (include/uapi/linux/filter.h) and struct seccomp_data.
_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4


class _Argument(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled profile: instructions, and flags for their installation."""

    program: bytes
    flags: int

    def install(self) -> None:
        """Filter this process, and what it executes, from now on."""
        buffer = ctypes.create_string_buffer(self.program, len(self.program))
        description = _Program(len(self.program) // 8, ctypes.addressof(buffer))
        number = _SYS_SECCOMP.get(os.uname().machine, 317)
        result = syscalls.libc.syscall(
            number, _SECCOMP_SET_MODE_FILTER, self.flags, ctypes.byref(description)
        )
        syscalls.check(result, "seccomp")


@cache
def library() -> Any:
    """libseccomp. Raises Unsupported where it is missing."""
    try:
        found = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise Unsupported("seccomp: libseccomp is missing", hint="install libseccomp2") from error
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Argument),
    ]  # fmt: skip
    return found


def version() -> str:
    """libseccomp's version, "" when it is missing."""

    class Version(ctypes.Structure):
        _fields_ = [(n, ctypes.c_uint) for n in ("major", "minor", "micro")]

    try:
        library().seccomp_version.restype = ctypes.POINTER(Version)
        found = library().seccomp_version().contents
    except Unsupported:
        return ""
    return f"{found.major}.{found.minor}.{found.micro}"


def compiled(profile: Json | None, cache_directory: Path) -> Filter | None:
    """The filter of a profile, from the cache or made now.

    Raises Invalid for unknown actions, operators, flags and architectures, Unsupported.
    """
    if not profile:
        return None
    flags = 0
    for name in profile.get("flags") or ():
        flags |= _known(_FLAGS, "flag", name)
    text = json.dumps(profile, sort_keys=True).encode()
    # Not sha256: OpenSSL would set itself up anew in every process that is forked for a start.
    path = cache_directory / f"{hashlib.blake2b(text, digest_size=32).hexdigest()}.{_FORMAT}.bpf"
    try:
        return Filter(path.read_bytes(), flags)
    except FileNotFoundError:
        pass
    program = _compile(profile)
    cache_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=cache_directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(program)
    os.rename(temporary, path)
    return Filter(program, flags)


def _known(table: Mapping[str, int], what: str, name: str) -> int:
    if name not in table:
        raise Invalid(f'seccomp: unknown {what} "{name}"', hint=f"known: {', '.join(table)}")
    return table[name]


def _action(name: str, number: int | None) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise Unsupported("seccomp: notifying a listener (SCMP_ACT_NOTIFY) is not supported")
    value = _known(_ACTIONS, "action", name)
    if name in _WITH_NUMBER:
        value |= (errno.EPERM if number is None else number) & 0xFFFF
    return value


def _compile(profile: Json) -> bytes:
    lib = library()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    tokens = [_architecture(name) for name in profile.get("architectures") or ()]
    rules = profile.get("syscalls") or ()
    context = lib.seccomp_init(ctypes.c_uint32(default))
    if not context:
        raise Invalid("seccomp: the default action was refused")
    try:
        for token in tokens:
            result = lib.seccomp_arch_add(context, token)
            if result not in (0, -errno.EEXIST):
                raise Invalid(f"seccomp: architecture {token:#x}: {os.strerror(-result)}")
        # Filters of a container must not force no_new_privs: that is the config's to say.
        lib.seccomp_attr_set(context, _ATTRIBUTE_NO_NEW_PRIVS, 0)
        # At installation the kernel tries every system call out on the filter: as a list of tests
        # that takes most of a millisecond. Libraries before 2.5 have no trees.
        lib.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)
        for rule in rules:
            action = _action(rule["action"], rule.get("errnoRet"))
            if action != default:
                for name in rule["names"]:
                    _add_rule(context, name, action, rule.get("args") or ())
        program = _export(context)
    finally:
        lib.seccomp_release(context)
    denies = default & ~0xFFFF == _ACTIONS["SCMP_ACT_ERRNO"]
    if denies and default & 0xFFFF != errno.ENOSYS:
        names = [name for rule in rules for name in rule["names"]]
        native = lib.seccomp_arch_native()
        return b"".join(_newer(sorted({*tokens, native}), names)) + program
    return program


def _architecture(name: str) -> int:
    token = library().seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if not token:
        raise Invalid(f'seccomp: unknown architecture "{name}"')
    return int(token)


def _newer(tokens: Sequence[int], names: Sequence[str]) -> Iterator[bytes]:
    """Instructions that answer ENOSYS to calls newer than all named, on each architecture."""
    resolve = library().seccomp_syscall_resolve_name_arch
    not_implemented = _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
    for token in tokens:
        newest = max((resolve(token, name.encode()) for name in names), default=-1)
        if newest < 0:
            continue
        # Each test passes over what is left of its block when it fails.
        tests = [(_JUMP_GREATER, newest, True)]
        if token in (_X86_64, _X32):
            tests.insert(0, (_JUMP_GREATER_EQUAL, _X32_BIT, token == _X32))
        seen_as = _X86_64 if token == _X32 else token
        yield _statement(_LOAD, _ARCHITECTURE_OFFSET)
        yield _jump(_JUMP_EQUAL, seen_as, len(tests) + 2, when=True)
        yield _statement(_LOAD, _NUMBER_OFFSET)
        for index, (operation, value, when) in enumerate(tests):
            yield _jump(operation, value, len(tests) - index, when=when)
        yield _statement(_RETURN, not_implemented)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("HBBI", code, 0, 0, value)


def _jump(code: int, value: int, distance: int, *, when: bool) -> bytes:
    """Go on when the test comes out as ``when``, else jump."""
    return struct.pack("HBBI", code, 0 if when else distance, distance if when else 0, value)


def _add_rule(context: int, name: str, action: int, arguments: Any) -> None:
    lib = library()
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN_SYSCALL:
        # A profile may name calls that this library, or this architecture, does not have.
        return
    groups: list[list[Any]] = [list(arguments)]
    if len({a["index"] for a in arguments}) < len(arguments):
        # libseccomp takes an argument once per rule; several conditions on one mean "any".
        groups = [[a] for a in arguments]
    for group in groups:
        values = (_Argument * len(group))(
            *(
                _Argument(
                    a["index"],
                    _known(_COMPARE, "operator", a["op"]),
                    a["value"],
                    a.get("valueTwo") or 0,
                )
                for a in group
            )
        )
        result = lib.seccomp_rule_add_array(context, action, number, len(group), values)
        if result not in (0, -errno.EEXIST):
            raise Invalid(f'seccomp: rule for "{name}": {os.strerror(-result)}')


def _export(context: int) -> bytes:
    with open(os.memfd_create("seccomp"), "r+b") as file:
        result = library().seccomp_export_bpf(context, file.fileno())
        if result != 0:
            raise Invalid(f"seccomp: export: {os.strerror(-result)}")
        file.seek(0)
        return file.read()
