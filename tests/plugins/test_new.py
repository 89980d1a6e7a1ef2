"""A stranger's afternoon: a generated plugin is installed, keeps its contract, runs containers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from throwaway import COPIES, install

from lading.cli.scaffold import SUMMARIES, new
from lading.errors import Conflict, Invalid
from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left

from .commands import pip_install, run

ROLES = tuple(SUMMARIES)
CORE = Path(__file__).resolve().parents[2] / "core"
NAME = "my-driver"


def python(*arguments: str, cwd: Path, site: Path) -> str:
    return run(sys.executable, *arguments, cwd=cwd, PYTHONPATH=str(site))


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A generated distribution for each role."""
    top = tmp_path_factory.mktemp("projects")
    for role in ROLES:
        run(find_client("lading"), "plugin", "new", role, NAME, top / role, cwd=top)
    return {role: top / role for role in ROLES}


@pytest.fixture(scope="module")
def site(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, installed as pip does, without an index."""
    site = tmp_path_factory.mktemp("installed") / "site"
    return pip_install(site, *(projects[role] for role in ROLES))


@pytest.mark.parametrize("role", ROLES)
def test_it_is_complete_and_clean(projects: dict[str, Path], role: str) -> None:
    top = projects[role]
    package = f"lading_{role}_my_driver"
    found = sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())
    wanted = ["pyproject.toml", "README.md", "LICENSE", ".gitignore", f"tests/test_{role}.py"]
    wanted += [f"{package}/{name}" for name in ("__init__.py", "backend.py", "py.typed")]
    assert set(wanted) <= set(found)
    for path in found:
        text = (top / path).read_text(errors="replace")
        assert not re.search(r"\$[a-z_{]|TODO|FIXME|your name|example\.com", text, re.I), path
    assert (top / f"tests/test_{role}.py").read_text().count("\n") <= 30
    tools = Path(sys.executable).parent
    style = ["--isolated", "--line-length=100"]
    run(tools / "ruff", "check", *style, "--select=E,F,W,I,B,UP,N,SIM,PT,C4", ".", cwd=top)
    run(tools / "ruff", "format", *style, "--check", ".", cwd=top)
    run(tools / "mypy", "--strict", package, cwd=top, MYPYPATH=str(CORE))


@pytest.mark.root
@pytest.mark.parametrize("role", ROLES)
def test_its_own_tests_pass(projects: dict[str, Path], site: Path, role: str) -> None:
    shown = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=projects[role], site=site)
    assert re.search(r"\d+ passed", shown), shown
    assert "failed" not in shown


@pytest.mark.root
@pytest.mark.parametrize("role", ["registry", "extension"])
def test_the_kit_reports(projects: dict[str, Path], site: Path, role: str) -> None:
    kit = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--lading-plugin={role}/{NAME}"]
    shown = python(*kit, cwd=projects[role], site=site)
    assert f"conformance of {role} plugin {NAME}" in shown
    assert f"lading-{role}-{NAME} 0.1.0" in shown
    assert re.search(rf"{NAME} keeps all \d+ rules that this host could test", shown)
    assert re.search(r"total +\d+ +0 +\d+", shown)


@pytest.fixture(scope="module")
def daemon(site: Path) -> Iterator[Daemon]:
    """A daemon that was told to use them all."""
    root = site.parent / "daemon"
    root.mkdir()
    config = root / "lading.toml"
    config.write_text(
        f'default-runtime = "{NAME}"\nstorage-driver = "{NAME}"\nextensions = ["{NAME}"]\n'
        f'[registry."shelf.local"]\ntransport = "{NAME}"\n'
    )
    running = Daemon(f"--config-file={config}", root=root, environment={"PYTHONPATH": str(site)})
    with nothing_left(), running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


@pytest.mark.root
def test_the_doctor_is_content(daemon: Daemon) -> None:
    shown = daemon.client("lading", "doctor").stdout.decode()
    assert shown.count(f"{NAME} (default)") == 2
    assert shown.endswith("The configured defaults are usable.\n")


@pytest.mark.root
def test_a_container_runs_on_it(daemon: Daemon) -> None:
    script = "echo hello > /file; cat /file; id -u; mount | grep -c ' / '"
    done = daemon.client("lading", "run", "--name", "c", "busybox", "sh", "-c", script)
    assert done.stdout == b"hello\n0\n1\n"
    (row,) = json.loads(daemon.client("lading", "inspect", "c").stdout)
    assert (row["Driver"], row["HostConfig"]["Runtime"]) == (NAME, NAME)
    assert daemon.client("lading", "diff", "c").stdout == b"A /file\n"
    daemon.client("lading", "commit", "c", "changed")
    assert daemon.client("lading", "run", "--rm", "changed", "cat", "/file").stdout == b"hello\n"
    daemon.client("lading", "rm", "c")


@pytest.mark.root
def test_containers_meet_on_its_network(daemon: Daemon) -> None:
    daemon.client("lading", "network", "create", "--driver", NAME, "meeting")
    server = ["httpd", "-f", "-p", "80", "-h", "/etc"]
    daemon.client(
        "lading", "run", "-d", "--name", "server", "--network", "meeting", "busybox", *server
    )
    asker = "until printf 'GET /passwd HTTP/1.0\\r\\n\\r\\n' | nc -w 5 server 80; do sleep 1; done"
    done = daemon.client(
        "lading", "run", "--rm", "--network", "meeting", "busybox", "sh", "-c", asker, timeout=60
    )
    assert b"root:x:0:0" in done.stdout
    flags = ["--network", "meeting", "-p", "8080:80"]
    refused = daemon.client("lading", "run", "--rm", *flags, "busybox", "true", check=False)
    assert refused.returncode == 125
    assert b"publish" in refused.stderr
    daemon.client("lading", "rm", "-f", "server")
    daemon.client("lading", "network", "rm", "meeting")


@pytest.mark.root
@pytest.mark.peer
def test_images_travel_over_its_transport(daemon: Daemon, tmp_path: Path) -> None:
    daemon.client("lading", "tag", "busybox", "shelf.local/kept/box:1")
    daemon.client("lading", "push", "shelf.local/kept/box:1")
    (layout,) = (daemon.root / "data").rglob("oci-layout")
    shown = run("skopeo", "inspect", f"oci:{layout.parent}:1", cwd=tmp_path)
    assert len(json.loads(shown)["Layers"]) == 1
    daemon.client("lading", "rmi", "shelf.local/kept/box:1")
    daemon.client("lading", "pull", "shelf.local/kept/box:1")
    done = daemon.client("lading", "run", "--rm", "shelf.local/kept/box:1", "echo", "back")
    assert done.stdout == b"back\n"


@pytest.mark.root
def test_its_events_are_written(daemon: Daemon) -> None:
    daemon.client("lading", "run", "--rm", "--name", "seen", "busybox", "true")
    (file,) = (daemon.root / "data" / "extension").rglob("events.jsonl")
    rows = [json.loads(row) for row in file.read_text().splitlines()]
    seen = [r["Action"] for r in rows if r["Actor"]["Attributes"].get("name") == "seen"]
    assert [a for a in seen if a in ("create", "start", "die")] == ["create", "start", "die"]


@pytest.mark.parametrize(
    ("role", "name", "kind", "text"),
    [
        ("volume", "x", Invalid, "roles: isolation, filesystem"),
        ("filesystem", "Bad_Name", Invalid, "bad name"),
        ("filesystem", "taken", Conflict, "exists already"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, role: str, name: str, kind: type[Exception], text: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(kind, match=text):
        new(role, name, tmp_path / name)


BROKEN = (
    COPIES
    + """
    def __init__(self, context):
        super().__init__(context)
        self.capabilities = frozenset({"idmap", "changes"})

    @hookimpl
    def changed_paths(self, key):
        return iter(())

    @hookimpl
    def remove(self, key):
        pass
"""
)


@pytest.mark.root
def test_the_report_of_a_broken_plugin(tmp_path: Path) -> None:
    source = BROKEN.replace("self.capabilities =", "type(self).capabilities =")
    install(tmp_path / "site", "careless", source, role="filesystem")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no",
         "--lading-plugin=careless"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    shown = done.stdout
    assert done.returncode == 1
    assert re.search(r"careless breaks \d+ of \d+ rules", shown), shown
    assert re.search(r"changes +BROKEN \(\d+ of \d+ rules\)", shown), shown
    broken = shown[shown.index("BROKEN LifeCycle: ") :]
    assert re.search(r"^  rule: \S.*\n  expected .*, got ", broken, re.M), broken
    assert 'skipped 3: the backend does not declare "layer-directory"' in shown


def test_an_unknown_plugin_lists_the_known(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--lading-plugin=nosuch"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert 'no lading plugin "nosuch" is installed; installed: ' in done.stderr
    assert "isolation/native" in done.stderr
