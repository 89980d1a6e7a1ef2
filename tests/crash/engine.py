"""A daemon that is killed at hooks by the extension ``faults``, and what it may leave behind."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lading.http.client import Client
from lading.testing.daemon import Daemon, mounts_below
from lading.testing.waiting import PATIENCE_SECONDS, until

#: Network namespaces kept ready.
READY = 1
CONFIG = f'network-pool-size = {READY}\nextensions = ["trace", "faults"]\n'


class Refused(Exception):
    """The daemon answered with an error, or told of one while it answered."""


class Engine:
    """The daemon, spoken to by its API."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send a request; returns the answer's JSON objects, the last one of a stream.

        Raises Refused for an error of the daemon's, LadingError or OSError when it is gone.
        """
        headers = {"Content-Type": "application/json"}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-tar"
        elif body is not None:
            body = json.dumps(body).encode()
        with (
            Client(self.daemon.host, timeout=60) as client,
            client.request(method, path, query=query, headers=headers, body=body) as response,
        ):
            text = response.read().decode(errors="replace")
        if response.status >= 400:
            raise Refused(f"{response.status} {text}")
        rows = [json.loads(line) for line in text.splitlines() if line.startswith(("{", "["))]
        for row in rows:
            if isinstance(row, dict) and row.get("error"):
                raise Refused(row["error"])
        return rows[-1] if rows else None

    def gone(self, method: str, path: str, **query: Any) -> None:
        """As ``call``; an object that does not exist is no error."""
        try:
            self.call(method, path, **query)
        except Refused as error:
            if not str(error).startswith(("404", "304")):
                raise

    def add_rule(self, **members: Any) -> str:
        """Put a rule of ``faults`` into force; returns its id."""
        return str(self.call("POST", "/lading/faults", members)["id"])

    def fitted(self, rule: str) -> int:
        """How many calls a rule has fitted."""
        return int(next(r for r in self.call("GET", "/lading/faults") if r["id"] == rule)["fitted"])

    def called(self) -> list[tuple[str, str]]:
        """Role and name of the hooks that were called since the last ``forget``."""
        found = self.call("GET", "/lading/trace")["operations"]
        return [(span["role"], span["hook"]) for op in found for span in op["spans"]]

    def forget(self) -> None:
        """Let ``called`` begin anew."""
        self.call("DELETE", "/lading/trace")

    def revive(self) -> None:
        """Wait for the daemon's death, then start the next one."""
        process = self.daemon.process
        assert process is not None
        process.wait(60)
        self.daemon.process = None
        self.daemon.start()

    def alive(self) -> bool:
        """Whether the daemon runs, after a moment in which a killed one ends."""
        process = self.daemon.process
        assert process is not None
        return process.poll() is None

    def clean(self) -> None:
        """Remove all that a test has made: containers, images, build cache."""
        for row in self.call("GET", "/containers/json", all=1):
            if row["Names"] != ["/keeper"]:
                self.gone("DELETE", f"/containers/{row['Id']}", force=1, v=1)
        self.call("POST", "/build/prune", all=1)
        self.call("POST", "/images/prune", filters='{"dangling":["false"]}')

    def traces(self) -> set[str]:
        """All that this daemon has on disk and in the kernel, by name."""
        data, run = self.daemon.root / "data", self.daemon.root / "run"
        found = {f"mount {p}" for p in mounts_below(self.daemon.root) if "/run/netns/" not in p}
        for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            for group in top.glob(f"{self.daemon.cgroup_parent.strip('/')}/**/"):
                found.add(f"cgroup {group.relative_to('/sys/fs/cgroup')}")
        for meta in data.glob("filesystem/*/snapshots/*/meta.json"):
            found.add(f"snapshot {json.loads(meta.read_text())['key']}")
        for debris in data.glob("filesystem/*/snapshots/*-*"):
            found.add(f"debris {debris.relative_to(data)}")
        for place in ("containers", "blobs/sha256", "ingest", "tmp", "build"):
            found |= {f"{place} {path.name}" for path in (data / place).iterdir()}
        found |= {f"run {path.name}" for path in (run / "containers").iterdir()}
        with closing(sqlite3.connect(data / "metadata.db")) as db:
            for action, thing in db.execute("SELECT action, object FROM intents"):
                found.add(f"intent {action} {thing}")
        # One that is kept ready; which one it is does not matter.
        spaces = len(list((run / "netns").iterdir()))
        return found | {f"network namespace {n}" for n in range(spaces)}

    def baseline(self) -> set[str]:
        """The traces of a daemon at rest: what is being deleted is gone, spaces are ready."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        seen = self.traces()
        while time.monotonic() < give_up:
            time.sleep(0.2)
            before, seen = seen, self.traces()
            if seen == before and not any(row.startswith("debris") for row in seen):
                break
        return seen

    def rest(self) -> None:
        """Wait for what follows an answer: the ends of containers, spaces made ready, removals.

        A space is ready besides those of running containers, and no hook is called any more.
        """
        spaces = self.daemon.root / "run/netns"

        def still() -> bool:
            used = sum(
                row["State"] == "running" and row["Names"] != ["/keeper"]
                for row in self.call("GET", "/containers/json", all=1)
            )
            before = self.called()
            if len(list(spaces.iterdir())) != used + READY:
                return False
            time.sleep(0.2)
            return before == self.called()

        until(still, lambda: f"it does not come to rest: {self.called()[-5:]}")

    def settled(self, baseline: set[str]) -> list[str]:
        """What is there beyond the baseline or lacking from it, after some grace."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (change := self.traces() ^ baseline) and time.monotonic() < give_up:
            time.sleep(0.05)
        return sorted(change)


@contextmanager
def engine(busybox: bytes, *flags: str) -> Iterator[Engine]:
    """A daemon with both extensions, the image ``busybox`` and a container that keeps it."""
    daemon = Daemon(*flags)
    config = daemon.root / "lading.toml"
    config.write_text(CONFIG)
    daemon.flags = (f"--config-file={config}", *flags)
    with daemon:
        running = Engine(daemon)
        running.call("POST", "/images/create", busybox, fromSrc="-", repo="busybox")
        running.call(
            "POST",
            "/containers/create",
            {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}},
            name="keeper",
        )
        yield running


def context(dockerfile: str) -> bytes:
    """A build context with a file ``f`` beside the Dockerfile."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (("Dockerfile", dockerfile.encode()), ("f", b"content")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
