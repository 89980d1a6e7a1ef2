"""Results as pictures, by matplotlib, an optional dependency: ``lading-bench-storage[plots]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lading_bench_storage.runner import Results

COLUMNS = 3


def draw(results: Results, folder: Path) -> Sequence[Path]:
    """Write ``storage.png`` and ``storage.svg``: a box for each backend, a panel per workload.

    The box is the middle half of the samples, the line in it the median, the dots all samples.
    Raises ImportError without matplotlib.
    """
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    from matplotlib import pyplot as plt

    count = len(results.workloads)
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 2.9 * lines), squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for panel, workload in zip(panels, results.workloads, strict=False):
        rows = results.samples[workload.name]
        groups = [rows[driver] for driver in results.drivers]
        factor, unit = (1.0, workload.unit)
        if unit == "s" and max(map(max, groups)) < 1:
            factor, unit = 1e3, "ms"
        scaled = [[value * factor for value in group] for group in groups]
        panel.boxplot(scaled, showfliers=False, whis=(0, 100))
        panel.set_xticks(range(1, len(scaled) + 1), results.drivers)
        for place, group in enumerate(scaled, 1):
            panel.plot([place] * len(group), group, ".", color="#0072b2", alpha=0.6)
        panel.set_title(workload.name, fontsize=10)
        panel.set_ylabel(unit)
        panel.set_ylim(bottom=0)
        panel.grid(axis="y", color="#dddddd")
    for panel in panels[count:]:
        panel.axis("off")
    about = results.environment
    figure.suptitle(
        f"Lading {about['daemon']}, kernel {about['kernel']}, {about['data-root-filesystem']}",
        fontsize=9,
    )
    written = [folder / "storage.png", folder / "storage.svg"]
    for path in written:
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return written
