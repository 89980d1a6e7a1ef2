"""Results as a table and as JSON: medians with quartiles, since such samples are skewed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lading_bench_storage.runner import Results


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one workload on one backend; ``q1`` and ``q3`` enclose the middle half of the samples."""

    n: int
    median: float
    q1: float
    q3: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Quartiles by linear interpolation between samples (the inclusive method)."""
        if len(samples) == 1:
            q1 = q3 = samples[0]
        else:
            q1, _, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(len(samples), statistics.median(samples), q1, q3, min(samples), max(samples))


def as_json(results: Results) -> dict[str, Any]:
    """Everything: the raw samples, their summaries, and the environment."""
    return {
        "environment": results.environment,
        "drivers": list(results.drivers),
        "workloads": {
            workload.name: {
                "about": workload.about,
                "unit": workload.unit,
                "samples": results.samples[workload.name],
                "summary": {
                    driver: asdict(Summary.of(samples))
                    for driver, samples in results.samples[workload.name].items()
                },
            }
            for workload in results.workloads
        },
        "skipped": results.skipped,
    }


def table(results: Results) -> str:
    """A row for each workload, a column for each backend: ``median [q1 - q3]``."""
    rows = [("WORKLOAD", *results.drivers)]
    for workload in results.workloads:
        cells = [
            cell(Summary.of(results.samples[workload.name][driver]), workload.unit)
            for driver in results.drivers
        ]
        rows.append((workload.name, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"{name}: left out, {reason}" for name, reason in results.skipped.items()]
    return "\n".join(lines) + "\n"


def cell(summary: Summary, unit: str) -> str:
    """One summary, in a unit that suits its median."""
    shown, factor = ("ms", 1e3) if unit == "s" and summary.median < 1 else (unit, 1.0)
    q1, median, q3 = (_three(v * factor) for v in (summary.q1, summary.median, summary.q3))
    return f"{median} {shown} [{q1} - {q3}]"


def _three(value: float) -> str:
    """Three digits that count, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
