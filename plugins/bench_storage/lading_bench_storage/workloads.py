"""The workloads: what each does, what of it is timed. docs/bench-storage.md says why.

A workload prepares what it needs, times one thing, and takes away what it has made. It is called
for one backend at a time and gets an image whose layers are on that backend already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lading_bench_storage.engine import Engine

#: Containers that read the same file at once.
READERS = 4

_BIG_CHANGE = "cp -r /data/tree /changed; cp /data/large /changed/large; rm -r /data/tree; sync"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a workload runs: an engine, a backend, an image of this run, and a seed of its own.

    ``other`` is another backend that is usable, or "".
    """

    engine: Engine
    driver: str
    image: str
    seed: str
    other: str
    default: bool

    def container(self) -> str:
        """A container on this backend."""
        return self.engine.create(self.image, self.driver)


@dataclass(frozen=True, slots=True)
class Workload:
    """``measure`` returns one sample in ``unit``: ``s`` or ``MiB``.

    ``cold`` says that caches are dropped for it, which takes root on the daemon's host.
    """

    name: str
    about: str
    measure: Callable[[Site], float]
    unit: str = "s"
    cold: bool = False


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def unpack(site: Site) -> float:
    """A container of an image that this backend has not seen: its layers are unpacked."""
    engine = site.engine
    with engine.image(f"unpack {site.seed}") as image:
        if site.default:
            # Loading has put it here already.
            engine.move(image, site.other)
        containers: list[str] = []
        try:
            return _timed(lambda: containers.append(engine.create(image, site.driver)))
        finally:
            for container in containers:
                engine.remove(container)


def start_cold(site: Site) -> float:
    """Start a container when nothing is in the page cache."""
    container = site.container()
    try:
        site.engine.drop_caches()
        return _timed(lambda: site.engine.start(container))
    finally:
        site.engine.remove(container)


def start_warm(site: Site) -> float:
    """Start a container after another one of the same image."""
    with site.engine.running(site.image, site.driver):
        pass
    container = site.container()
    try:
        return _timed(lambda: site.engine.start(container))
    finally:
        site.engine.remove(container)


def _scripted(site: Site, script: str, before: str = "") -> float:
    with site.engine.running(site.image, site.driver) as container:
        if before:
            site.engine.run(container, before)
        return _timed(lambda: site.engine.run(container, script))


def metadata(site: Site) -> float:
    """Create, list, rename, change the mode of and remove files; change modes of the image's."""
    count = site.engine.sizes.files
    return _scripted(
        site,
        f"mkdir /storm; cd /storm; seq {count} | xargs touch; ls -l . > /dev/null; cd /; "
        "mv /storm /storm2; chmod -R 700 /storm2; rm -r /storm2; chmod -R 700 /data/tree",
    )


def first_write(site: Site) -> float:
    """Append a byte to a large file of the image."""
    return _scripted(site, "printf x >> /data/large")


def small_writes(site: Site) -> float:
    """Write a new file in pieces of 512 bytes, then fsync it."""
    count = site.engine.sizes.writes
    # Standard error stays open: dd gives its standard output away, the stream would end early.
    return _scripted(site, f"dd if=/dev/zero of=/small bs=512 count={count} conv=fsync")


def _read_together(site: Site) -> tuple[float, float]:
    """Seconds, and the growth of the page cache in MiB."""
    engine = site.engine
    with ExitStack() as stack:
        containers = [
            stack.enter_context(engine.running(site.image, site.driver)) for _ in range(READERS)
        ]
        engine.drop_caches()
        failures: list[BaseException] = []

        def read(container: str) -> None:
            try:
                engine.run(container, "cat /data/large > /dev/null")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read, args=(c,)) for c in containers]
        cached = _cached()

        def together() -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        seconds = _timed(together)
        grown = _cached() - cached
    if failures:
        raise failures[0]
    return seconds, max(grown, 0.0)


def _cached() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Cached:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/meminfo has no line Cached")


def shared_read(site: Site) -> float:
    """Several containers read the same large file of the image at once, from the disk."""
    return _read_together(site)[0]


def shared_pages(site: Site) -> float:
    """By how much the page cache has grown then: backends that share files hold them once."""
    return _read_together(site)[1]


def _commit(site: Site, change: str) -> float:
    engine = site.engine
    with engine.running(site.image, site.driver) as container:
        engine.run(container, change)
        name = f"lading-bench-{engine.id}"
        query = {"container": container, "repo": name, "tag": "commit"}
        made: list[str] = []
        try:
            return _timed(lambda: made.append(engine.session.post("/commit", None, **query)["Id"]))
        finally:
            for image in made:
                engine.session.delete(f"/images/{image}", force=1)


def _diff(site: Site, change: str) -> float:
    engine = site.engine
    with engine.running(site.image, site.driver) as container:
        engine.run(container, change)
        return _timed(lambda: engine.session.get(f"/containers/{container}/changes"))


def delete(site: Site) -> float:
    """Remove a stopped container that has changed much."""
    engine = site.engine
    container = site.container()
    try:
        engine.start(container)
        engine.run(container, _BIG_CHANGE)
        engine.session.post(f"/containers/{container}/kill")
        engine.session.post(f"/containers/{container}/wait")
    except BaseException:
        engine.remove(container)
        raise
    return _timed(lambda: engine.remove(container))


WORKLOADS: Sequence[Workload] = (
    Workload("unpack", "first container of an image: its layers are unpacked", unpack),
    Workload("start-cold", "start a container, caches dropped", start_cold, cold=True),
    Workload("start-warm", "start a container, caches warm", start_warm),
    Workload("metadata", "create, list, rename, chmod and remove many files", metadata),
    Workload("first-write", "append a byte to a large file of the image", first_write),
    Workload("small-writes", "many writes of 512 bytes to one file, then fsync", small_writes),
    Workload("shared-read", f"{READERS} containers read one large file", shared_read, cold=True),
    Workload("shared-pages", "page cache that this took", shared_pages, "MiB", cold=True),
    Workload("commit-small", "commit one small file", lambda s: _commit(s, "echo x > /x")),
    Workload("commit-large", "commit large changes", lambda s: _commit(s, _BIG_CHANGE)),
    Workload("diff-small", "list one changed file", lambda s: _diff(s, "echo x > /x")),
    Workload("diff-large", "list large changes", lambda s: _diff(s, _BIG_CHANGE)),
    Workload("delete", "remove a container with large changes", delete),
)
