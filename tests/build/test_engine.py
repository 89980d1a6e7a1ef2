"""What stands behind builds: layers, cache, parallel stages, what a crash leaves."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lading.testing.contexts import write_files
from lading.testing.daemon import Daemon, find_client
from lading.testing.waiting import until

pytestmark = pytest.mark.root


def build(
    daemon: Daemon, place: Path, files: Mapping[str, str], *flags: str, check: bool = True
) -> str:
    write_files(place, files)
    done = daemon.client("lading", "build", *flags, str(place), check=False)
    out = (done.stdout + done.stderr).decode()
    assert not check or done.returncode == 0, out
    return out


def layers(daemon: Daemon, image: str) -> list[list[str]]:
    """The names in each layer of an image, as ``save`` writes them."""
    data = daemon.client("lading", "save", image).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        found = []
        for name in json.load(manifest)[0]["Layers"]:
            blob = archive.extractfile(name)
            assert blob is not None
            with tarfile.open(fileobj=blob) as layer:
                found.append([entry.name for entry in layer])
    return found


def test_what_the_engine_mounts_on_is_in_no_layer(daemon: Daemon, tmp_path: Path) -> None:
    """Neither where a command has run before, nor in what is copied from such a stage."""
    files = {
        "Dockerfile": "FROM busybox AS a\nRUN echo 1 > /one\nCOPY hosts /etc/hosts\n"
        "COPY hosts /proc/x\nRUN cat /one > /two\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=a /two /three\n",
        "hosts": "H\n",
    }
    build(daemon, tmp_path, files, "-t", "clean")
    first, second = layers(daemon, "clean")
    base = {name for layer in layers(daemon, "busybox") for name in layer}
    assert {n.strip("/") for n in first} - {n.strip("/") for n in base} == {
        "one", "two", "etc/hosts", "proc", "proc/x"
    }  # fmt: skip
    assert second == ["three"]
    daemon.client("lading", "rmi", "clean")


def test_a_layer_on_top_of_a_command_is_seen_by_the_next(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM busybox\nRUN mkdir /real && ln -s real /link && echo 1 > /real/gone\n"
        "COPY f /link/\nCOPY f /link/g\nRUN rm /real/gone && ls /real > /seen\n",
        "f": "F\n",
    }
    build(daemon, tmp_path, files, "-t", "stacked")
    shown = daemon.client("lading", "run", "--rm", "stacked", "cat", "/seen").stdout
    assert shown == b"f\ng\n"
    top = [name.rstrip("/") for name in layers(daemon, "stacked")[-1]]
    assert top == ["real", "real/.wh.gone", "seen"]
    daemon.client("lading", "rmi", "stacked")


def test_a_stage_that_comes_out_the_same_keeps_the_cache(daemon: Daemon, tmp_path: Path) -> None:
    """COPY --from goes by content where the stage was built anew."""
    files = {
        "Dockerfile": "FROM busybox AS a\nCOPY f /f\nRUN wc -c < /f > /size\n"
        "FROM busybox\nCOPY --from=a /size /size\nRUN echo sa''id\n",
        "f": "one",
    }
    assert "said\n" in build(daemon, tmp_path, files)
    assert "said\n" not in build(daemon, tmp_path, {"f": "two"})
    assert "said\n" in build(daemon, tmp_path, {"f": "three"})


def test_cache_from_an_image_that_came_from_elsewhere(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM busybox\nENV a=b\nRUN echo sa''id > /said; cat /said\nCOPY f /f\n"
        'CMD ["x"]\n',
        "f": "F",
    }
    build(daemon, tmp_path, files, "-t", "elsewhere")
    identity = daemon.client("lading", "inspect", "-f", "{{.Id}}", "elsewhere").stdout
    archive = daemon.client("lading", "save", "elsewhere").stdout
    daemon.client("lading", "rmi", "elsewhere")
    daemon.client("lading", "builder", "prune", "-af")
    daemon.client("lading", "load", input=archive)
    out = build(daemon, tmp_path, {}, "--cache-from", "elsewhere", "-t", "again")
    assert out.count("Using cache") == 4
    assert daemon.client("lading", "inspect", "-f", "{{.Id}}", "again").stdout == identity
    changed = build(daemon, tmp_path, {"f": "G"}, "--cache-from", "nothing,elsewhere", "-t", "more")
    assert changed.count("Using cache") == 2
    daemon.client("lading", "rmi", "elsewhere", "again", "more")


def test_cache_is_listed_and_pruned(scratch_daemon: Daemon, tmp_path: Path) -> None:
    daemon = scratch_daemon
    text = (
        "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n"
        "RUN --mount=type=cache,target=/c head -c 2000000 /dev/urandom > /c/x\n"
    )
    build(daemon, tmp_path, {"Dockerfile": text})
    rows = json.loads(api(daemon, "GET", "/system/df"))["BuildCache"]
    assert sorted(row["Type"] for row in rows) == ["exec.cachemount", "regular", "regular"]
    assert max(row["Size"] for row in rows) == 3_000_000
    kept = daemon.client("lading", "builder", "prune", "-af", "--keep-storage", "4mb").stdout
    assert b"Total" in kept
    rows = json.loads(api(daemon, "GET", "/system/df"))["BuildCache"]
    assert [row["Type"] for row in rows] == ["exec.cachemount"]
    out = daemon.client("lading", "builder", "prune", "-f").stdout.decode()
    assert "2.0" in out or "2MB" in out, out
    assert json.loads(api(daemon, "GET", "/system/df"))["BuildCache"] == []
    # What an image with a name needs stays, and goes on being cache.
    build(daemon, tmp_path, {}, "-t", "named")
    daemon.client("lading", "builder", "prune", "-f")
    assert build(daemon, tmp_path, {}, "-t", "named").count("Using cache") == 2
    daemon.client("lading", "builder", "prune", "-af")
    assert "Using cache" not in build(daemon, tmp_path, {}, "-t", "named")


def test_only_needed_stages_run_side_by_side(daemon: Daemon, tmp_path: Path) -> None:
    """Each of two waits for the other, by a directory that both have mounted."""
    meet = (
        "RUN --mount=type=cache,target=/m,id=meet touch /m/{0}; "
        "i=0; while [ ! -e /m/{1} ]; do sleep 0.1; i=$((i+1)); [ $i -lt 300 ] || exit 1; done; "
        "echo met-{0} | tee /{0}\n"
    )
    text = (
        f"FROM busybox AS one\n{meet.format('a', 'b')}"
        "FROM busybox AS never\nRUN false\n"
        f"FROM busybox AS two\n{meet.format('b', 'a')}"
        "FROM busybox\nCOPY --from=one /a /\nCOPY --from=two /b /\n"
    )
    out = build(daemon, tmp_path, {"Dockerfile": text})
    steps = [line.split()[1] for line in out.splitlines() if line.startswith("Step ")]
    assert steps == [f"{n}/7" for n in range(1, 8)]
    assert out.index("met-a\n") < out.index("Step 3/7") < out.index("met-b\n")
    daemon.client("lading", "builder", "prune", "-af")
    marked = build(daemon, tmp_path, {}, "--progress", "plain")
    assert "[one] met-a\n" in marked
    assert "[two] met-b\n" in marked


def test_a_failed_stage_ends_the_others(daemon: Daemon, tmp_path: Path) -> None:
    text = (
        "FROM busybox AS one\nRUN sleep 1000\n"
        "FROM busybox AS two\nRUN sleep 1; echo so''rry; exit 4\n"
        "FROM busybox\nCOPY --from=one / /\nCOPY --from=two / /\n"
    )
    out = build(daemon, tmp_path, {"Dockerfile": text}, "--force-rm", check=False)
    assert "sorry\n" in out
    assert "returned a non-zero code: 4" in out
    assert daemon.client("lading", "ps", "-aq").stdout == b""


def test_a_client_that_goes_leaves_only_cache(daemon: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo 1 > /one\nRUN touch /x; sleep 1000\n"
    (tmp_path / "Dockerfile").write_text(text)
    client = subprocess.Popen(
        [find_client("lading"), "-H", daemon.host, "build", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until(lambda: daemon.client("lading", "ps", "-q").stdout)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=60)
    until(lambda: not daemon.client("lading", "ps", "-aq").stdout)
    until(lambda: not list((daemon.root / "data/build").glob("context-*")))
    again = build(daemon, tmp_path, {"Dockerfile": text.replace("1000", "0")})
    assert again.count("Using cache") == 1


def test_a_killed_daemon_clears_away_and_keeps_the_cache(
    scratch_daemon: Daemon, tmp_path: Path
) -> None:
    daemon = scratch_daemon
    text = "FROM busybox\nRUN echo 1 > /one\nCOPY f /f\nRUN sleep 1000\n"
    (tmp_path / "f").write_text("F")
    (tmp_path / "Dockerfile").write_text(text)
    client = subprocess.Popen(
        [find_client("lading"), "-H", daemon.host, "build", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until(lambda: b"sleep" in daemon.client("lading", "ps", "--no-trunc").stdout)
    daemon.kill()
    client.communicate(timeout=60)
    daemon.start()
    assert daemon.client("lading", "ps", "-aq").stdout == b""
    assert not list((daemon.root / "data/build").glob("context-*"))
    assert not list((daemon.root / "data/containers").iterdir())
    again = build(daemon, tmp_path, {"Dockerfile": text.replace("1000", "0")})
    assert again.count("Using cache") == 2


def api(daemon: Daemon, method: str, path: str) -> bytes:
    """The body of an answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        head = f"{method} /v1.41{path} HTTP/1.0\r\nHost: lading\r\n\r\n"
        client.sendall(head.encode())
        data = b""
        while piece := client.recv(1 << 16):
            data += piece
    return data.partition(b"\r\n\r\n")[2]


