"""``lading bench storage``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from lading.cli.errors import Failure
from lading.cli.session import Session
from lading_bench_storage import engine as engines
from lading_bench_storage.engine import Engine
from lading_bench_storage.images import Sizes
from lading_bench_storage.report import as_json, table
from lading_bench_storage.runner import Bench, Results
from lading_bench_storage.workloads import WORKLOADS, Workload


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure backends."""


@bench.command()
@click.option("--drivers", default="", metavar="NAME,...", help="Backends (default: the daemon's)")
@click.option("--workloads", default="", metavar="NAME,...", help="Workloads (default: all)")
@click.option("--list", "listing", is_flag=True, help="List the workloads and quit")
@click.option("--runs", default=5, show_default=True, help="Samples of each")
@click.option("--scale", default=1.0, show_default=True, help="Size of the workloads")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="What is printed",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Directory for results.json, results.txt and the plots",
)
@click.option(
    "--busybox",
    type=click.Path(path_type=Path),
    default="/bin/busybox",
    show_default=True,
    help="A static busybox, the tools of the image",
)
@click.option("--clean", is_flag=True, help="Remove what a killed bench has left, and quit")
@click.option("--quiet", "-q", is_flag=True, help="Do not tell what is being done")
@click.pass_obj
def storage(
    session: Session,
    drivers: str,
    workloads: str,
    listing: bool,
    runs: int,
    scale: float,
    kind: str,
    output: Path | None,
    busybox: Path,
    clean: bool,
    quiet: bool,
) -> None:
    """Measure filesystem backends side by side on the running engine."""
    if listing:
        for workload in WORKLOADS:
            click.echo(f"{workload.name:14}{workload.about}")
        return
    if clean:
        click.echo(f"removed {engines.clean(session)} containers and images")
        return
    if runs < 1 or scale <= 0:
        raise click.UsageError("--runs and --scale must be positive")
    if not busybox.is_file():
        raise Failure(f"bench: {busybox} does not exist; install busybox-static, or say --busybox")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    engine = Engine(session, Sizes.scaled(scale), busybox)
    _run(engine, _words(drivers), _chosen(workloads), runs, kind, output, quiet)


def _run(
    engine: Engine,
    drivers: list[str],
    workloads: list[Workload],
    runs: int,
    kind: str,
    output: Path | None,
    quiet: bool,
) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    live = not quiet and sys.stderr.isatty()

    def tell(text: str) -> None:
        if live:
            click.echo(f"\r\033[K{text}", nl=False, err=True)
        elif not quiet:
            click.echo(text, err=True)

    try:
        results = Bench(engine, drivers, workloads).run(runs, tell)
    finally:
        # A second Ctrl-C must not leave half of it behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if live:
            click.echo("\r\033[K", nl=False, err=True)
        engine.clean()
    text = json.dumps(as_json(results), indent=2) + "\n"
    click.echo(text if kind == "json" else table(results), nl=False)
    if output is not None:
        _write(results, text, output)


def _write(results: Results, text: str, output: Path) -> None:
    (output / "results.json").write_text(text)
    (output / "results.txt").write_text(table(results))
    try:
        from lading_bench_storage.plots import draw

        draw(results, output)
    except ImportError:
        click.echo('no plots: install "lading-bench-storage[plots]" for them', err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _chosen(text: str) -> list[Workload]:
    known = {workload.name: workload for workload in WORKLOADS}
    names = _words(text) or list(known)
    for name in names:
        if name not in known:
            raise Failure(f'bench: no workload "{name}" (there are: {", ".join(known)})')
    return [known[name] for name in names]
