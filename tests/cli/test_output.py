"""Units, tables and progress as Docker shows them."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from lading.cli.containers.listing import ports
from lading.cli.containers.stats import block_io, cpu_percent, memory_used
from lading.cli.errors import Failure
from lading.cli.images.listing import rows
from lading.cli.output.progress import Progress
from lading.cli.output.stages import _Step, clipped
from lading.cli.output.table import aligned, api_filters
from lading.cli.output.units import (
    binary_size,
    duration_in_nanoseconds,
    ellipsis,
    go_duration,
    human_duration,
    human_size,
    size_in_bytes,
    timestamp,
    unix_time,
)


@pytest.mark.parametrize(
    ("size", "decimal", "binary"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1000, "1kB", "1000B"),
        (1024, "1.024kB", "1KiB"),
        (2_500_000, "2.5MB", "2.384MiB"),
        (1_980_000_000, "1.98GB", "1.844GiB"),
    ],
)
def test_sizes(size: int, decimal: str, binary: str) -> None:
    assert (human_size(size), binary_size(size)) == (decimal, binary)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (179, "2 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_for_people(seconds: float, shown: str) -> None:
    assert human_duration(seconds) == shown


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000), ("100ms", 10**8), ("0", 0), ("-1m", -60e9)],
)
def test_durations_of_go(text: str, nanoseconds: int) -> None:
    assert duration_in_nanoseconds(text) == nanoseconds
    assert duration_in_nanoseconds(go_duration(int(nanoseconds))) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "1x", "m", "1h 2m"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        duration_in_nanoseconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1k", 1024), ("1.5g", 1610612736), ("512MB", 512 << 20), ("1GiB", 1 << 30)],
)
def test_sizes_that_are_read(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


def test_timestamps() -> None:
    assert timestamp("1136073845.5") == "1136073845.5"
    assert timestamp("2006-01-02T15:04:05.5Z") == "1136214245.500000000"
    assert timestamp("2006-01-02T15:04:05+01:00") == "1136210645.000000000"
    assert abs(float(timestamp("10m")) - (time.time() - 600)) < 5
    assert timestamp("") == ""
    assert unix_time("1970-01-01T00:00:01.25Z") == 1.25
    with pytest.raises(ValueError, match="failed to parse"):
        timestamp("yesterday")


def test_table_as_tabwriter_sets_it() -> None:
    assert aligned([["A", "LONG HEADING", "Z"], ["value", "x", "last"]]) == (
        "A         LONG HEADING   Z\nvalue     x              last\n"
    )


def test_ellipsis() -> None:
    assert (ellipsis("short", 5), ellipsis("longer", 5)) == ("short", "long…")


def port(inside: int, outside: int = 0, address: str = "0.0.0.0", kind: str = "tcp") -> Any:
    found = {"PrivatePort": inside, "Type": kind}
    return found | ({"PublicPort": outside, "IP": address} if outside else {})


@pytest.mark.parametrize(
    ("published", "shown"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80), port(81), port(82), port(90)], "80-82/tcp, 90/tcp"),
        ([port(80, 8080)], "0.0.0.0:8080->80/tcp"),
        ([port(80, 80), port(81, 81)], "0.0.0.0:80-81->80-81/tcp"),
        ([port(53, 53, kind="udp"), port(80)], "80/tcp, 0.0.0.0:53->53/udp"),
        (
            [port(80, 8080), port(80, 8080, "::")],
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        ),
    ],
)
def test_ports(published: list[Any], shown: str) -> None:
    assert ports(published) == shown


def test_an_image_has_a_row_for_each_name() -> None:
    image = {"RepoTags": ["a:1", "b:2"], "RepoDigests": ["a@sha256:00", "c@sha256:11"]}
    listed = [(r["repository"], r["tag"], r["digest"]) for r in rows([image], digests=True)]
    assert listed == [
        ("a", "1", "sha256:00"),
        ("b", "2", "<none>"),
        ("c", "<none>", "sha256:11"),
    ]
    assert rows([{"RepoTags": None}], digests=False)[0]["repository"] == "<none>"


def test_filters() -> None:
    assert api_filters(["label=a=b", "status=running", "label=c"]) == {
        "label": {"a=b": True, "c": True},
        "status": {"running": True},
    }
    with pytest.raises(Failure, match="bad format of filter"):
        api_filters(["alone"])


MESSAGES: list[dict[str, Any]] = [
    {"status": "Pulling from library/x", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Downloading", "progressDetail": {"current": 50, "total": 100}, "id": "aaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
    {"status": "Digest: sha256:0"},
    {"aux": {"ID": "sha256:1"}},
]


def test_progress_in_a_file_has_lines_only() -> None:
    out = io.StringIO()
    results: list[object] = []
    Progress(out, terminal=False).show(MESSAGES, aux=results.append)
    assert out.getvalue().splitlines() == [
        "latest: Pulling from library/x",
        "aaa: Pulling fs layer",
        "aaa: Pull complete",
        "Digest: sha256:0",
    ]
    assert results == [{"ID": "sha256:1"}]


def test_progress_on_a_terminal_redraws_a_line_for_each_id() -> None:
    out = io.StringIO()
    Progress(out, terminal=True, width=120).show(MESSAGES)
    text = out.getvalue()
    assert f"[{'=' * 25}>{' ' * 25}]      50B/100B" in text
    assert "\x1b[1A\x1b[2K\raaa: Pull complete\r\x1b[1B" in text


def test_an_error_in_the_stream_is_raised() -> None:
    messages: list[dict[str, Any]] = [
        {"stream": "Step 1"},
        {"errorDetail": {"code": 5, "message": "no"}, "error": "no"},
    ]
    with pytest.raises(Failure, match="no") as caught:
        Progress(io.StringIO(), terminal=False).show(messages)
    assert caught.value.code == 5


def test_numbers_of_stats() -> None:
    sample = {
        "cpu_stats": {
            "cpu_usage": {"total_usage": 300},
            "system_cpu_usage": 2000,
            "online_cpus": 2,
        },
        "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        "memory_stats": {"usage": 100, "stats": {"inactive_file": 30}},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 5},
                {"op": "write", "value": 7},
                {"op": "Total", "value": 12},
            ]
        },
    }
    assert cpu_percent(sample) == pytest.approx(40.0)
    assert memory_used(sample) == 70
    assert block_io(sample) == (5, 7)


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("plain", 3, "pla"),
        ("漢字漢字", 5, "漢字"),
        ("e\u0301e\u0301e", 2, "e\u0301e\u0301"),
        ("", 4, ""),
        ("x", -1, ""),
    ],
)
def test_text_is_clipped_by_what_a_terminal_shows(text: str, columns: int, shown: str) -> None:
    assert clipped(text, columns) == shown
    assert clipped("漢", 4, pad=True) == "漢  "


def test_a_step_fits_into_any_window_and_steers_no_terminal() -> None:
    step = _Step("stage", "1/2", "RUN echo \x1b]0;title\x07 漢字漢字漢字漢字漢字")
    for width in (1, 2, 10, 20, 33, 200):
        title = step.title(width)
        assert title.isprintable()
        assert sum(2 if char in "漢字" else 1 for char in title) < max(width, 1) or not title
