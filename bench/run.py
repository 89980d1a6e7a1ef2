"""Lading against Debian's dockerd: same host, same image, same docker client, one run.

``./dev bench [ROW ...]`` prints a table of medians and ratios and writes ``bench/results/*.json``.
Rows that are compared alternate between the engines, so that a noisy host hits both alike. As
root in a network namespace of its own; needs ``docker.io`` (and, for pull and push,
``docker-registry``).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers import Dockerd, Engine, Lading
from workloads import ROWS, Row

from lading.testing.daemon import busybox_image


def main() -> None:
    options = arguments()
    own_network_namespace()
    chosen = [row for row in ROWS if not options.rows or row.name in options.rows]
    results: dict[str, dict[str, list[float]]] = {row.name: {} for row in chosen}
    with Lading() as lading, Dockerd() as dockerd:
        engines: list[Engine] = [lading, dockerd]
        for engine in engines:
            subprocess.run(
                ["docker", "-H", engine.host, "import", "-", "busybox"],
                input=busybox_image(),
                check=True,
                capture_output=True,
            )
        for row in chosen:
            print(f"{row.name} ...", file=sys.stderr, flush=True)
            results[row.name] = measure(row, engines, options.runs)
    print(table(chosen, results))
    save(results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(r.name for r in ROWS))
    parser.add_argument("--runs", type=int, default=0, help="runs of each row (default: its own)")
    return parser.parse_args()


def own_network_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def measure(row: Row, engines: list[Engine], runs: int) -> dict[str, list[float]]:
    """Each engine's readings; the engines take turns."""
    readings: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:
        row.prepare(engine)
    try:
        for turn in range((runs or row.runs) + row.warm_up):
            for engine in engines:
                value = row.once(engine)
                if turn >= row.warm_up:
                    readings[engine.name].append(value)
    finally:
        for engine in engines:
            row.clean(engine)
    return readings


def table(rows: list[Row], results: dict[str, dict[str, list[float]]]) -> str:
    lines = [f"{'what':<34}{'unit':>6}{'lading':>12}{'dockerd':>12}{'ratio':>8}  goal"]
    for row in rows:
        ours = statistics.median(results[row.name]["lading"])
        theirs = statistics.median(results[row.name]["dockerd"])
        ratio = ours / theirs if theirs else float("nan")
        met = "" if not row.goal else ("met" if row.met(ours, theirs) else "MISSED")
        lines.append(
            f"{row.title:<34}{row.unit:>6}{ours:>12.1f}{theirs:>12.1f}{ratio:>8.2f}"
            f"  {row.goal} {met}"
        )
    return "\n".join(lines)


def save(results: dict[str, dict[str, list[float]]]) -> None:
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    document = {"kernel": os.uname().release, "cpus": os.cpu_count(), "results": results}
    (folder / f"{stamp}.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
