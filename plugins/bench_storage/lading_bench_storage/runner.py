"""Runs the workloads, interleaved, and keeps the samples."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lading import __version__
from lading.cli.errors import Failure
from lading.cli.session import Session
from lading_bench_storage.engine import Engine
from lading_bench_storage.workloads import Site, Workload


@dataclass(slots=True)
class Results:
    """All samples of a bench, by workload and backend, in the order in which they were taken."""

    workloads: Sequence[Workload]
    drivers: Sequence[str]
    environment: Mapping[str, Any]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    #: Why a workload was left out.
    skipped: dict[str, str] = field(default_factory=dict)


class Bench:
    """One bench: which backends and workloads, and on what."""

    def __init__(
        self, engine: Engine, drivers: Sequence[str], workloads: Sequence[Workload]
    ) -> None:
        self._engine = engine
        usable = usable_drivers(engine.session)
        info = engine.session.get("/info")
        self._default: str = info["Driver"]
        self._drivers = drivers or [self._default]
        for driver in self._drivers:
            if driver not in usable:
                reason = usable_reasons(engine.session).get(driver, "it is not installed")
                raise Failure(f'bench: the daemon cannot use "{driver}": {reason}')
        self._others = [name for name in usable if name != self._default]
        self.results = Results([], self._drivers, environment(engine, info, self._drivers))
        runnable = []
        for workload in workloads:
            reason = self._unfit(workload)
            if reason:
                self.results.skipped[workload.name] = reason
            else:
                runnable.append(workload)
        self.results.workloads = runnable

    def _unfit(self, workload: Workload) -> str:
        if workload.cold and not self._engine.local():
            return "dropping caches takes root on the daemon's host"
        if workload.name == "unpack" and self._default in self._drivers and not self._others:
            return "it takes a second usable backend, to move the image away"
        return ""

    def run(self, runs: int, tell: Callable[[str], None]) -> Results:
        """Take ``runs`` samples of each workload on each backend.

        Within a run each workload goes over all backends before the next one begins, and each run
        begins with another backend: drift of the machine meets all alike.
        """
        for run in range(runs):
            turn = run % len(self._drivers)
            order = [*self._drivers[turn:], *self._drivers[:turn]]
            with self._engine.image(f"run {run}") as image:
                for driver in order:
                    # The first container unpacks the image, which is a workload of its own.
                    self._engine.remove(self._engine.create(image, driver))
                for workload in self.results.workloads:
                    for driver in order:
                        tell(f"run {run + 1}/{runs}: {workload.name} on {driver}")
                        sample = workload.measure(self._site(run, driver, image))
                        rows = self.results.samples.setdefault(workload.name, {})
                        rows.setdefault(driver, []).append(sample)
        return self.results

    def _site(self, run: int, driver: str, image: str) -> Site:
        return Site(
            self._engine,
            driver,
            image,
            seed=f"{run} {driver}",
            other=self._others[0] if self._others else "",
            default=driver == self._default,
        )


def usable_drivers(session: Session) -> list[str]:
    """The filesystem backends that the daemon can use."""
    return [name for name, reason in usable_reasons(session).items() if not reason]


def usable_reasons(session: Session) -> dict[str, str]:
    """The filesystem backends that the daemon has, each with why it is not usable, or ""."""
    return {
        row["Name"]: "" if row["Status"] == "usable" else (row["Reason"] or "it is not usable")
        for row in session.get("/lading/plugins")
        if row["Role"] == "filesystem"
    }


def environment(engine: Engine, info: Mapping[str, Any], drivers: Sequence[str]) -> dict[str, Any]:
    """What the numbers depend on."""
    root = str(info.get("DockerRootDir", ""))
    plugins = engine.session.get("/lading/plugins")
    return {
        "kernel": info.get("KernelVersion", ""),
        "system": info.get("OperatingSystem", ""),
        "architecture": info.get("Architecture", ""),
        "cpus": info.get("NCPU", 0),
        "memory": info.get("MemTotal", 0),
        "daemon": info.get("ServerVersion", ""),
        "client": __version__,
        "python": platform.python_version(),
        "data-root": root,
        "data-root-filesystem": _filesystem_of(root),
        "default-driver": info.get("Driver", ""),
        "drivers": {
            row["Name"]: {
                "version": row["Version"],
                "distribution": f"{row['Distribution']} {row['DistributionVersion']}",
                "details": row["Details"],
            }
            for row in plugins
            if row["Role"] == "filesystem" and row["Name"] in drivers
        },
        "load-before": list(os.getloadavg()),
        "sizes": {
            "files": engine.sizes.files,
            "large": engine.sizes.large,
            "writes": engine.sizes.writes,
        },
    }


def _filesystem_of(path: str) -> str:
    """Type and source of the mount that a path of this host is on, as mountinfo has them."""
    if not Path(path).is_dir():
        return ""
    found, length = "", -1
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        inside = point == "/" or path == point or path.startswith(f"{point}/")
        if inside and len(point) >= length:
            kind, source, *_ = right.split()
            found, length = f"{kind} on {source}", len(point)
    return found
