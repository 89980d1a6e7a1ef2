"""The sample of a third party's plugin: installed, tested by its own tests, used by containers."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from lading.testing.daemon import Daemon, busybox_image, nothing_left

from .commands import pip_install, run

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "lading-filesystem-hardlink"
PACKAGE = "lading_filesystem_hardlink"

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed from a copy: building leaves files in the source."""
    top = tmp_path_factory.mktemp("example")
    run("cp", "-r", EXAMPLE, top / "source", cwd=top)
    return pip_install(top / "site", top / "source")


def test_its_types_hold() -> None:
    mypy = Path(sys.executable).with_name("mypy")
    flags = ["--strict", "--cache-dir", os.devnull]
    run(mypy, *flags, PACKAGE, cwd=EXAMPLE, MYPYPATH=str(ROOT / "core"))


def test_its_own_tests_and_the_kit(site: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--lading-plugin=hardlink", "tests/test_sharing.py"]
    shown = run(sys.executable, "-m", "pytest", *options, cwd=EXAMPLE, PYTHONPATH=str(site))
    assert re.search(r"hardlink keeps all \d+ rules", shown), shown
    assert "failed" not in shown.splitlines()[-1]


def test_images_on_one_base_share_it(site: Path) -> None:
    daemon = Daemon("--storage-driver=hardlink", environment={"PYTHONPATH": str(site)})
    with nothing_left(), daemon:
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        for number in range(3):
            daemon.client(
                "lading", "run", "--name", f"c{number}", "busybox", "touch", f"/file{number}"
            )
            daemon.client("lading", "commit", f"c{number}", f"image{number}")
            daemon.client("lading", "rm", f"c{number}")
        done = daemon.client("lading", "run", "--rm", "image2", "ls", "/file2", "/bin/busybox")
        assert done.stdout == b"/bin/busybox\n/file2\n"
        # What was removed is deleted a little later, under another name.
        snapshots = daemon.root / "data" / "filesystem" / "hardlink" / "snapshots"
        files = [s / "fs/bin/busybox" for s in snapshots.iterdir() if s.name.isdigit()]
        assert len(files) == 4
        assert len({file.stat().st_ino for file in files}) == 1
        script = "echo changed >> /etc/passwd"
        daemon.client("lading", "run", "--rm", "image0", "sh", "-c", script)
        shown = daemon.client("lading", "run", "--rm", "image1", "cat", "/etc/passwd").stdout
        assert shown.startswith(b"root:")
        assert b"changed" not in shown
