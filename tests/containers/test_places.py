"""What is mounted into a container's run directory survives the removal of that directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.containers import places
from lading.containers.volumes import below
from lading.errors import NotFound
from lading.linux.mountpoints import is_mounted, unmount_all

pytestmark = pytest.mark.root


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    root = tmp_path / "volume"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "precious").write_text("data")
    (root / "out").symlink_to("/etc")
    return root


def test_a_pinned_part_of_a_volume_is_not_removed_with_the_run_directory(
    tmp_path: Path, volume: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pin = Path(below(run, volume, "sub"))
    assert (pin / "precious").read_text() == "data"
    assert is_mounted(pin)
    places.discard(run)
    assert not run.exists()
    assert (volume / "sub" / "precious").read_text() == "data"


def test_a_subpath_does_not_lead_out_of_the_volume(tmp_path: Path, volume: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in ("out/passwd", "../outside", "missing"):
        with pytest.raises(NotFound):
            below(run, volume, path)
    places.discard(run)


def test_unmounting_what_is_not_mounted_is_fine(tmp_path: Path) -> None:
    unmount_all(tmp_path)
    unmount_all(tmp_path / "missing")
    assert not is_mounted(tmp_path)
