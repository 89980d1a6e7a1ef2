"""Dockerfiles and contexts that mean no good: a clear error, and nothing outside is touched."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading.build.planner import plan
from lading.errors import Invalid
from lading.model.dockerfile import NAMES, parse, split_flags
from lading.model.substitution import split_words, substitute
from lading.testing.daemon import Daemon

ANYTHING = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=400).map(str.encode),
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.text("ab$ {}\"'\\<-=:[]\n\t,#`", max_size=40)),
        max_size=12,
    ).map(lambda rows: "\n".join(f"{name} {rest}" for name, rest in rows).encode()),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING)
def test_any_bytes_parse_or_are_refused(content: bytes) -> None:
    with suppress(Invalid):
        plan(parse(b"FROM scratch\n" + content), {})


@settings(max_examples=300, deadline=None)
@given(st.text("ab$ {}\"'\\:-+?#%/*1", max_size=60))
def test_any_text_is_substituted_or_refused(text: str) -> None:
    with suppress(Invalid):
        substitute(text, {"a": "x*y", "b": ""})


@given(st.text(max_size=60))
def test_words_are_what_the_text_has(text: str) -> None:
    assert "".join("".join(split_words(text)).split()) == "".join(text.split())
    flags, rest = split_flags(text)
    assert text.endswith(rest) or not rest
    assert len(flags) <= text.count("--")


@pytest.mark.parametrize(
    "line",
    [
        b"RUN " + b"x" * (4 << 20),
        b"RUN " + b"\\" * (1 << 20),
        b"RUN " + b" \\\n" * (1 << 18),
        b"# escape=" + b" " * (1 << 20) + b"x",
        b"COPY " + b"--x " * (1 << 18) + b"a b",
        b"ENV a=" + b"${a:-" * (1 << 16),
        b"ENV a=" + b"'" * ((1 << 18) + 1),
        b"RUN <<" + b"a" * (1 << 18),
        b"LABEL " + b"a=b " * (1 << 16),
    ],
    ids=lambda line: line[:12].decode(),
)
def test_long_lines_cost_little(line: bytes) -> None:
    told = ""
    try:
        file = parse(b"FROM scratch\n" + line)
        substitute(file.instructions[-1].rest, {})
    except Invalid as error:
        told = str(error)
    # What is shown of it fits a terminal.
    assert len(told) < 800


def test_patterns_cost_little() -> None:
    value = "a" * 20_000
    for operator in ("#", "##", "%", "%%"):
        assert substitute(f"${{v{operator}{'*a' * 50}b}}", {"v": value}) == value


def test_many_instructions() -> None:
    file = parse(b"FROM scratch\n" + b"ENV a=b\n" * 1999)
    assert len(plan(file, {}).stages[0].instructions) == 1999
    with pytest.raises(Invalid, match="Dockerfile:2001: more than 2000 instructions"):
        parse(b"FROM scratch\n" + b"ENV a=b\n" * 10_000)


def test_many_stages() -> None:
    text = "FROM scratch AS s0\n" + "".join(
        f"FROM s{n} AS s{n + 1}\nCOPY --from=s{n} a b\n" for n in range(900)
    )
    assert len(plan(parse(text.encode()), {}).stages) == 901


def packed(*entries: tarfile.TarInfo, **files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return out.getvalue()


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, to
    return entry


def sent(daemon: Daemon, body: bytes, *flags: str) -> tuple[int, str]:
    done = daemon.client("lading", "build", "--force-rm", *flags, "-", input=body, check=False)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


SECRET = "the host's own"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text(SECRET)
    return place


@pytest.mark.root
@pytest.mark.parametrize(
    "line",
    [
        "COPY abs /x", "COPY rel /x", "COPY dir/secret /x", "COPY dir /x", "ADD abs /x",
        "COPY ../../outside/secret /x", "COPY dir/* /x/", "COPY hard /x", "ADD dir/secret /x",
        "RUN --mount=target=/x,source=abs cat /x", "RUN --mount=target=/x,source=dir cat /x/secret",
        "RUN --mount=target=/x cat /x/abs", "RUN --mount=target=/x,source=dir,rw cat /x/secret",
        "RUN --mount=type=cache,target=/x,from=busybox,source=../../../etc ls /x/shadow",
    ],
)  # fmt: skip
def test_links_out_of_the_context(daemon: Daemon, outside: Path, line: str) -> None:
    body = packed(
        link("abs", f"{outside}/secret"), link("rel", "../" * 12 + f"{outside}/secret"[1:]),
        link("dir", str(outside)), Dockerfile=f"FROM busybox\n{line}\nRUN cat /x /x/*\n",
    )  # fmt: skip
    if line == "COPY hard /x":
        body = packed(link("hard", f"../../..{outside}/secret", tarfile.LNKTYPE), Dockerfile="x")
    code, out = sent(daemon, body)
    assert code != 0
    assert SECRET not in out
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]


@pytest.mark.root
@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
def test_a_dockerfile_that_is_a_link(daemon: Daemon, outside: Path, name: str) -> None:
    body = packed(link(name, f"{outside}/secret"), other="x")
    code, out = sent(daemon, body)
    assert code != 0
    assert SECRET not in out


@pytest.mark.root
def test_the_target_cannot_lead_out(daemon: Daemon, outside: Path) -> None:
    text = (
        f"FROM busybox\nRUN mkdir -p /d && ln -s {outside} /d/l && ln -s ../../../..{outside} /r\n"
        "COPY f /d/l/f\nCOPY f /r/\nWORKDIR /d/l/made\nADD t.tar /r/\n"
    )
    body = packed(Dockerfile=text, f="x", **{"t.tar": packed(f="y").decode("latin-1")})
    code, out = sent(daemon, body)
    assert code == 0, out
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]


@pytest.mark.root
def test_from_cannot_lead_out(daemon: Daemon, outside: Path) -> None:
    text = (
        f"FROM busybox AS a\nRUN ln -s {outside} /l && ln -s /proc/1/root /p\n"
        "FROM busybox\nCOPY --from=a {source} /x\nRUN cat /x\n"
    )
    sources = (
        "/l/secret",
        f"../../../..{outside}/secret",
        f"/p{outside}/secret",
        f"{outside}/secret",
    )
    for source in sources:
        code, out = sent(daemon, packed(Dockerfile=text.format(source=source)))
        assert code != 0
        assert SECRET not in out


@pytest.mark.root
def test_names_that_are_odd(daemon: Daemon) -> None:
    odd = ["new\nline", "-rf", "quo\"te's", "tab\t", "star*", "[b]", "back\\slash", "…"]
    text = "FROM busybox\nCOPY . /c\nRUN cd /c && ls -1Q | wc -l; rm Dockerfile; cat -- *\n"
    body = packed(Dockerfile=text, **{name: f"({n})" for n, name in enumerate(odd)})
    code, out = sent(daemon, body)
    assert code == 0, out
    assert all(f"({n})" in out for n in range(len(odd)))
    text = 'FROM busybox\nCOPY ["[[]b]", "star[*]", "/c/"]\nRUN ls /c\n'
    code, out = sent(daemon, packed(Dockerfile=text, **dict.fromkeys([*odd, "starred", "b"], "")))
    assert code == 0, out
    assert "[b]\nstar*\n" in out
    assert "starred" not in out.split("RUN")[-1]


@pytest.mark.root
def test_junk(daemon: Daemon) -> None:
    for body, told in (
        (os.urandom(4096), ""),
        (packed(Dockerfile="\0\1\2binary"), "Dockerfile:1: binary content"),
        (packed(other="x"), "Cannot locate specified Dockerfile"),
        (packed(link("Dockerfile", "Dockerfile")), "Dockerfile"),
        (b"\x1f\x8b" + os.urandom(2000), ""),
        (packed(Dockerfile="FROM busybox\nRUN true")[:520], "too early"),
        (packed(Dockerfile="x" * (9 << 20)), "larger than"),
    ):
        code, out = sent(daemon, body)
        assert code != 0
        assert told in out
        assert "Traceback" not in out
    assert "Traceback" not in daemon.log()


@pytest.mark.root
def test_one_endless_line(daemon: Daemon, tmp_path: Path) -> None:
    """Which is nowhere held in memory."""
    with open(tmp_path / "Dockerfile", "wb") as file:
        file.write(b"FROM busybox\nRUN ")
        file.truncate(1 << 28)
    done = daemon.client("lading", "build", str(tmp_path), check=False)
    assert done.returncode != 0
    assert b"larger than" in done.stderr
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    peak = next(row for row in status.splitlines() if row.startswith("VmHWM"))
    assert int(peak.split()[1]) < 200_000


@pytest.mark.root
def test_circles(daemon: Daemon) -> None:
    for text in (
        "FROM busybox AS a\nCOPY --from=b x y\nFROM a AS b\n",
        "FROM busybox AS a\nRUN --mount=from=b,target=/x true\nFROM a AS b\n",
        "FROM busybox AS a\nCOPY --from=a x y\n",
    ):
        code, out = sent(daemon, text.encode())
        assert code != 0
        assert "circular" in out or "earlier" in out
        assert "Dockerfile:2: " in out
