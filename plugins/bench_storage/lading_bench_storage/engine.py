"""The engine under test, by its API: containers and images of one bench, and their removal."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lading.cli.errors import DaemonError, Failure
from lading.cli.session import Session
from lading_bench_storage.images import Sizes, write_archive

#: What marks all that a bench makes; the value is the bench's id.
LABEL = "bench.lading"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
#: What a request needs at most that the daemon finishes after its client has gone.
_SETTLING_SECONDS = 0.5


class Engine:
    """One bench's hold on the daemon."""

    def __init__(self, session: Session, sizes: Sizes, busybox: Path) -> None:
        self.session = session
        self.sizes = sizes
        self.id = os.urandom(4).hex()
        self._busybox = busybox
        self._serial = 0

    # -- images

    @contextmanager
    def image(self, seed: str) -> Iterator[str]:
        """A fresh image on the daemon's default backend, as long as the block runs."""
        self._serial += 1
        name = f"lading-bench-{self.id}:{self._serial}"
        with tempfile.TemporaryFile() as archive:
            labels = {LABEL: self.id}
            write_archive(archive, name, self.sizes, self._busybox, labels, f"{self.id} {seed}")
            archive.seek(0)
            for message in self.session.stream(
                "POST",
                "/images/load",
                body=archive,
                headers={"Content-Type": "application/x-tar"},
            ):
                _check(message)
        try:
            yield name
        finally:
            self.session.delete(f"/images/{name}", force=1)

    def move(self, image: str, driver: str) -> None:
        """Have an image's layers on that backend and on no other."""
        body = {"To": driver, "Names": [image]}
        for message in self.session.stream("POST", "/lading/storage/migrate", json_body=body):
            _check(message)

    # -- containers

    def create(self, image: str, driver: str) -> str:
        """Make a container whose root is on that backend; returns its id."""
        body = {
            "Image": image,
            "Labels": {LABEL: self.id},
            "HostConfig": {"NetworkMode": "none", "StorageOpt": {"driver": driver}},
        }
        return str(self.session.post("/containers/create", body)["Id"])

    def start(self, container: str) -> None:
        """Start it; it sleeps."""
        self.session.post(f"/containers/{container}/start")

    def remove(self, container: str) -> None:
        """Kill and remove it."""
        self.session.delete(f"/containers/{container}", force=1, v=1)

    @contextmanager
    def running(self, image: str, driver: str) -> Iterator[str]:
        """A container that runs, as long as the block runs."""
        container = self.create(image, driver)
        try:
            self.start(container)
            yield container
        finally:
            self.remove(container)

    def run(self, container: str, script: str) -> None:
        """Run a shell script in it to its end. Raises Failure when it fails."""
        body = {"Cmd": ["sh", "-ec", script], "AttachStdout": True, "AttachStderr": True}
        identity = self.session.post(f"/containers/{container}/exec", body)["Id"]
        start = {"Detach": False, "Tty": False}
        with self.session.request("POST", f"/exec/{identity}/start", json_body=start) as response:
            output = response.read()
        state = self.session.get(f"/exec/{identity}/json")
        if state["ExitCode"] != 0:
            text = output.decode(errors="replace").strip()
            raise Failure(f"bench: a workload's script ended with {state['ExitCode']}: {text}")

    # -- the host

    def local(self) -> bool:
        """Whether the daemon's host is this one, and we may drop its caches."""
        return self.session.host.startswith("unix://") and os.access(_DROP_CACHES, os.W_OK)

    def drop_caches(self) -> None:
        """Write out what is dirty, then forget page cache, dentries and inodes (proc_sys_vm(5))."""
        os.sync()
        _DROP_CACHES.write_text("3")

    # -- the end

    def clean(self) -> None:
        """Remove all of this bench; for the end, however it came about."""
        # A request that was interrupted may come to its end in the daemon yet.
        while clean(self.session, f"{LABEL}={self.id}"):
            time.sleep(_SETTLING_SECONDS)


def clean(session: Session, label: str = LABEL) -> int:
    """Remove all containers and images with the label; returns how many there were."""
    filters = json.dumps({"label": [label]})
    containers = session.get("/containers/json", all=1, filters=filters)
    for row in containers:
        _remove(session, f"/containers/{row['Id']}")
    images = session.get("/images/json", all=1, filters=filters)
    for row in images:
        _remove(session, f"/images/{row['Id']}")
    return len(containers) + len(images)


def _remove(session: Session, path: str) -> None:
    for _ in range(50):
        try:
            session.delete(path, force=1)
            return
        except DaemonError as error:
            if error.status == 404:
                return
            if error.status != 409:
                raise
            time.sleep(0.1)  # a removal is under way already
    session.warn(f"bench: cannot remove {path}")


def _check(message: Any) -> None:
    if isinstance(message, dict) and message.get("error"):
        raise Failure(f"bench: {message['error']}")
