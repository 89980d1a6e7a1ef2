"""What goes from one filesystem backend to another, or to the host: all of this host's at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .conftest import Engine, names, text

pytestmark = pytest.mark.root

CHANGES = (
    "echo changed > /etc/group; rm /bin/yes; rm -r /home; mkdir -p /home/sub; echo new > /home/new;"
    "echo one > /var/a; ln /var/a /var/b; chown 5:6 /var/a; chmod 4711 /var/a; ln -s a /var/link;"
    "mkfifo /var/pipe; mknod /var/null c 1 3; mv /usr /moved; chmod 1700 /root"
)


def tree(top: Path) -> dict[str, object]:
    """All that a mounted container shows."""
    found: dict[str, object] = {}
    for above, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(above) / name
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(top))] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev,
                content, os.readlink(path) if path.is_symlink() else "",
            )  # fmt: skip
    return found


def test_container_goes_round_all_backends(engine: Engine) -> None:
    """Each hop is another pair; what it shows on the host stays the same on every backend."""
    first, *rest = ring = names("filesystem")
    words = ["--name", "traveller", "--storage", first, "busybox", "sh", "-c", CHANGES]
    engine.client("lading", "run", *words)
    seen = []
    for driver in [*rest, *reversed(ring[:-1]), first]:
        place = Path(text(engine.client("lading", "mount", "traveller")).strip())
        seen.append(tree(place))
        engine.client("lading", "unmount", "traveller")
        if json.loads(text(engine.client("lading", "inspect", "traveller")))[0]["Driver"] == driver:
            continue
        engine.client("lading", "storage", "migrate", "--to", driver, "traveller")
        shown = json.loads(text(engine.client("docker", "inspect", "traveller")))[0]
        assert shown["Driver"] == driver
        changed = set(text(engine.client("docker", "diff", "traveller")).splitlines())
        assert {"C /etc/group", "D /bin/yes", "D /usr", "A /moved", "A /var/b"} <= changed
    for later in seen[1:]:
        assert {k: v for k, v in later.items() if seen[0].get(k) != v} == {}
        assert later.keys() == seen[0].keys()
    engine.client("lading", "rm", "traveller")


@pytest.mark.parametrize("driver", names("filesystem"))
def test_running_container_is_shown_on_the_host(engine: Engine, driver: str) -> None:
    words = ["--name", "shown", "--storage-opt", f"driver={driver}", "busybox", "sleep", "1000"]
    engine.client("docker", "run", "-d", *words)
    place = Path(text(engine.client("lading", "mount", "shown")).strip())
    engine.client("docker", "exec", "shown", "sh", "-c", "echo written > /etc/written")
    assert (place / "etc/written").read_text() == "written\n"
    with pytest.raises(OSError, match="Read-only"):
        (place / "never").touch()
    engine.client("docker", "restart", "-t", "0", "shown")
    engine.client("docker", "exec", "shown", "sh", "-c", "echo again > /etc/written")
    assert (place / "etc/written").read_text() == "again\n"
    engine.client("lading", "unmount", "shown")
    engine.client("docker", "rm", "-f", "shown")