def test_squash_makes_one_layer_of_what_is_new(daemon: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM busybox\nRUN echo 1 > /one; echo 2 > /two\nRUN rm /one /etc/group\n"
        "COPY f /f\nENV a=b\n",
        "f": "F",
    }
    build(daemon, tmp_path, files, "-t", "squashed", "--squash")
    base, own = layers(daemon, "squashed")
    assert "etc/group" in base
    assert own == ["etc", "etc/.wh.group", "f", "two"]
    before, after = (
        daemon.client("lading", "history", "-q", name).stdout.split()
        for name in ("busybox", "squashed")
    )
    assert len(after) == len(before) + 5
    shown = daemon.client("lading", "run", "--rm", "squashed", "sh", "-c", "cat /two /f; echo $a")
    assert shown.stdout == b"2\nFb\n"
    daemon.client("lading", "rmi", "squashed")


def test_outputs(daemon: Daemon, tmp_path: Path) -> None:
    """Only what the image holds, no mount points of the engine; archives that load again."""
    files = {"c/Dockerfile": "FROM scratch\nCOPY f g/ /d/\n", "c/f": "F", "c/g/h": "H"}
    source, out = str(tmp_path / "c"), tmp_path / "out"
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    iid = tmp_path / "iid"
    daemon.client("lading", "build", "-o", str(out), source)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == ["d", "d/f", "d/h"]
    assert (out / "d/h").read_text() == "H"
    done = daemon.client("lading", "build", "-o", "-", source)
    assert b"Successfully built" in done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert [entry.name for entry in archive] == ["d", "d/f", "d/h"]
    for kind, member in (("oci", "index.json"), ("docker", "manifest.json")):
        saved = tmp_path / kind
        daemon.client(
            "lading", "build", "-t", "out:1", "-o", f"type={kind},dest={saved}",
            "--output", "type=image,name=also:2", "--iidfile", str(iid), source,
        )  # fmt: skip
        with tarfile.open(saved) as archive:
            assert member in archive.getnames()
        shown = daemon.client("lading", "inspect", "-f", "{{.Id}}", "also:2").stdout.decode()
        assert shown.strip() == iid.read_text()
        daemon.client("lading", "rmi", "out:1", "also:2")
        assert b"out:1" in daemon.client("lading", "load", "-i", str(saved)).stdout
        daemon.client("lading", "rmi", "out:1")
    for wrong, told in (("type=tarball,dest=x", "type is one of"), ("type=local", "dest=DIR"),
                        ("type=image,push=true", "lading push")):  # fmt: skip
        refused = daemon.client("lading", "build", "-o", wrong, source, check=False)
        assert refused.returncode != 0
        assert told in refused.stderr.decode()


