"""Killed at any moment, the store is whole: what is listed is there, the rest leaves no trace."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lading.monitor import Spawner

from .conftest import Store

pytestmark = pytest.mark.root


def _work(root: Path, sink: int) -> None:
    """Make, name, save, load and remove images until killed; tells each step."""
    spawner = Spawner.launch(preload=["lading.archive.tasks"])
    os.write(sink, spawner._process.pid.to_bytes(4, "little"))
    store = Store(root, spawner)
    number = 0
    while True:
        number += 1
        base = store.make(f"base{number}", *(f"f{n}-{number}" for n in range(20)))
        os.write(sink, b".")
        store.commit(base, lambda top: (top / "new").write_text("new"), f"app:{number}")
        os.write(sink, b".")
        saved = store.save(f"app:{number}")
        store.images.remove(f"app:{number}")
        os.write(sink, b".")
        store.load(saved)
        os.write(sink, b".")
        if number % 2:
            store.images.remove(f"base{number}")


def _kill_after(root: Path, steps: int, delay: float) -> None:
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _work(root, sink)
        finally:
            os._exit(1)
    os.close(sink)
    helper = int.from_bytes(os.read(source, 4), "little")
    for _ in range(steps):
        assert os.read(source, 1) == b"."
    # Somewhere within the next step: where is of no matter, that it differs is.
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(source)
    while os.path.exists(f"/proc/{helper}"):
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("steps", "delay"), [(1, 0.004), (2, 0.011), (3, 0.02), (4, 0.007), (6, 0)]
)
def test_a_killed_store_is_whole(
    tmp_path: Path, spawner: Spawner, steps: int, delay: float
) -> None:
    _kill_after(tmp_path, steps, delay)
    store = Store(tmp_path, spawner)
    # Starting spares what a pull may take up again.
    store.images.collect()
    needed = set()
    for image in store.images.list(all=True):
        needed |= {image.id, *(layer.digest for layer in image.layers)}
        assert store.files(image)
        for name in image.repo_tags:
            assert store.images.get(name).id == image.id
    assert set(store.blobs.walk()) == needed
    assert not [key for key in store.snapshots() if key.startswith("unpack-")]
    assert os.listdir(store.root / "blobs/ingest") == []
