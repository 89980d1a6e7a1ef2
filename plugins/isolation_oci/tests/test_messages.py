"""What the texts of the runtimes become."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lading.errors import NotFound, StartFailed
from lading_isolation_oci import binary


@pytest.mark.parametrize(
    ("text", "number", "told"),
    [
        ("executable file `x` not found: No such file or directory", errno.ENOENT, "no such"),
        ("open executable: Permission denied", errno.EACCES, "permission denied"),
        (
            "the path `/x` exists but it is not executable: Operation not permitted",
            errno.EACCES,
            "permission denied",
        ),
        ("the path `/x` is not a regular file: Operation not permitted", errno.EACCES, "denied"),
        ("mount `x`: Operation not permitted", 0, "Operation not permitted"),
    ],
)
def test_why_no_program_runs(text: str, number: int, told: str, tmp_path: Path) -> None:
    """Clients take their exit codes 126 and 127 from these."""
    container: Any = SimpleNamespace(state=tmp_path, id="c")
    error = binary.failure(container, "create", text.encode())
    assert isinstance(error, StartFailed)
    assert (error.errno, told in str(error)) == (number, True)


def test_a_container_that_is_removed_meanwhile_is_not_found(tmp_path: Path) -> None:
    container: Any = SimpleNamespace(state=tmp_path, id="c")
    text = b"error opening file `/run/x/runtime/c/status`: No such file or directory"
    assert isinstance(binary.failure(container, "state", text), NotFound)
