"""liblxc by ctypes: ``lxc/lxccontainer.h`` and ``lxc/attach_options.h``, as far as we need them.

The header promises that members of these structures are only ever added at their end.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lading.errors import LadingError, Unsupported
from lading_isolation_lxc import interpose

NAME = "liblxc.so.1"
#: It executes a container's init with the first, and removes cgroups with the second.
_EXECUTE, _REMOVE = "execvp", "unlinkat"

_ATTACH_MOVE_TO_CGROUP = 1
_PERSONALITY_AS_IT_IS = -1
_NO_ID = (1 << 32) - 1
#: Its ``lxc_container_new`` fails when a lock's directory goes that very moment.
_TRIES = 5

# With the interpreter's lock held throughout: our functions are called back in forked processes.
_Predicate = ctypes.PYFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
_Execute = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_Remove = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
_Attached = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)

#: Members of ``struct lxc_container`` from ``is_defined`` to ``attach``, all pointers to functions.
_METHODS = """
    is_defined state is_running freeze unfreeze init_pid load_config start startl stop
    want_daemonize want_close_all_fds config_file_name wait set_config_item destroy save_config
    create createl rename reboot shutdown clear_config clear_config_item get_config_item
    get_running_config_item get_keys get_interfaces get_ips get_cgroup_item set_cgroup_item
    get_config_path set_config_path clone console_getfd console attach
"""


class _Container(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("configfile", ctypes.c_void_p),
        ("pidfile", ctypes.c_void_p),
        ("slock", ctypes.c_void_p),
        ("privlock", ctypes.c_void_p),
        ("numthreads", ctypes.c_int),
        ("lxc_conf", ctypes.c_void_p),
        ("error_string", ctypes.c_void_p),
        ("error_num", ctypes.c_int),
        ("daemonize", ctypes.c_bool),
        ("config_path", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _METHODS.split()),
    ]


class _Groups(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("list", ctypes.c_void_p)]


class _AttachOptions(ctypes.Structure):
    _fields_ = [
        ("attach_flags", ctypes.c_int),
        ("namespaces", ctypes.c_int),
        ("personality", ctypes.c_long),
        ("initial_cwd", ctypes.c_char_p),
        ("uid", ctypes.c_uint),
        ("gid", ctypes.c_uint),
        ("env_policy", ctypes.c_int),
        ("extra_env_vars", ctypes.c_void_p),
        ("extra_keep_env", ctypes.c_void_p),
        ("stdin_fd", ctypes.c_int),
        ("stdout_fd", ctypes.c_int),
        ("stderr_fd", ctypes.c_int),
        ("log_fd", ctypes.c_int),
        ("lsm_label", ctypes.c_char_p),
        ("groups", _Groups),
    ]


@cache
def library() -> ctypes.PyDLL:
    """The library. Raises Unsupported where it is missing."""
    try:
        found = ctypes.PyDLL(NAME)
    except OSError as error:
        raise Unsupported(f"{NAME} is missing", hint="install liblxc1") from error
    found.lxc_get_version.restype = ctypes.c_char_p
    found.lxc_container_new.restype = ctypes.POINTER(_Container)
    found.lxc_container_new.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    found.lxc_container_put.argtypes = [ctypes.POINTER(_Container)]
    return found


def version() -> str:
    """The library's version. Raises Unsupported."""
    return str(library().lxc_get_version().decode())


def interposable() -> bool:
    """Whether the library makes the calls that are to be led elsewhere."""
    return all(interpose.slots(library(), name) for name in (_EXECUTE, _REMOVE))


class LxcContainer:
    """A ``struct lxc_container``, by the configuration ``<place>/<name>/config``."""

    def __init__(self, name: str, place: Path) -> None:
        for _ in range(_TRIES):
            self._pointer = library().lxc_container_new(name.encode(), str(place).encode())
            if self._pointer:
                return
        raise LadingError(f'liblxc cannot open container "{name}" in {place}')

    def close(self) -> None:
        """Let go of it."""
        library().lxc_container_put(self._pointer)

    def _method(self, name: str, kind: Any, *types: Any) -> Callable[..., Any]:
        prototype = ctypes.PYFUNCTYPE(kind, ctypes.c_void_p, *types)
        method = prototype(getattr(self._pointer.contents, name))
        return lambda *arguments: method(self._pointer, *arguments)

    def run(self, become: Callable[[], None]) -> tuple[bool, int]:
        """Run the container to its end; its init calls ``become`` where LXC would execute.

        Returns whether LXC finds that it went well, which it does not for an init that was killed,
        and the init's status as waitpid(2) has it, if there was one.
        """

        def execute(file: bytes, arguments: int) -> int:
            become()
            return -1

        def keep(directory: int, name: bytes, flags: int) -> int:
            # A container's groups are read after its end (stats), and the backend's to remove.
            return 0

        functions = {_EXECUTE: _Execute(execute), _REMOVE: _Remove(keep)}
        for name, function in functions.items():
            interpose.replace(library(), name, function)
        self._method("want_daemonize", ctypes.c_bool, ctypes.c_bool)(False)
        start = self._method("start", ctypes.c_bool, ctypes.c_int, ctypes.c_void_p)
        arguments = (ctypes.c_char_p * 2)(b"init", None)
        well = start(0, ctypes.addressof(arguments))
        return well, int(self._pointer.contents.error_num)

    def attach(self, namespaces: int, null: int, become: Callable[[], None]) -> int:
        """Fork a process in these namespaces (``CLONE_NEW*``) and the cgroup; its pid.

        It is a child of the caller and calls ``become``. ``null`` is the null device, its streams
        until then. Raises LadingError.
        """

        def attached(payload: int) -> int:
            become()
            return 1

        function = _Attached(attached)
        options = _AttachOptions(
            attach_flags=_ATTACH_MOVE_TO_CGROUP,
            namespaces=namespaces,
            personality=_PERSONALITY_AS_IT_IS,
            uid=_NO_ID,
            gid=_NO_ID,
            stdin_fd=null,
            stdout_fd=null,
            stderr_fd=null,
            log_fd=-1,
        )
        pid = ctypes.c_int(-1)
        attach = self._method(
            "attach", ctypes.c_int, _Attached, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
        )
        result = attach(function, None, ctypes.addressof(options), ctypes.addressof(pid))
        if result != 0 or pid.value <= 0:
            raise LadingError("liblxc could not join the container")
        return pid.value


_FAILURE = re.compile(r" ERROR +\S+ - \S+:\d+ - (.+)")
#: Said of every container that has no root of LXC's making.
_HARMLESS = "Failed to mount temporary procfs"


def explanation(log: Path) -> str:
    """The first error in one of the library's logs, "" when there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return next((said for said in _FAILURE.findall(text) if _HARMLESS not in said), "")
