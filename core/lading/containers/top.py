"""``docker top``: ps(1) on a container's processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection

from lading.containers.records import Processes
from lading.errors import Invalid, LadingError

#: ps(1) options that would hide the column of pids, or let it write what is not a table.
_FORBIDDEN = re.compile(r"\s+(--no-headers|h)\s+")

_SECONDS = 10


def processes(pids: Collection[int], ps_args: str = "-ef") -> Processes:
    """Run ps(1) and keep the rows of these host pids. Raises Invalid for options of no use."""
    arguments = ps_args.split() or ["-ef"]
    program = shutil.which("ps")
    if program is None:
        raise LadingError("ps: not found on the host", hint="install procps")
    if _FORBIDDEN.search(f" {ps_args} "):
        raise Invalid(f'ps options "{ps_args}": headers are needed to read the table')
    done = _run([program, *arguments])
    if done.returncode != 0:
        raise LadingError(f"ps: {done.stderr.decode(errors='replace').strip() or done.returncode}")
    return parse(done.stdout.decode(errors="replace"), pids)


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise LadingError(f"ps: no answer within {_SECONDS} s") from None


def parse(output: str, pids: Collection[int]) -> Processes:
    """Split ps(1)'s table; the last column may hold spaces. Raises Invalid without PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise Invalid("Couldn't find PID field in ps output")
    index = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > index and fields[index].isdecimal() and int(fields[index]) in pids:
            rows.append(fields + [""] * (len(titles) - len(fields)))
    return Processes(titles, rows)
