"""``lading doctor``, ``plugin ls`` and ``inspect``, ``config show``: with and without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from lading.backends import ROLES
from lading.linux import features
from lading.testing.daemon import Daemon, find_client

NOBODY = "unix:///nonexistent/lading.sock"


def lading(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("LADING_HOST", "DOCKER_HOST")}
    return subprocess.run(
        [find_client("lading"), *arguments],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        timeout=60,
        check=False,
    )


def configured(tmp_path: Path, text: str) -> str:
    file = tmp_path / "lading.toml"
    file.write_text(f'data-root = "{tmp_path}/data"\n{text}')
    return str(file)


def installed() -> set[tuple[str, str]]:
    roles = (*ROLES, "extension")
    return {(role, p.name) for role in roles for p in entry_points(group=f"lading.{role}")}


def by_name(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["Role"], row["Name"]): row for row in rows}


@pytest.mark.root
@pytest.mark.parametrize("offline", [False, True], ids=["daemon", "offline"])
def test_every_installed_plugin_is_told_of(daemon: Daemon, tmp_path: Path, offline: bool) -> None:
    flags = ["--offline", "--config-file", configured(tmp_path, "")] if offline else []
    done = daemon.client("lading", "doctor", *flags, "--format", "json")
    found = json.loads(done.stdout)
    rows = by_name(found["Plugins"])
    assert set(rows) == installed()
    for row in rows.values():
        assert row["Distribution"].startswith("lading-")
        assert row["DistributionVersion"]
        assert row["Status"] in ("usable", "unusable", "disabled")
        assert row["Status"] == "usable" or (row["Reason"] and row["Remedy"])
        assert row["Status"] == "disabled" or row["SpecVersion"] == row["SpokenVersion"] == 1
    default = rows["isolation", "native"]
    assert default["Default"]
    assert "pause" in default["Capabilities"]
    assert "checkpoint" in default["MissingCapabilities"]
    assert {row["Name"] for row in found["Kernel"]} >= {
        "namespaces", "overlayfs", "seccomp", "nf_tables", "cgroups", "capabilities", "fuse",
        "forwarding", "AppArmor",
    }  # fmt: skip
    assert found["Usable"] is True


@pytest.mark.root
def test_the_table_says_all_in_words(daemon: Daemon) -> None:
    shown = daemon.client("lading", "doctor").stdout.decode()
    assert "native (default)" in shown
    assert "lading-fs-aufs 0.1.0, contract 1 of 1" in shown
    assert "to mend it: " in shown
    assert shown.endswith("The configured defaults are usable.\n")


@pytest.mark.root
def test_without_a_daemon(tmp_path: Path) -> None:
    config = configured(tmp_path, "")
    before = sorted(tmp_path.iterdir())
    done = lading("doctor", "--config-file", config, "--offline")
    assert done.returncode == 0, done
    assert "asked: no daemon" in done.stdout
    assert sorted(tmp_path.iterdir()) == before
    assert ".lading-doctor-" not in done.stdout


def test_a_daemon_that_was_named_must_answer() -> None:
    done = lading("-H", NOBODY, "doctor")
    assert done.returncode == 1
    assert "Cannot connect" in done.stderr
    assert done.stdout == ""


@pytest.mark.root
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('default-runtime = "kata"', 'the default isolation backend "kata" is unusable'),
        ('storage-driver = "nosuch"', 'the default filesystem backend "nosuch" is not installed'),
        ("[plugins]\nallow = []", 'the default network backend "bridge" is failed'),
    ],
)
def test_defaults_that_are_not_usable(tmp_path: Path, line: str, problem: str) -> None:
    done = lading("doctor", "--offline", "--config-file", configured(tmp_path, line))
    assert done.returncode == 1
    assert f"PROBLEM: {problem}" in done.stdout


def test_one_bad_key_is_one_line(tmp_path: Path) -> None:
    config = configured(tmp_path, "no-such-key = 1")
    done = lading("doctor", "--offline", "--config-file", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no-such-key" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.root
def test_plugin_ls_and_inspect(daemon: Daemon) -> None:
    listed = daemon.client("lading", "plugin", "ls").stdout.decode().splitlines()
    titles = "ROLE NAME DEFAULT STATUS VERSION SPEC DISTRIBUTION"
    assert listed[0].split() == titles.split(" ")
    assert len(listed) == 1 + len(installed())
    only = daemon.client("lading", "plugin", "ls", "-q", "--role", "network").stdout
    assert only == b"bridge\n"
    layout = "{{.Name}} {{.Capabilities}}"
    rows = daemon.client("lading", "plugin", "ls", "--format", layout).stdout.decode()
    assert "bridge gateway,internal,ipv6,publish\n" in rows
    (row,) = json.loads(daemon.client("lading", "plugin", "inspect", "filesystem/vfs").stdout)
    assert row["EntryPoint"] == "lading_fs_vfs:Vfs"
    assert row["Details"]["Reflinks"] in ("true", "false")
    done = daemon.client("lading", "plugin", "inspect", "nosuch", check=False)
    assert (done.returncode, done.stdout) == (1, b"[]\n")
    assert b'no plugin "nosuch" is installed' in done.stderr


@pytest.mark.root
@pytest.mark.peer
def test_docker_info_has_the_same(daemon: Daemon) -> None:
    shown = json.loads(daemon.client("lading", "info", "--format", "json").stdout)
    assert set(by_name(shown["Lading"]["Plugins"])) == installed()
    assert "Backends:\n" in daemon.client("lading", "info").stdout.decode().replace(" \n", "\n")
    lines = daemon.client("docker", "info").stdout.decode()
    usable = {r["Name"] for r in shown["Lading"]["Plugins"] if r["Status"] == "usable"}
    (runtimes,) = [row for row in lines.splitlines() if row.strip().startswith("Runtimes:")]
    assert set(runtimes.split(":")[1].split()) <= usable


def test_config_show_says_who_set_what(tmp_path: Path) -> None:
    config = configured(tmp_path, '[registry."host:5000"]\ninsecure = true\n')
    drop_ins = tmp_path / "lading.toml.d"
    drop_ins.mkdir()
    (drop_ins / "10-mine.toml").write_text('labels = ["a=b"]\n')
    done = lading("config", "show", "--config-file", config, "--format", "json")
    rows = {row["Key"]: (row["Value"], row["Source"]) for row in json.loads(done.stdout)}
    assert rows["labels"] == (["a=b"], str(drop_ins / "10-mine.toml"))
    assert rows["registry.host:5000.insecure"] == (True, config)
    assert "debug" not in rows
    everything = lading("config", "show", "-a", "--config-file", config).stdout
    (debug,) = [row for row in everything.splitlines() if row.split()[0] == "debug"]
    assert debug.endswith("default")


def test_findings_without_root_are_findings() -> None:
    """Whoever asks gets rows, not errors."""
    code = "from lading.linux import features; print(len(features.findings()))"
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    else:
        command = []
    done = subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, cwd="/"
    )
    refused = "Permission denied" in done.stderr and "lading" not in done.stderr
    if refused or "No module named 'lading'" in done.stderr:
        pytest.skip("another user cannot read this interpreter or checkout")
    assert int(done.stdout) >= len(features.findings()) - 1, done.stderr


def test_every_capability_of_the_contracts_has_its_meaning() -> None:
    """The tables and the prose name the same capabilities."""
    import importlib
    import inspect
    import re

    for role in ROLES:
        contract = importlib.import_module(f"lading.hooks.{role}")
        name = {"network": "NetworkBackend"}.get(role, role.capitalize())
        prose = inspect.getdoc(getattr(contract, name)) or ""
        listed = prose[prose.index("Capabilities") :]
        named = {n for n in re.findall(r"``([a-z0-9-]+)``", listed) if "." not in n}
        assert set(contract.CAPABILITIES) <= named, role
