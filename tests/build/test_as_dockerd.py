"""What clients of the classic API find as dockerd gives it: stream, cache, configs, history."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lading.testing.contexts import write_files
from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


def build(
    daemon: Daemon, program: str, place: Path, text: str, *flags: str, check: bool = True
) -> str:
    write_files(place, {"Dockerfile": text})
    done = daemon.client(program, "build", "--force-rm", *flags, str(place), check=False)
    out = (done.stdout + done.stderr).decode()
    assert not check or done.returncode == 0, out
    return out


def inspected(daemon: Daemon, name: str, version: str = "v1.41") -> dict[str, Any]:
    found = subprocess.run(
        ["curl", "-s", "--unix-socket", str(daemon.socket), f"http://l/{version}/images/{name}/json"],
        capture_output=True, check=True,
    )  # fmt: skip
    return dict(json.loads(found.stdout))


def test_errors_of_commands_are_red_for_docker_alone(
    daemon: Daemon, client: str, tmp_path: Path
) -> None:
    out = build(
        daemon, client, tmp_path, "FROM busybox\nRUN echo o''ut; echo e''rr >&2\n", "--no-cache"
    )
    assert "\nout\n" in out
    assert ("\x1b[91merr\n\x1b[0m" in out) == (client != "lading")
    assert "err\n" in out


def test_cache_from_stands_for_the_whole_cache_of_docker(
    daemon: Daemon, client: str, tmp_path: Path
) -> None:
    """As dockerd has it; ``lading build`` adds it to the cache, as BuildKit does."""
    text = "FROM busybox\nENV only=here\nRUN echo o''ut\n"
    build(daemon, client, tmp_path, text)
    own = client == "lading"
    out = build(daemon, client, tmp_path, text, "--cache-from", "busybox", "-t", "cached")
    assert out.count("Using cache") == (2 if own else 0), out
    # What the named image was made of is in the cache, as far as it goes.
    more = f"{text}ENV more=1\n"
    assert build(daemon, client, tmp_path, more, "--cache-from", "cached").count("Using") == 2
    assert "Using" in build(daemon, client, tmp_path, text)
    out = build(daemon, client, tmp_path, text, "--cache-from", "nowhere")
    assert out.count("Using cache") == (2 if own else 0), out
    daemon.client("lading", "rmi", "cached")


def test_each_label_of_the_command_line_is_a_step(
    daemon: Daemon, client: str, tmp_path: Path
) -> None:
    flags = ("--label", "z=1 $x", "--label", "y=2", "-t", "labelled")
    out = build(daemon, client, tmp_path, "FROM busybox\nENV x=3\n", *flags)
    assert "Step 3/4 : LABEL y=2\n" in out
    assert "Step 4/4 : LABEL z=1 $x\n" in out
    found = inspected(daemon, "labelled")
    assert found["Config"]["Labels"] == {"y": "2", "z": "1 $x"}
    lines = daemon.client(
        "lading", "history", "--no-trunc", "--format", "{{.CreatedBy}}", "labelled"
    ).stdout.decode()
    assert re.findall("LABEL.*", lines) == ["LABEL z=1 $x", "LABEL y=2"]
    daemon.client("lading", "rmi", "labelled")


@pytest.mark.parametrize(
    ("text", "command", "entry", "line"),
    [
        ("CMD", ["/bin/sh", "-c"], ["e"], 'CMD ["/bin/sh" "-c"]'),
        ("CMD []", [], ["e"], "CMD []"),
        ("ENTRYPOINT", ["a"], None, "ENTRYPOINT []"),
        ("ENTRYPOINT []", ["a"], None, "ENTRYPOINT []"),
    ],
)
def test_commands_of_no_words(
    daemon: Daemon,
    tmp_path: Path,
    text: str,
    command: list[str],
    entry: list[str] | None,
    line: str,
) -> None:
    file = f'FROM busybox\nENTRYPOINT ["e"]\nCMD ["a"]\n{text}\n'
    build(daemon, "lading", tmp_path, file, "-t", "wordless")
    config = inspected(daemon, "wordless")["Config"]
    assert (config["Cmd"], config["Entrypoint"]) == (command, entry)
    lines = daemon.client("lading", "history", "--no-trunc", "wordless").stdout.decode()
    assert line in lines
    daemon.client("lading", "rmi", "wordless")


def test_what_an_image_was_made_in(daemon: Daemon, tmp_path: Path) -> None:
    text = 'FROM busybox\nARG a=1\nENTRYPOINT ["e"]\nRUN echo x > /x\n'
    build(daemon, "lading", tmp_path, text, "-t", "made")
    found, config = inspected(daemon, "made"), inspected(daemon, "made")["ContainerConfig"]
    assert config["Cmd"] == ["|1", "a=1", "/bin/sh", "-c", "echo x > /x"]
    assert config["Entrypoint"] is None
    assert re.fullmatch("[0-9a-f]{64}", found["Container"])
    assert found["Config"]["Image"] == config["Image"] == found["Parent"] != ""
    assert found["Config"]["Labels"] is None
    above = inspected(daemon, found["Parent"])
    assert above["ContainerConfig"]["Cmd"] == ["/bin/sh", "-c", "#(nop) ", 'ENTRYPOINT ["e"]']
    assert "ContainerConfig" not in inspected(daemon, "made", "v1.45")
    rows = daemon.client("lading", "history", "-q", "--no-trunc", "made").stdout.decode().split()
    busybox = inspected(daemon, "busybox")["Id"]
    assert rows[:2] == [found["Id"], found["Parent"]]
    assert rows[-1] == busybox
    daemon.client("lading", "rmi", "made")


def test_what_a_committed_image_was_made_in(daemon: Daemon) -> None:
    made = daemon.client("lading", "create", "-h", "host", "busybox", "true").stdout.decode()
    daemon.client("lading", "commit", "-c", "ENV q=1", made.strip(), "committed")
    found = inspected(daemon, "committed")
    assert found["Container"] == made.strip()
    assert found["ContainerConfig"]["Cmd"] == ["true"]
    assert found["ContainerConfig"]["Hostname"] == found["Config"]["Hostname"] == "host"
    assert found["Config"]["Image"] == "busybox"
    assert found["Config"]["Env"][-1] == "q=1"
    daemon.client("lading", "rm", made.strip())
    daemon.client("lading", "rmi", "committed")


def test_what_other_stages_have_said_is_told_when_one_fails(daemon: Daemon, tmp_path: Path) -> None:
    text = (
        "FROM busybox AS slow\nRUN echo sl''ow; sleep 60\n"
        "FROM busybox AS beside\nRUN echo be''side; sleep 60\n"
        "FROM busybox AS bad\nRUN sleep 2; exit 3\n"
        "FROM scratch\nCOPY --from=slow /x /\nCOPY --from=beside /x /\nCOPY --from=bad /x /\n"
    )
    out = build(daemon, "lading", tmp_path, text, check=False)
    assert "slow\n ---> Cancelled: another stage has failed\n" in out, out
    assert "beside\n ---> Cancelled: another stage has failed\n" in out, out
    assert out.index("Cancelled") < out.index("exit 3\n") < out.index("returned a non-zero code: 3")


def test_lading_says_where_the_command_that_failed_is(
    daemon: Daemon, client: str, tmp_path: Path
) -> None:
    text = "FROM busybox\nRUN --network=none exit 3\n"
    out = build(daemon, client, tmp_path, text, check=False)
    assert "The command '/bin/sh -c exit 3' returned a non-zero code: 3\n" in out
    where = "    RUN --network=none exit 3\n                       ^\n"
    assert ("Dockerfile:2: The command" in out) == (where in out) == (client == "lading")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("COPY --chwon=1 Dockerfile /", "did you mean --chown?"),
        ("COPY Dockerfile", "at least two arguments"),
        ("RUN --mout=type=tmpfs,target=/x true", "did you mean --mount?"),
        ("RUN --mount=type=tmps,target=/x true", "did you mean tmpfs?"),
        ("RUN --network=host true", "not allowed"),
        ("CMD [1]", "comprised of strings only"),
        ("SHELL /bin/sh", "JSON form"),
        ("ENV a", "two arguments"),
        ("HEALTHCHECK --interval=5 CMD true", "invalid duration"),
        ("ONBUILD FROM x", "isn't allowed"),
    ],
)
def test_a_mistake_is_told_before_the_first_step(
    daemon: Daemon, tmp_path: Path, wrong: str, told: str
) -> None:
    text = f"FROM busybox\nRUN echo ra''n\nFROM busybox AS unused\n{wrong}\nFROM busybox\n"
    out = build(daemon, "lading", tmp_path, text, "--no-cache", check=False)
    assert told in out
    assert "Dockerfile:4:" in out
    assert "Step" not in out


def test_a_number_is_no_image(daemon: Daemon, tmp_path: Path) -> None:
    """Not even when an image's id begins so."""
    text = "FROM busybox\nCOPY --from={} /bin/sh /x\n"
    for number in range(10):
        out = build(daemon, "lading", tmp_path, text.format(number), check=False)
        assert f"invalid from flag value {number}" in out, out


