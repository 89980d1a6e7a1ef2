"""The isolation kit catches backends that break a rule, and says which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FILE = """
import os
import pytest
from lading.hooks import hookimpl
from lading.linux import mounts, syscalls
from lading.hooks.common import Mount
from lading.testing.isolation import Factory, IsolationConformance
from lading.bundle import program, protection, reaper
from lading.bundle.state import State
from lading_isolation_native import Native


class Broken(Native):
    {method}


{module}


@pytest.mark.root
class TestBroken(IsolationConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Broken
"""

FORGETS_CGROUP = """
    @hookimpl
    def delete(self, container):
        try:
            State.load(container).group.kill()
        except Exception:
            pass
        State.forget(container)
"""
STARTS_AT_ONCE = """
    @hookimpl
    def create(self, container, rootfs, stdio):
        started = super().create(container, rootfs, stdio)
        super().start(container)
        return started

    @hookimpl
    def start(self, container):
        pass
"""
MOUNTS_ON_THE_HOST = """
    @hookimpl
    def create(self, container, rootfs, stdio):
        mounts.mount_recipe(rootfs, container.bundle / "rootfs")
        return super().create(container, rootfs, stdio)

    @hookimpl
    def delete(self, container):
        super().delete(container)
        try:
            syscalls.umount2(str(container.bundle / "rootfs"), syscalls.MNT_DETACH)
        except OSError:
            pass
"""
HALF_AN_UPDATE = """
    @hookimpl
    def update(self, container, resources):
        from lading.errors import Invalid
        for name, value in resources.items():
            try:
                State.load(container).group.apply({name: value})
            except OSError as error:
                raise Invalid(str(error)) from error
"""
NO_PAUSE = """
    @hookimpl
    def pause(self, container):
        pass
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("method", "module", "caught"),
    [
        (FORGETS_CGROUP, "", "test_delete_leaves_nothing"),
        (STARTS_AT_ONCE, "", "test_created_init_waits"),
        (STARTS_AT_ONCE, "", "test_start_twice"),
        (MOUNTS_ON_THE_HOST, "", "test_host_mounts_stay"),
        (HALF_AN_UPDATE, "", "test_refused_update_changes_nothing"),
        (NO_PAUSE, "", "test_pause_and_resume"),
        ("pass", "protection._mask = lambda root, masked: None", "test_masked_paths"),
        ("pass", "reaper.fork_program = lambda: 0", "test_init_that_reaps"),
        ("pass", "program.enter_directory = lambda cwd: None", "test_environment_and_directory"),
    ],
    ids=lambda text: text if text.startswith("test_") else "",
)
def test_a_broken_backend(tmp_path: Path, method: str, module: str, caught: str) -> None:
    (tmp_path / "test_broken.py").write_text(FILE.format(method=method, module=module))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", caught, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert f"TestBroken::{caught}" in done.stdout, done.stdout + done.stderr
    assert "rule: " in done.stdout
    assert "1 failed" in done.stdout
