"""Broken plugins, installed like any other: each is listed in one line and stops nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from throwaway import COPIES, install

from lading.testing.daemon import Daemon, busybox_image, nothing_left

pytestmark = pytest.mark.root

#: By name: the backend's source, and what the daemon says of it.
BROKEN = {
    "explodes": ("raise RuntimeError('out of gas')\n", "RuntimeError: out of gas"),
    "needy": ("import no_such_module_at_all\n", "ModuleNotFoundError: .*no_such_module_at_all"),
    "absent": ("", "AttributeError: .* has no attribute 'Backend'"),
    "misspelt": (
        COPIES + "    @hookimpl\n    def comit(self, key, name): ...\n",
        "unknown hook 'comit'",
    ),
    "forgetful": (
        COPIES + "    @hookimpl\n    def commit(self, key): ...\n",
        r"hook commit does not take name; its signature is commit\(self, key",
    ),
    "inventive": (
        COPIES + "    @hookimpl\n    def commit(self, key, name, mood): ...\n",
        r"'mood'.* its signature is commit\(self, key",
    ),
    "lacking": (
        "from lading.hooks import Probe, hookimpl\n"
        "class Backend:\n"
        "    spec_version = 1\n    capabilities = frozenset()\n"
        "    def __init__(self, context): ...\n"
        "    @hookimpl\n    def probe(self): return Probe(usable=True)\n",
        r"it lacks the hook commit\(self",
    ),
    "futurist": (COPIES + "    spec_version = 7\n", "written for version 7 of the filesystem"),
    "ancient": (COPIES + "    spec_version = 0\n", "written for version 0 of the filesystem"),
    "worded": (COPIES + "    spec_version = 'one'\n", "its spec_version is 'one'"),
    "hangs": (
        COPIES + "    @hookimpl\n    def probe(self):\n        import time; time.sleep(3600)\n",
        "probe did not finish within 3 s",
    ),
    "boasts": (
        COPIES + "    capabilities = frozenset({'layer-directory'})\n",
        "it lacks the hook layer_directory",
    ),
    "stringy": (COPIES + "    capabilities = 'quota-size'\n", "its capabilities are a str"),
    "mumbles": (
        COPIES + "    @hookimpl\n    def probe(self): return 'fine'\n",
        "probe returned str",
    ),
    "refuses": (
        COPIES + "    def __init__(self, context): raise OSError(28, 'No space left on device')\n",
        "OSError: .*No space left",
    ),
}
#: Isolation backends are loaded by two processes, the daemon and the spawner.
BROKEN_ISOLATION = {
    "exits": ("raise SystemExit('bye')\n", "SystemExit: bye"),
    "kaput": ("1 / 0\n", "ZeroDivisionError"),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon among broken plugins, and one that works."""
    site = tmp_path_factory.mktemp("plugins") / "site"
    for name, (source, _) in BROKEN.items():
        install(site, name, source, role="filesystem")
    for name, (source, _) in BROKEN_ISOLATION.items():
        install(site, name, source, role="isolation")
    install(site, "works", COPIES, role="filesystem")
    dreamer = COPIES + "    capabilities = frozenset({'time-travel'})\n"
    install(site, "dreamer", dreamer, role="filesystem")
    with nothing_left(), Daemon(environment={"PYTHONPATH": str(site)}) as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


def listed(daemon: Daemon) -> dict[str, dict[str, object]]:
    rows = json.loads(daemon.client("lading", "doctor", "--format", "json").stdout)["Plugins"]
    return {row["Name"]: row for row in rows}


@pytest.mark.parametrize("name", [*BROKEN, *BROKEN_ISOLATION])
def test_a_broken_plugin_is_named_in_one_line(daemon: Daemon, name: str) -> None:
    _, reason = {**BROKEN, **BROKEN_ISOLATION}[name]
    lines = [line for line in daemon.log().splitlines() if f'"{name}"' in line]
    assert len(lines) == 1, lines
    assert re.search(reason, lines[0])
    row = listed(daemon)[name]
    assert row["Status"] == "failed"
    assert row["Distribution"] == f"throwaway-{name}"
    assert re.search(reason, str(row["Reason"]))
    assert row["Remedy"]


def test_no_traceback_of_a_plugin_is_logged(daemon: Daemon) -> None:
    assert "Traceback" not in daemon.log()


def test_the_rest_is_served(daemon: Daemon) -> None:
    assert daemon.client("lading", "run", "--rm", "busybox", "echo", "served").stdout == b"served\n"
    assert listed(daemon)["works"]["Status"] == "usable"
    flags = ["--storage-opt", "driver=works"]
    done = daemon.client("lading", "run", "--rm", *flags, "busybox", "echo", "hi", check=False)
    assert done.stdout == b"hi\n" or b"busybox" in done.stderr


