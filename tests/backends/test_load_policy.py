"""The load policy: who may be loaded at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.errors import Denied
from lading.load_policy import Policy, digest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "policy_subject"
    root.mkdir()
    (root / "__init__.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_allow_list_takes_patterns(package: Path) -> None:
    policy = Policy(allow=("lading-*",))
    policy.check("lading-fs-overlay", "policy_subject:X")
    with pytest.raises(Denied, match="allow-list"):
        policy.check("stranger", "policy_subject:X")


def test_a_pin_holds_until_a_file_changes(package: Path) -> None:
    policy = Policy(pins={"pinned": digest(package)})
    policy.check("pinned", "policy_subject:X")
    (package / "__init__.py").write_text("VALUE = 2\n")
    with pytest.raises(Denied, match="the pin says"):
        policy.check("pinned", "policy_subject:X")


def test_files_that_others_may_write_are_refused(package: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs files owned by root")
    policy = Policy(require_root_owned=True)
    policy.check("any", "policy_subject:X")
    (package / "__init__.py").chmod(0o666)
    with pytest.raises(Denied, match="others may write"):
        policy.check("any", "policy_subject:X")
