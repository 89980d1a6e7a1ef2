"""Functions in processes of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lading.errors import Cancelled, Conflict, LadingError, Unavailable
from lading.monitor import Spawner, Task


def start(spawner: Spawner, name: str, args: dict[str, object], *fds: int) -> Task:
    return spawner.task(f"task_functions:{name}", args, fds, mount_namespace=False)


def test_a_result_of_any_size(spawner: Spawner) -> None:
    args: dict[str, object] = {"list": ["x" * 1000] * 2000, "text": "Grüße"}
    assert start(spawner, "echo", args).wait(20) == args


def test_descriptors(spawner: Spawner) -> None:
    reads, writes = os.pipe()
    os.write(writes, b"through")
    try:
        assert start(spawner, "read", {}, reads).wait(20) == "through"
    finally:
        os.close(reads)
        os.close(writes)


def test_surroundings(spawner: Spawner) -> None:
    found = start(spawner, "where", {}).wait(20)
    assert found["cwd"] == "/"
    assert found["session"]
    assert found["mounts"] == os.readlink("/proc/self/ns/mnt")
    assert len(found["fds"]) == 5  # three, the connection, the directory that it lists


@pytest.mark.root
def test_its_own_mounts(spawner: Spawner) -> None:
    found = spawner.task("task_functions:where", {}).wait(20)
    assert found["mounts"] != os.readlink("/proc/self/ns/mnt")


def test_errors_keep_their_kind(spawner: Spawner) -> None:
    with pytest.raises(Conflict, match="taken") as conflict:
        start(spawner, "fail", {"how": "conflict"}).wait(20)
    assert conflict.value.hint == "choose another"
    with pytest.raises(OSError, match="full") as full:
        start(spawner, "fail", {"how": "os"}).wait(20)
    assert full.value.errno == 28
    with pytest.raises(LadingError, match="ZeroDivisionError: no") as other:
        start(spawner, "fail", {"how": "else"}).wait(20)
    assert "task_functions.py" in other.value.__notes__[0]


def test_a_closed_pipe_is_an_error_not_the_end(spawner: Spawner) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with pytest.raises(BrokenPipeError):
        start(spawner, "write", {}, writes).wait(20)
    os.close(writes)


def test_an_unknown_function(spawner: Spawner) -> None:
    with pytest.raises(LadingError, match="nothing_such"):
        start(spawner, "nothing_such", {}).wait(20)


def test_a_process_that_vanishes(spawner: Spawner) -> None:
    with pytest.raises(Unavailable, match="killed"):
        start(spawner, "vanish", {}).wait(20)


def test_cancelling_kills_what_it_started(
    spawner: Spawner, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    reads, writes = os.pipe()
    task = start(spawner, "sleep", {}, writes)
    os.close(writes)
    child = int(os.read(reads, 100))
    waiter = threading.Timer(0.1, task.cancel)
    waiter.start()
    with pytest.raises(Cancelled):
        task.wait(20)
    assert os.read(reads, 1) == b""
    os.close(reads)
    wait_until(lambda: not Path(f"/proc/{child}").exists() or zombie(child))


def zombie(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_waiting_has_a_limit(spawner: Spawner) -> None:
    reads, writes = os.pipe()
    task = start(spawner, "sleep", {}, writes)
    with pytest.raises(TimeoutError):
        task.wait(0.05)
    task.close()
    os.close(reads)
    os.close(writes)
    with pytest.raises(Cancelled):
        task.wait()


def test_many_at_a_time(spawner: Spawner) -> None:
    tasks = [start(spawner, "echo", {"n": n}) for n in range(30)]
    assert [t.wait(30) for t in tasks] == [{"n": n} for n in range(30)]


def test_the_end_of_the_spawner_ends_its_tasks(spawner_of_its_own: Spawner) -> None:
    reads, writes = os.pipe()
    task = start(spawner_of_its_own, "sleep", {}, writes)
    os.close(writes)
    child = int(os.read(reads, 100))
    spawner_of_its_own.close()
    with pytest.raises(Unavailable, match="killed"):
        task.wait(20)
    os.kill(child, 9)
    os.close(reads)


def test_nothing_starts_without_the_spawner(spawner_of_its_own: Spawner) -> None:
    spawner_of_its_own.close()
    with pytest.raises(Unavailable):
        start(spawner_of_its_own, "echo", {})
