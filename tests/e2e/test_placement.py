"""``--storage-opt path=``: where the writable layer of one container lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


def test_layer_lies_where_it_was_asked_to(daemon: Daemon, client: str, tmp_path: Path) -> None:
    words = ["--storage-opt", "driver=overlay", "--storage-opt", f"path={tmp_path}"]
    daemon.client(client, "run", "--name", "placed", *words, "busybox", "touch", "/written")
    [place] = tmp_path.iterdir()
    assert list(place.rglob("written"))
    assert b"A /written" in daemon.client(client, "diff", "placed").stdout
    daemon.client(client, "start", "-a", "placed")
    assert daemon.client(client, "cp", "placed:/written", "-").stdout
    daemon.client(client, "commit", "placed", "from-placed")
    daemon.client(client, "run", "--rm", "from-placed", "ls", "/written")
    daemon.client(client, "rm", "placed")
    assert list(tmp_path.iterdir()) == []
    daemon.client(client, "rmi", "from-placed")


def test_link_on_the_way_is_resolved_once(daemon: Daemon, tmp_path: Path) -> None:
    real, other, link = (tmp_path / name for name in ("real", "other", "link"))
    real.mkdir()
    other.mkdir()
    link.symlink_to(real)
    words = ["--name", "placed", "--storage-opt", f"path={link}", "busybox", "touch", "/written"]
    daemon.client("lading", "create", *words)
    shown = json.loads(daemon.client("lading", "inspect", "placed").stdout)[0]
    assert shown["HostConfig"]["StorageOpt"] == {"path": str(real)}
    link.unlink()
    link.symlink_to(other)
    daemon.client("lading", "start", "-a", "placed")
    assert list(real.rglob("written"))
    daemon.client("lading", "rm", "placed")
    assert os.listdir(real) == os.listdir(other) == []


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("path=relative", "an absolute path is needed"),
        ("path=/no/such/place", "no such directory"),
        ("path=/etc/passwd", "no such directory"),
        ("path={root}/data", "the engine's own"),
        ("path={root}/run/containers", "the engine's own"),
        ("size=nothing", "invalid size"),
        ("size=0", "it must be above 0"),
        ("size=inf", "invalid size"),
        ("size=-1g", "it must be above 0"),
        ("sise=1g", "unknown storage option: sise"),
    ],
)
def test_wrong_options_make_nothing(daemon: Daemon, client: str, option: str, says: str) -> None:
    words = ["--storage-opt", option.format(root=daemon.root), "busybox", "true"]
    done = daemon.client(client, "create", *words, check=False)
    assert done.returncode != 0
    assert says in done.stderr.decode()
    assert daemon.client("lading", "ps", "-aq").stdout == b""


@pytest.mark.parametrize("driver", ["vfs", "btrfs"])
def test_backend_that_cannot_place_is_refused(
    daemon: Daemon, client: str, driver: str, tmp_path: Path
) -> None:
    words = ["--storage-opt", f"driver={driver}", "--storage-opt", f"path={tmp_path}"]
    done = daemon.client(client, "create", *words, "busybox", "true", check=False)
    assert done.returncode != 0
    said = done.stderr.decode()
    assert f'"{driver}" cannot do that' in said or f'"{driver}" is not usable here' in said
    assert list(tmp_path.iterdir()) == []