def test_what_is_missing_in_a_stage_is_not_missing_in_the_context(
    daemon: Daemon, tmp_path: Path
) -> None:
    text = "FROM busybox AS a\nFROM busybox\nCOPY --from=a /nope /\n"
    out = build(daemon, "lading", tmp_path, text, check=False)
    assert "Dockerfile:3: file not found in a: stat /nope: file does not exist" in out


def test_a_stage_that_waits_for_the_one_that_fails_is_silent(
    daemon: Daemon, tmp_path: Path
) -> None:
    text = "FROM busybox AS a\nRUN exit 3\nFROM a\nRUN true\n"
    out = build(daemon, "lading", tmp_path, text, check=False)
    assert "non-zero code: 3" in out
    assert "Step 3/4" not in out


def test_texts_in_old_encodings(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(b"# J\xf6rg\nFROM busybox\nLABEL by=J\xf6rg\n")
    daemon.client("lading", "build", "-t", "latin", str(tmp_path))
    assert inspected(daemon, "latin")["Config"]["Labels"] == {"by": "J\ufffdrg"}
    daemon.client("lading", "rmi", "latin")


def test_an_archive_of_nothing_has_no_dockerfile(daemon: Daemon, client: str) -> None:
    done = daemon.client(client, "build", "-", input=bytes(10240), check=False)
    assert done.returncode != 0
    if client == "lading":
        assert b"Cannot locate specified Dockerfile: Dockerfile" in done.stderr
