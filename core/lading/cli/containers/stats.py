"""``lading stats``."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from lading.cli.command import Arguments, command
from lading.cli.errors import Failure
from lading.cli.flags import Call, switch, text
from lading.cli.output.table import Columns, show_list
from lading.cli.output.units import binary_size, human_size, short_id

TABLE = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
REFRESH_SECONDS = 0.5
HOME, CLEAR_BELOW, CLEAR_LINE = "\x1b[H", "\x1b[J", "\x1b[K"
UNKNOWN = "--"
Sample = dict[str, Any]


def columns(*, truncate: bool) -> Columns:
    """The fields of one container's sample."""

    def known(show: Any) -> Any:
        return lambda s: show(s) if s.get("stats") else UNKNOWN

    return Columns(
        "statsContext",
        {
            "BlockIO": ("BLOCK I/O", known(lambda s: _pair(*block_io(s["stats"])))),
            "CPUPerc": ("CPU %", known(lambda s: f"{cpu_percent(s['stats']):.2f}%")),
            "Container": ("CONTAINER", lambda s: s["asked"]),
            "ID": ("CONTAINER ID", known(lambda s: _identity(s["stats"]["id"], truncate))),
            "MemPerc": ("MEM %", known(lambda s: f"{_memory_percent(s['stats']):.2f}%")),
            "MemUsage": ("MEM USAGE / LIMIT", known(lambda s: _memory(s["stats"]))),
            "Name": ("NAME", known(lambda s: s["stats"]["name"].removeprefix("/"))),
            "NetIO": ("NET I/O", known(lambda s: _pair(*network_io(s["stats"])))),
            "PIDs": ("PIDS", known(lambda s: str(_pids(s["stats"])))),
        },
    )


def _identity(identity: str, truncate: bool) -> str:
    return short_id(identity) if truncate else identity


def cpu_percent(stats: Sample) -> float:
    """CPU time since the sample before, against that of the host, per CPU."""
    now, before = stats["cpu_stats"], stats.get("precpu_stats") or {}
    used = now["cpu_usage"]["total_usage"] - (before.get("cpu_usage") or {}).get("total_usage", 0)
    host = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or []) or 1
    return used / host * count * 100.0 if used > 0 and host > 0 else 0.0


def memory_used(stats: Sample) -> int:
    """Memory without the cache that the kernel would give back."""
    memory = stats.get("memory_stats") or {}
    usage = int(memory.get("usage", 0))
    details = memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if name in details and details[name] < usage:
            return usage - int(details[name])
    return usage


def _memory(stats: Sample) -> str:
    limit = (stats.get("memory_stats") or {}).get("limit", 0)
    return f"{binary_size(memory_used(stats))} / {binary_size(limit)}"


def _memory_percent(stats: Sample) -> float:
    limit = (stats.get("memory_stats") or {}).get("limit", 0)
    return memory_used(stats) / limit * 100.0 if limit else 0.0


def network_io(stats: Sample) -> tuple[int, int]:
    """Bytes received and sent, of all interfaces."""
    interfaces = (stats.get("networks") or {}).values()
    return sum(i["rx_bytes"] for i in interfaces), sum(i["tx_bytes"] for i in interfaces)


def block_io(stats: Sample) -> tuple[int, int]:
    """Bytes read and written, of all devices."""
    read = written = 0
    for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = entry["op"].lower()[:1]
        read += entry["value"] if operation == "r" else 0
        written += entry["value"] if operation == "w" else 0
    return read, written


def _pids(stats: Sample) -> int:
    return int((stats.get("pids_stats") or {}).get("current", 0))


def _pair(first: int, second: int) -> str:
    return f"{human_size(first, 3)} / {human_size(second, 3)}"


@command(
    "Watch the resources that containers use",
    usage="[OPTIONS] [CONTAINER...]",
    arguments=Arguments(0, None),
    flags=(
        switch("all", "a", "Stopped ones too"),
        text("format", "", "Go template, 'table', 'table TEMPLATE' or 'json'"),
        switch("no-stream", "", "Once, then quit"),
        switch("no-trunc", "", "Do not shorten anything"),
    ),
    completes="running",
)
def stats(call: Call) -> int:
    """Show samples, once or for ever."""
    board = _Board(call)
    layout = call.text("format") or call.session.settings.text("statsFormat")
    shown = columns(truncate=not call.on("no-trunc"))
    if call.on("no-stream"):
        samples = board.once()
        show_list(shown, samples, layout=layout, table=TABLE)
        return board.failures(call)
    board.follow()
    sys.stdout.write("\x1b[2J")
    while True:
        samples = board.samples()
        if call.args and not samples:
            return board.failures(call)
        screen = _Screen()
        before, sys.stdout = sys.stdout, screen
        try:
            show_list(shown, samples, layout=layout, table=TABLE)
        finally:
            sys.stdout = before
        sys.stdout.write(HOME + screen.text.replace("\n", CLEAR_LINE + "\n") + CLEAR_BELOW)
        sys.stdout.flush()
        time.sleep(REFRESH_SECONDS)


class _Screen:
    """Collects what a table writes, so that it can be drawn over the one before."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        """Add text."""
        self.text += text


class _Board:
    """The newest sample of each container, kept by a thread for each."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._samples: dict[str, Sample] = {}
        self._errors: list[str] = []

    def _names(self) -> list[str]:
        if self._call.args:
            return self._call.args
        listed = self._call.session.get("/containers/json", all=self._call.on("all"))
        return [container["Id"][:12] for container in listed]

    def once(self) -> list[Sample]:
        """One sample of each, taken at the same time."""
        names = self._names()
        threads = [threading.Thread(target=self._read, args=(name, False)) for name in names]
        for name in names:
            self._samples[name] = {"asked": name, "stats": None}
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.samples()

    def follow(self) -> None:
        """Keep the samples up to date in the background."""
        threading.Thread(target=self._watch, daemon=True).start()
        time.sleep(REFRESH_SECONDS / 2)

    def _watch(self) -> None:
        known: set[str] = set()
        while True:
            try:
                names = self._names()
            except Failure as error:
                self._errors.append(error.message)
                return
            for name in names:
                if name not in known:
                    known.add(name)
                    with self._lock:
                        self._samples.setdefault(name, {"asked": name, "stats": None})
                    threading.Thread(target=self._read, args=(name, True), daemon=True).start()
            with self._lock:
                for name in known - set(names):
                    self._samples.pop(name, None)
            known &= set(names)
            if self._call.args:
                return
            time.sleep(1)

    def _read(self, name: str, stream: bool) -> None:
        path = f"/containers/{name}/stats"
        query = {"stream": "1" if stream else "0"}
        try:
            for sample in self._call.session.stream("GET", path, query=query):
                with self._lock:
                    self._samples[name] = {"asked": name, "stats": _usable(sample)}
        except Failure as error:
            self._errors.append(error.message)
            with self._lock:
                self._samples.pop(name, None)

    def samples(self) -> list[Sample]:
        """The newest samples, in the order of the names."""
        with self._lock:
            return list(self._samples.values())

    def failures(self, call: Call) -> int:
        """Say what went wrong; the exit code."""
        for message in self._errors:
            call.session.warn(message)
        return 1 if self._errors else 0


def _usable(sample: Sample) -> Sample | None:
    """A stopped container gives a sample without numbers."""
    return sample if (sample.get("cpu_stats") or {}).get("cpu_usage") else None
