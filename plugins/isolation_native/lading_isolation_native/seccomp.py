"""OCI ``linux.seccomp`` compiled by libseccomp, and installed by seccomp(2).

Compiling Docker's default profile takes milliseconds, so the program is kept in a file named by
the profile's digest; installing one is a single call.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
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


class _Argument(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


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


def compiled(profile: Json, cache_directory: Path) -> bytes:
    """The BPF program of a profile, from the cache or made now.

    Raises Invalid for unknown actions, operators and architectures, Unsupported.
    """
    text = json.dumps(profile, sort_keys=True).encode()
    path = cache_directory / f"{hashlib.sha256(text).hexdigest()}.bpf"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    program = _compile(profile)
    cache_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=cache_directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(program)
    os.rename(temporary, path)
    return program


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise Invalid(f'seccomp: unknown action "{name}"', hint=f"known: {', '.join(_ACTIONS)}")
    value = _ACTIONS[name]
    if name in _WITH_NUMBER:
        value |= (errno.EPERM if number is None else number) & 0xFFFF
    return value


def _compile(profile: Json) -> bytes:
    lib = library()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = lib.seccomp_init(ctypes.c_uint32(default))
    if not context:
        raise Invalid("seccomp: the default action was refused")
    try:
        _add_architectures(context, profile.get("architectures") or ())
        # Filters of a container must not force no_new_privs: that is the config's to say.
        lib.seccomp_attr_set(context, 3, 0)
        for rule in profile.get("syscalls") or ():
            action = _action(rule["action"], rule.get("errnoRet"))
            if action != default:
                for name in rule["names"]:
                    _add_rule(context, name, action, rule.get("args") or ())
        return _export(context)
    finally:
        lib.seccomp_release(context)


def _add_architectures(context: int, names: Any) -> None:
    lib = library()
    for name in names:
        short = name.removeprefix("SCMP_ARCH_").lower().encode()
        token = lib.seccomp_arch_resolve_name(short)
        if not token:
            raise Invalid(f'seccomp: unknown architecture "{name}"')
        result = lib.seccomp_arch_add(context, token)
        if result not in (0, -errno.EEXIST):
            raise Invalid(f'seccomp: architecture "{name}": {os.strerror(-result)}')


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
                _Argument(a["index"], _comparison(a["op"]), a["value"], a.get("valueTwo") or 0)
                for a in group
            )
        )
        result = lib.seccomp_rule_add_array(context, action, number, len(group), values)
        if result not in (0, -errno.EEXIST):
            raise Invalid(f'seccomp: rule for "{name}": {os.strerror(-result)}')


def _comparison(name: str) -> int:
    if name not in _COMPARE:
        raise Invalid(f'seccomp: unknown operator "{name}"', hint=f"known: {', '.join(_COMPARE)}")
    return _COMPARE[name]


def _export(context: int) -> bytes:
    with open(os.memfd_create("seccomp"), "r+b") as file:
        result = library().seccomp_export_bpf(context, file.fileno())
        if result != 0:
            raise Invalid(f"seccomp: export: {os.strerror(-result)}")
        file.seek(0)
        return file.read()


def install(program: bytes) -> None:
    """Filter this process, and what it executes, from now on."""
    buffer = ctypes.create_string_buffer(program, len(program))
    description = _Program(len(program) // 8, ctypes.addressof(buffer))
    number = _SYS_SECCOMP.get(os.uname().machine, 317)
    result = syscalls.libc.syscall(number, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(description))
    syscalls.check(result, "seccomp")
