"""``lading bench storage`` on a real daemon, tiny; and what it makes of samples."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from lading.testing.daemon import Daemon, find_client
from lading_bench_storage.report import Summary, as_json, cell, table
from lading_bench_storage.runner import Results
from lading_bench_storage.workloads import WORKLOADS

TINY = ("--scale", "0.005", "--quiet")
BOTH = ("--drivers", "overlay,vfs")


def objects(daemon: Daemon) -> tuple[set[str], set[str]]:
    """Containers and images of the daemon."""
    listed = [
        daemon.client("lading", *words, "-q", "--no-trunc").stdout.decode().split()
        for words in (("ps", "-a"), ("images",))
    ]
    return set(listed[0]), set(listed[1])


def snapshots(daemon: Daemon) -> set[str]:
    found = daemon.root.glob("data/filesystem/*/snapshots/[0-9]*/meta.json")
    return {json.loads(path.read_text())["key"] for path in found}


@pytest.mark.root
def test_all_workloads_on_two_backends(daemon: Daemon, tmp_path: Path) -> None:
    before, kept = objects(daemon), snapshots(daemon)
    words = ("bench", "storage", *BOTH, *TINY, "--runs", "2", "--output", str(tmp_path))
    done = daemon.client("lading", *words, timeout=170)
    assert objects(daemon) == before
    assert snapshots(daemon) == kept
    head, *rows = done.stdout.decode().splitlines()
    assert head.split() == ["WORKLOAD", "overlay", "vfs"]
    assert [row.split()[0] for row in rows] == [workload.name for workload in WORKLOADS]
    assert (tmp_path / "results.txt").read_text() == done.stdout.decode()
    found = json.loads((tmp_path / "results.json").read_text())
    for workload in WORKLOADS:
        samples = found["workloads"][workload.name]["samples"]
        assert {name: len(taken) for name, taken in samples.items()} == {"overlay": 2, "vfs": 2}
        if workload.unit == "s":
            assert all(value > 0 for taken in samples.values() for value in taken)
    about = found["environment"]
    assert about["kernel"] in Path("/proc/version").read_text()
    assert set(about["drivers"]) == {"overlay", "vfs"}
    assert about["data-root-filesystem"]
    assert (tmp_path / "storage.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert ET.parse(tmp_path / "storage.svg").getroot().tag.endswith("svg")


@pytest.mark.root
def test_json_of_one_workload_on_the_default_backend(daemon: Daemon) -> None:
    words = ("bench", "storage", "--workloads", "first-write", *TINY, "--runs", "1")
    found = json.loads(daemon.client("lading", *words, "--format", "json").stdout)
    assert list(found["workloads"]) == ["first-write"]
    assert list(found["workloads"]["first-write"]["samples"]) == ["overlay"]


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_nothing(daemon: Daemon, number: signal.Signals) -> None:
    before, kept = objects(daemon), snapshots(daemon)
    words = ("bench", "storage", "--workloads", "metadata", "--scale", "0.01", "--runs", "1000")
    with subprocess.Popen(
        [find_client("lading"), "-H", daemon.host, *words], stderr=subprocess.PIPE
    ) as bench:
        assert bench.stderr is not None
        for _ in range(2):
            assert b"metadata on overlay" in bench.stderr.readline()
        time.sleep(0.1)  # somewhere in a workload
        bench.send_signal(number)
        assert bench.wait(60) == 130
    assert objects(daemon) == before
    assert snapshots(daemon) == kept


@pytest.mark.root
def test_what_a_killed_bench_left_can_be_removed(daemon: Daemon) -> None:
    before = objects(daemon)
    words = ("bench", "storage", "--workloads", "metadata", "--scale", "0.01", "--runs", "1000")
    with subprocess.Popen(
        [find_client("lading"), "-H", daemon.host, *words], stderr=subprocess.PIPE
    ) as bench:
        assert bench.stderr is not None
        bench.stderr.readline()
        bench.kill()
    assert objects(daemon) != before
    daemon.client("lading", "bench", "storage", "--clean")
    assert objects(daemon) == before


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--drivers", "nothing"), b'the daemon cannot use "nothing": it is not installed'),
        (("--drivers", "aufs"), b'the daemon cannot use "aufs": '),
        (("--workloads", "nothing"), b'no workload "nothing"'),
        (("--runs", "0"), b"--runs and --scale must be positive"),
        (("--busybox", "/nowhere"), b"/nowhere does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_first(
    daemon: Daemon, words: tuple[str, ...], message: bytes
) -> None:
    done = daemon.client("lading", "bench", "storage", *words, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert b"Traceback" not in done.stderr


def results(samples: dict[str, list[float]], **about: Any) -> Results:
    workload = WORKLOADS[0]
    return Results([workload], list(samples), about, {workload.name: samples}, {"x": "no y"})


def test_medians_and_quartiles() -> None:
    summary = Summary.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (summary.q1, summary.median, summary.q3) == (2.0, 3.0, 4.0)
    assert Summary.of([7.0]) == Summary(1, 7.0, 7.0, 7.0, 7.0, 7.0)
    assert cell(Summary.of([0.001, 0.002, 0.003]), "s") == "2 ms [1.5 - 2.5]"
    assert cell(Summary.of([0.1, 0.9, 1.2345, 0.8]), "s") == "850 ms [625 - 984]"
    assert cell(Summary.of([2.0]), "MiB") == "2 MiB [2 - 2]"


def test_the_table_and_the_json_tell_what_was_left_out() -> None:
    found = results({"a": [0.5], "b": [2.0]})
    assert table(found).splitlines() == [
        "WORKLOAD  a                   b",
        "unpack    500 ms [500 - 500]  2 s [2 - 2]",
        "x: left out, no y",
    ]
    assert as_json(found)["skipped"] == {"x": "no y"}
