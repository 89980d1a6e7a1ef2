"""What monitors share with the spawner, and each pays for in part."""

from __future__ import annotations

import subprocess
import sys

from lading.daemon.engine import PRELOAD

#: Whole parts of the engine that no task uses.
ENGINE = ("lading.api", "lading.containers", "lading.images", "lading.networks", "lading.store")


def test_the_spawner_holds_no_part_of_the_engine() -> None:
    program = f"import sys, {', '.join(PRELOAD)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert [name for name in loaded if name.startswith(ENGINE)] == []
