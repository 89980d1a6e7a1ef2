"""Parts that need no container: the config, the seccomp compiler, PATH and messages."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lading.bundle import seccomp
from lading.bundle.config import Config, Limit, Process
from lading.containers.seccomp import default
from lading.errors import Invalid, Unsupported
from lading.linux import syscalls

PROCESS = {"args": ["true"], "cwd": "/"}
ALLOWED = ("read", "write", "exit_group", "getpid", "close", "munmap", "brk", "futex")


def document(**members: Any) -> dict[str, Any]:
    return {"process": PROCESS, "linux": {"namespaces": [{"type": "mount"}]}} | members


def test_config_with_defaults() -> None:
    config = Config.of(document())
    assert config.process.uid == 0
    assert config.mounts == []
    assert not config.remapped
    assert config.outside(5) == 5


@pytest.mark.parametrize(
    ("process", "text"),
    [
        ({"args": []}, "args is empty"),
        ({"args": ["a\0b"]}, "null byte"),
        ({"args": ["a"], "env": ["A=\0"]}, "null byte"),
        ({"args": ["a"], "cwd": "tmp"}, 'cwd "tmp" is not absolute'),
        ({"args": ["a"], "rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, "RLIMIT_X"),
        ({"args": ["a"], "rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}, "above"),
    ],
)
def test_refused_processes(process: dict[str, Any], text: str) -> None:
    with pytest.raises(Invalid, match=text):
        Process.of(process)


def test_infinite_limits() -> None:
    for value in (-1, (1 << 64) - 1):
        limit = Limit.of({"type": "RLIMIT_NOFILE", "soft": value, "hard": value})
        assert (limit.soft, limit.hard) == (-1, -1)


@pytest.mark.parametrize(
    "linux",
    [
        {"namespaces": [{"type": "dreams"}, {"type": "mount"}]},
        {"namespaces": []},
        {"namespaces": [{"type": "mount", "path": "/proc/1/ns/mnt"}]},
        {"namespaces": [{"type": "mount"}], "personality": {"domain": "LINUX32"}},
    ],
)
def test_what_cannot_be_held(linux: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        Config.of(document(linux=linux))


def test_user_namespace_needs_mappings() -> None:
    kinds = [{"type": "mount"}, {"type": "user"}]
    with pytest.raises(Invalid, match="uidMappings"):
        Config.of(document(linux={"namespaces": kinds}))
    rows = [{"containerID": 0, "hostID": 1000, "size": 10}]
    linux = {"namespaces": kinds, "uidMappings": rows, "gidMappings": rows}
    config = Config.of(document(linux=linux))
    assert [config.outside(uid) for uid in (0, 9, 10)] == [1000, 1009, -1]


def test_malformed_documents(tmp_path: Path) -> None:
    for text in (
        "{",
        '{"process": []}',
        '{"process": {"args": ["a"]}, "linux": {"namespaces": 7}}',
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(Invalid, match=r"config\.json"):
            Config.read(tmp_path)


def profile(**members: Any) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"}],
    } | members


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"defaultAction": "SCMP_ACT_DANCE"}, Invalid),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, Unsupported),
        ({"architectures": ["SCMP_ARCH_Z80"]}, Invalid),
        ({"flags": ["SECCOMP_FILTER_FLAG_UP"]}, Invalid),
    ],
)
def test_refused_profiles(tmp_path: Path, change: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        seccomp.compiled(profile(**change), tmp_path)


def test_compiled_profiles_are_kept(tmp_path: Path) -> None:
    first = seccomp.compiled(profile(), tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert seccomp.compiled(profile(), tmp_path / "cache") == first
    assert seccomp.compiled(None, tmp_path / "cache") is None


def under(program: seccomp.Filter, call: Callable[[], int]) -> int:
    """The errno of a call in a child that has the filter, 0 when it succeeds."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        program.install()
        os.write(write, bytes([ctypes.get_errno() if call() < 0 else 0]))
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    answer = os.read(read, 1)
    os.close(read)
    return answer[0]


def raw(*arguments: int) -> Callable[[], int]:
    return lambda: int(syscalls.libc.syscall(*(ctypes.c_long(a) for a in arguments)))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of one architecture")
def test_denied_unknown_and_newer_calls(tmp_path: Path) -> None:
    program = seccomp.compiled(profile(), tmp_path)
    assert program is not None
    getpid, keyctl, clone3 = 39, 250, 435
    assert under(program, raw(getpid)) == 0
    assert under(program, raw(keyctl, 0)) == errno.ENOSYS  # above all that the profile names
    named = profile(syscalls=[{"names": [*ALLOWED, "clone3"], "action": "SCMP_ACT_ALLOW"}])
    wider = seccomp.compiled(named, tmp_path)
    assert wider is not None
    assert under(wider, raw(keyctl, 0)) == errno.EPERM
    assert under(wider, raw(clone3 + 1, 5, 4, 0)) == errno.ENOSYS
    x32_getpid = getpid | 0x40000000
    assert under(wider, raw(x32_getpid)) in (0, errno.ENOSYS)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of one architecture")
def test_arguments_decide(tmp_path: Path) -> None:
    personality = 135
    rule = {
        "names": ["personality"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_EQ"}],
    }
    rules = [{"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"}, rule]
    program = seccomp.compiled(profile(syscalls=rules), tmp_path)
    assert program is not None
    assert under(program, raw(personality, 0xFFFFFFFF)) == 0
    assert under(program, raw(personality, 0x0040000)) == errno.EPERM


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of one architecture")
def test_default_profile(tmp_path: Path) -> None:
    program = seccomp.compiled(default(["CAP_CHOWN", "CAP_NET_RAW"]), tmp_path)
    assert program is not None
    socket, unshare, keyctl, clone3, clone, mount = 41, 272, 250, 435, 56, 165
    for call, number in (
        (raw(socket, 2, 2, 0), 0),
        (raw(socket, 16, 3, 0), 0),
        (raw(socket, 38, 5, 0), errno.EPERM),
        (raw(socket, 40, 1, 0), errno.EPERM),
        (raw(unshare, 0), errno.EPERM),
        (raw(keyctl, 0), errno.EPERM),
        (raw(mount, 0, 0, 0, 0, 0), errno.EPERM),
        (raw(clone3, 0, 0), errno.ENOSYS),
        (raw(clone, syscalls.CLONE_NEWUSER | 17, 0, 0, 0, 0), errno.EPERM),
        (raw(600), errno.ENOSYS),
    ):
        assert under(program, call) == number
    wide = seccomp.compiled(default(["CAP_SYS_ADMIN"]), tmp_path)
    assert wide is not None
    assert under(wide, raw(unshare, 0)) == 0