def test_a_broken_plugin_that_is_asked_for_says_why(daemon: Daemon) -> None:
    flags = ["--runtime", "kaput"]
    done = daemon.client("lading", "run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert b'isolation backend "kaput" failed: ZeroDivisionError' in done.stderr


def test_a_capability_that_means_nothing_is_told(daemon: Daemon) -> None:
    assert re.search('"dreamer" declares time-travel, which mean nothing here', daemon.log())


def test_info_warns(daemon: Daemon) -> None:
    shown = daemon.client("docker", "info")
    assert b'filesystem backend "explodes" failed: RuntimeError: out of gas' in shown.stderr


ODD = """
import os, time
from lading.hooks import hookimpl
from lading_isolation_native import Native

class Backend(Native):
    @hookimpl
    def {hook}(self, {arguments}):
        {does}
"""
HEALTHY = "from lading_isolation_native import Native as Backend\n"
FOREVER, DIES = "time.sleep(3600)", "os._exit(7)"

#: Backends that fail while they are used, by name: the hook, its parameters, what it does.
AT_RUN_TIME = {
    "dies": ("create", "container, rootfs, stdio", DIES),
    "create": ("create", "container, rootfs, stdio", FOREVER),
    "start": ("start", "container", FOREVER),
    "exec": ("exec", "container, process, stdio", FOREVER),
    "pause": ("pause", "container", FOREVER),
    "stats": ("stats", "container", FOREVER),
    "processes": ("processes", "container", FOREVER),
    "signal": ("signal", "container, signal, everyone", FOREVER),
    "delete": ("delete", "container", FOREVER),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with all of them, in which a hook of a monitor may take 3 seconds."""
    top = tmp_path_factory.mktemp("odd")
    for name, (hook, arguments, does) in AT_RUN_TIME.items():
        source = ODD.format(hook=hook, arguments=arguments, does=does)
        install(top / "site", f"odd-{name}", source, role="isolation")
    config = top / "lading.toml"
    config.write_text("hook-timeout = 3\n")
    running = Daemon(f"--config-file={config}", environment={"PYTHONPATH": str(top / "site")})
    with nothing_left():
        running.start()
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running
        # The next daemon has them mended, and can end what the odd ones have left.
        for name in AT_RUN_TIME:
            install(top / "site", f"odd-{name}", HEALTHY, role="isolation")
        running.kill()
        running.start()
        running.close()


def still_serves(daemon: Daemon) -> None:
    for _ in range(2):
        done = daemon.client("lading", "run", "--rm", "busybox", "echo", "on", timeout=30)
        assert done.stdout == b"on\n"
    daemon.client("lading", "ps", "-a", timeout=30)
    daemon.client("lading", "info", timeout=30)


def test_a_hook_that_dies_fails_its_own_container_only(odd: Daemon) -> None:
    flags = ["--name", "dies", "--runtime", "odd-dies"]
    done = odd.client("lading", "run", *flags, "busybox", "true", check=False, timeout=30)
    assert done.returncode in (125, 126, 127), done
    assert len(done.stderr.splitlines()) <= 3
    still_serves(odd)


@pytest.mark.parametrize("hook", ["create", "start"])
def test_a_start_that_hangs_fails_in_the_end(odd: Daemon, hook: str) -> None:
    flags = ["--name", hook, "--runtime", f"odd-{hook}"]
    with odd.begin("run", *flags, "busybox", "true") as hanging:
        still_serves(odd)
        said, _ = hanging.communicate(timeout=60)
    assert hanging.returncode in (125, 126, 127)
    assert f'isolation backend "odd-{hook}" did not answer within 3 s'.encode() in said
    odd.client("lading", "rm", hook, timeout=30)


def test_an_exec_that_hangs_leaves_the_container_alone(odd: Daemon) -> None:
    flags = ["-d", "--name", "exec", "--runtime", "odd-exec"]
    odd.client("lading", "run", *flags, "busybox", "sh", "-c", "sleep 6; exit 5")
    with odd.begin("exec", "exec", "true") as hanging:
        still_serves(odd)
        said, _ = hanging.communicate(timeout=60)
    assert b'isolation backend "odd-exec" did not answer within 3 s' in said
    assert odd.client("lading", "wait", "exec", timeout=60).stdout == b"5\n"


@pytest.mark.parametrize(
    ("hook", "command"),
    [
        ("pause", "pause"),
        ("stats", "stats --no-stream"),
        ("processes", "top"),
        ("signal", "kill"),
        ("delete", "rm -f"),
    ],
)
def test_a_hook_that_hangs_stalls_nobody_else(odd: Daemon, hook: str, command: str) -> None:
    flags = ["-d", "--name", hook, "--runtime", f"odd-{hook}"]
    odd.client("lading", "run", *flags, "busybox", "sleep", "1000")
    with odd.begin(*command.split(), hook) as hanging:
        try:
            time.sleep(1)
            still_serves(odd)
            assert hanging.poll() is None
        finally:
            hanging.kill()
