"""Load kernel modules with their dependencies, from the guest kernel's own directory.

modprobe(8) looks only under /lib/modules, where user-mode-linux's modules are not.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def main() -> None:
    top = Path("/usr/lib/uml/modules") / os.uname().release
    dependencies = {}
    for line in (top / "modules.dep").read_text().splitlines():
        name, _, needs = line.partition(":")
        dependencies[Path(name).name.removesuffix(".ko").replace("-", "_")] = [name, *needs.split()]
    for wanted in sys.argv[1:]:
        # The file lists the nearest dependency first.
        for path in reversed(dependencies.get(wanted, [])):
            load(top / path)


def load(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(313, descriptor, b"", 0) != 0 and ctypes.get_errno() != 17:
        print(f"{path.name}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
    os.close(descriptor)


if __name__ == "__main__":
    main()
