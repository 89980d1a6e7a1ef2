"""Writing, rotating, reading and following logs."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading.errors import Invalid
from lading.monitor import Follower, LogConfig, LogLine, read_logs
from lading.monitor.logfile import PIECE, Limits, limits, open_log


def write(path: Path, *blocks: bytes, **options: str) -> None:
    log = open_log(
        LogConfig("json-file", path, {k.replace("_", "-"): v for k, v in options.items()})
    )
    for block in blocks:
        log.write(1, block)
    log.close()


def texts(path: Path, **options: Any) -> list[bytes]:
    return [line.data for line in read_logs(path, **options)]


@pytest.fixture
def follower() -> Iterator[Follower]:
    made = Follower()
    yield made
    made.close()


def test_special_characters_survive(tmp_path: Path) -> None:
    lines = [
        b'quote " back \\ slash-n \\n \\\\n\n',
        "ü € 😀 \u2028\n".encode(),
        b"\x00\x1b[1m\ttab\r\n",
    ]
    write(tmp_path / "log", b"".join(lines))
    assert texts(tmp_path / "log") == lines
    for record in (tmp_path / "log").read_bytes().splitlines():
        assert set(json.loads(record)) == {"log", "stream", "time"}


@settings(suppress_health_check=[HealthCheck.too_slow])  # says how busy the host is
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_text_comes_back_however_it_was_cut(data: bytes, cuts: list[int]) -> None:
    from tempfile import TemporaryDirectory

    edges = [0, *sorted(cuts), len(data)]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        write(path, *(data[a:b] for a, b in itertools.pairwise(edges)))
        found = texts(path)
    whole = b"".join(p.decode("utf-8", "replace").encode() for p in split(data))
    assert b"".join(found) == whole
    assert len(found) == len(split(data))


def split(data: bytes) -> list[bytes]:
    parts = [p + b"\n" for p in data.split(b"\n")]
    last = parts.pop()[:-1]
    return [*parts, last] if last else parts


def test_long_lines_are_cut_but_no_character_is(tmp_path: Path) -> None:
    line = ("€" * 12000).encode() + b"\n"
    write(tmp_path / "log", line[:50000], line[50000:])
    found = texts(tmp_path / "log")
    assert b"".join(found) == line
    assert [len(f) for f in found[:2]] == [PIECE - 1, PIECE - 1]


def test_attributes_go_into_each_line(tmp_path: Path) -> None:
    log = open_log(LogConfig("json-file", tmp_path / "log", {}, {"tag": "web"}))
    log.write(2, b"x\n")
    log.close()
    (line,) = read_logs(tmp_path / "log")
    assert (line.stream, line.attributes) == ("stderr", {"tag": "web"})


def test_rotation_keeps_so_many_files_of_such_a_size(tmp_path: Path) -> None:
    blocks = [b"".join(b"%06d\n" % n for n in range(i, i + 100)) for i in range(0, 1000, 100)]
    write(tmp_path / "log", *blocks, max_size="10k", max_file="3")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(p.stat().st_size < 10_100 for p in tmp_path.iterdir())
    found = texts(tmp_path / "log")
    assert found == [b"%06d\n" % n for n in range(1000 - len(found), 1000)]
    assert len(found) > 200


def test_one_file_starts_anew(tmp_path: Path) -> None:
    write(tmp_path / "log", *(b"%06d\n" % n for n in range(1000)), max_size="10k")
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
    assert texts(tmp_path / "log")[-1] == b"000999\n"


def test_rotated_files_can_be_packed(tmp_path: Path) -> None:
    lines = [b"%06d\n" % n for n in range(300)]
    write(tmp_path / "log", *lines, max_size="10k", max_file="9", compress="true")
    assert {p.name for p in tmp_path.iterdir()} >= {"log", "log.1.gz", "log.2.gz"}
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes()).startswith(b'{"log":"')
    assert texts(tmp_path / "log") == lines
    assert texts(tmp_path / "log", tail=150) == lines[-150:]


def test_what_the_options_mean() -> None:
    assert limits("json-file", {}) == Limits(0, 1, False)
    assert limits("local", {}) == Limits(20_000_000, 5, True)
    assert limits("json-file", {"max-size": "1.5m", "max-file": "2"}).size == 1_500_000
    for bad in ({"max-size": "x"}, {"max-file": "0"}, {"compress": "true"}, {"max-size": "-5"}):
        with pytest.raises(Invalid, match=next(iter(bad))):
            limits("json-file", bad)
    with pytest.raises(Invalid, match="json-file"):
        limits("carrier-pigeon", {})


@pytest.mark.parametrize("tail", [0, 1, 7, 99, 100, 101, 5000])
def test_the_tail(tmp_path: Path, tail: int) -> None:
    lines = [b"%d %s\n" % (n, b"x" * (n * 100)) for n in range(100)]
    write(tmp_path / "log", *lines)
    assert texts(tmp_path / "log", tail=tail) == (lines[-tail:] if tail else [])


def test_the_tail_reaches_into_older_files(tmp_path: Path) -> None:
    lines = [b"%06d\n" % n for n in range(500)]
    write(tmp_path / "log", *lines, max_size="10k", max_file="20")
    for tail in (1, 130, 260, 500, 600):
        assert texts(tmp_path / "log", tail=tail) == lines[-tail:]


def test_since_until_and_streams(tmp_path: Path) -> None:
    log = open_log(LogConfig("json-file", tmp_path / "log"))
    for stream in (1, 2, 1, 2):
        log.write(stream, b"%d\n" % stream)
        time.sleep(0.002)
    log.close()
    lines = list(read_logs(tmp_path / "log"))
    assert texts(tmp_path / "log", stdout=False) == [b"2\n", b"2\n"]
    assert list(read_logs(tmp_path / "log", since=lines[2].time)) == lines[2:]
    assert list(read_logs(tmp_path / "log", until=lines[1].time)) == lines[:2]
    assert texts(tmp_path / "log", tail=1, stderr=False) == []


def test_a_torn_record_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "log", b"one\ntwo\n")
    with open(tmp_path / "log", "ab") as file:
        file.write(b'{"log":"half\n')
    write(tmp_path / "log", b"three\n")
    assert texts(tmp_path / "log") == [b"one\n", b"two\n", b"three\n"]


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert texts(tmp_path / "log") == []


def test_times_are_docker_s_of_any_precision(tmp_path: Path) -> None:
    record = '{"log":"x\\n","stream":"stdout","time":"2026-01-02T03:04:05.12Z"}\n'
    (tmp_path / "log").write_text(record)
    (line,) = read_logs(tmp_path / "log")
    assert line == LogLine(1_767_323_045_120_000_000, "stdout", b"x\n")


def collect(path: Path, follow: Follower, into: list[bytes], **options: Any) -> threading.Thread:
    def run() -> None:
        into.extend(line.data for line in read_logs(path, follow=follow, **options))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("files", ["1", "3"])
def test_following_across_rotation(tmp_path: Path, follower: Follower, files: str) -> None:
    log = open_log(LogConfig("json-file", tmp_path / "log", {"max-size": "10k", "max-file": files}))
    found: list[bytes] = []
    thread = collect(tmp_path / "log", follower, found)
    lines = [b"%06d\n" % n for n in range(1000)]
    for number, line in enumerate(lines):
        log.write(1, line)
        if number % 50 == 0:
            time.sleep(0.005)
    log.close()
    follower.finish()
    thread.join(20)
    assert not thread.is_alive()
    if files == "3":
        assert found == lines
    else:
        # With a single file a reader may be late for what was thrown away.
        assert found[-1] == lines[-1]
        assert found == sorted(set(found))


def test_following_a_log_that_comes_to_be(tmp_path: Path, follower: Follower) -> None:
    found: list[bytes] = []
    thread = collect(tmp_path / "log", follower, found)
    write(tmp_path / "log", b"first\n")
    follower.finish()
    thread.join(20)
    assert found == [b"first\n"]


def test_following_starts_at_the_tail(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path / "log", b"old\n", b"new\n")
    found: list[bytes] = []
    thread = collect(tmp_path / "log", follower, found, tail=1)
    write(tmp_path / "log", b"newest\n")
    follower.finish()
    thread.join(20)
    assert found[0] != b"old\n"
    assert found[-1] == b"newest\n"


def test_a_follower_can_be_cancelled(tmp_path: Path, follower: Follower) -> None:
    write(tmp_path / "log", b"x\n")
    thread = collect(tmp_path / "log", follower, [])
    follower.cancel()
    thread.join(20)
    assert not thread.is_alive()


def test_without_inotify_it_looks_now_and_then(
    tmp_path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading.monitor.inotify.libc", _NoInotify())
    found: list[bytes] = []
    thread = collect(tmp_path / "log", follower, found)
    write(tmp_path / "log", b"seen\n")
    follower.finish()
    thread.join(20)
    assert found == [b"seen\n"]


class _NoInotify:
    def inotify_init1(self, flags: int) -> int:
        return -1