def test_local_output_stays_inside(daemon: Daemon, tmp_path: Path) -> None:
    """An image's links lead nowhere on the client's host."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "d").symlink_to(outside)
    text = f"FROM busybox AS a\nRUN ln -s {outside} /l\nFROM scratch\nCOPY --from=a /l /l\n"
    (tmp_path / "Dockerfile").write_text(f"{text}COPY Dockerfile /d/x\n")
    daemon.client("lading", "build", "-o", str(out), str(tmp_path), check=False)
    assert list(outside.iterdir()) == []


def test_a_layer_that_the_power_took_goes_with_its_image(
    scratch_daemon: Daemon, tmp_path: Path
) -> None:
    """A layer is synced after the build; what was not is looked at by the next start."""
    daemon = scratch_daemon
    files = {"Dockerfile": "FROM busybox\nCOPY f /f\n", "f": "F"}
    build(daemon, tmp_path, files, "-t", "whole")
    build(daemon, tmp_path, {"f": "G"}, "-t", "torn")
    unsynced = daemon.root / "data/unsynced"
    until(lambda: not list(unsynced.iterdir()))
    digests = {}
    for name in ("whole", "torn"):
        shown = daemon.client("lading", "inspect", "-f", "{{json .RootFS.Layers}}", name).stdout
        digests[name] = json.loads(shown)[-1].removeprefix("sha256:")
        (unsynced / digests[name]).touch()
    daemon.kill()
    (daemon.root / "data/blobs/sha256" / digests["torn"]).write_bytes(b"")
    daemon.start()
    names = daemon.client("lading", "images", "--format", "{{.Repository}}").stdout.split()
    assert sorted(names) == [b"busybox", b"whole"]
    assert not list(unsynced.iterdir())
    assert build(daemon, tmp_path, {"f": "F"}).count("Using cache") == 1
    assert "Using cache" not in build(daemon, tmp_path, {"f": "G"})
