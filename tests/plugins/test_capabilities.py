"""What a backend does not declare is refused before anything starts, by one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from throwaway import install

from lading.hooks import filesystem, isolation, network
from lading.testing.daemon import Daemon, busybox_image, nothing_left

pytestmark = pytest.mark.root

WITHOUT = """
from {module} import {name} as Whole

class Backend(Whole):
    capabilities = Whole.capabilities - {{"{capability}"}}
"""
WHOLE = {
    "isolation": ("lading_isolation_native", "Native"),
    "filesystem": ("lading_fs_overlay", "Overlay"),
    "network": ("lading_network_bridge", "Bridge"),
}

#: By capability of the isolation contract: a request that needs it, and one that does without.
ISOLATION: dict[str, tuple[list[str], list[str]]] = {
    "netns-path": ([], ["--network", "host"]),
    "seccomp": ([], ["--security-opt", "seccomp=unconfined"]),
    "devices": ([], ["--privileged"]),
    "hooks": (["--hook", "poststart=/bin/true"], []),
    "init": (["--init"], []),
    "rshared": (["--volume", "/srv:/v:rshared"], []),
}
#: Those that are asked for while a container runs, and how.
WHILE_RUNNING = {"pause": ["pause"], "update": ["update", "--memory", "64m"]}
FILESYSTEM = {
    "quota-size": ["--storage-opt", "size=10m"],
    "quota-inodes": ["--storage-opt", "inodes=100"],
    "upper-path": ["--storage-opt", "path={place}"],
    "base-directory": ["--rootfs", "{place}:O"],
}
NETWORK = {"internal": ["--internal"], "ipv6": ["--ipv6", "--subnet", "fd77::/64"]}

#: What no request of a user asks for: the core goes another way, or asks elsewhere (see below).
ELSEWHERE = {
    "isolation": {"checkpoint", "userns"},
    "filesystem": {"layer-directory", "changes", "remote-layers", "idmap"},
    "network": {"publish", "gateway"},
}


def test_each_capability_has_its_test() -> None:
    known = {
        "isolation": ({*ISOLATION, *WHILE_RUNNING}, isolation.CAPABILITIES),
        "filesystem": ({*FILESYSTEM}, filesystem.CAPABILITIES),
        "network": ({*NETWORK}, network.CAPABILITIES),
    }
    for role, (tested, table) in known.items():
        assert tested | ELSEWHERE[role] == set(table), role


def install_without(site: Path, role: str, capability: str) -> None:
    module, name = WHOLE[role]
    source = WITHOUT.format(module=module, name=name, capability=capability)
    install(site, f"no-{capability}", source, role=role)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plugins") / "site"
    for capability in (*ISOLATION, *WHILE_RUNNING, "userns"):
        install_without(place, "isolation", capability)
    for capability in (*FILESYSTEM, "idmap"):
        install_without(place, "filesystem", capability)
    for capability in (*NETWORK, "publish"):
        install_without(place, "network", capability)
    return place


@pytest.fixture(scope="module")
def daemon(site: Path) -> Iterator[Daemon]:
    with nothing_left(), Daemon(environment={"PYTHONPATH": str(site)}) as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


def refused(daemon: Daemon, *arguments: str) -> str:
    """The one sentence of a refusal; no container has come of it."""
    before = daemon.client("lading", "ps", "-aq").stdout
    done = daemon.client("lading", *arguments, check=False)
    assert done.returncode != 0, done
    assert daemon.client("lading", "ps", "-aq").stdout == before
    lines = [row for row in done.stderr.decode().splitlines() if row and "--help" not in row]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("capability", ISOLATION)
def test_isolation(daemon: Daemon, capability: str) -> None:
    needs, without = ISOLATION[capability]
    flags = ["run", "--rm", "--runtime", f"no-{capability}"]
    said = refused(daemon, *flags, *needs, "busybox", "true")
    assert f'isolation backend "no-{capability}" cannot do "{capability}"' in said
    assert daemon.client("lading", *flags, *without, "busybox", "echo", "hi").stdout == b"hi\n"


@pytest.mark.parametrize("capability", WHILE_RUNNING)
def test_isolation_of_a_running_container(daemon: Daemon, capability: str) -> None:
    flags = ["--name", "c", "--runtime", f"no-{capability}"]
    daemon.client("lading", "run", "-d", *flags, "busybox", "sleep", "100")
    said = refused(daemon, *WHILE_RUNNING[capability], "c")
    assert f'cannot do "{capability}"' in said
    state = daemon.client("lading", "inspect", "-f", "{{.State.Status}}", "c").stdout
    assert state == b"running\n"
    daemon.client("lading", "rm", "-f", "c")


@pytest.mark.parametrize("capability", FILESYSTEM)
def test_filesystem(daemon: Daemon, tmp_path: Path, capability: str) -> None:
    flags = [word.format(place=tmp_path) for word in FILESYSTEM[capability]]
    image = [] if "--rootfs" in flags else ["busybox"]
    said = refused(daemon, "create", "--storage", f"no-{capability}", *flags, *image, "true")
    assert f'filesystem backend "no-{capability}" cannot do' in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("capability", NETWORK)
def test_network(daemon: Daemon, capability: str) -> None:
    before = daemon.client("lading", "network", "ls", "-q").stdout
    flags = ["--driver", f"no-{capability}", *NETWORK[capability]]
    said = refused(daemon, "network", "create", *flags, "net")
    assert f'driver "no-{capability}" has no' in said
    assert daemon.client("lading", "network", "ls", "-q").stdout == before


def test_ports(daemon: Daemon) -> None:
    daemon.client("lading", "network", "create", "--driver", "no-publish", "quiet")
    flags = ["--name", "p", "--network", "quiet", "-p", "8080:80"]
    done = daemon.client("lading", "run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert b"does not publish ports" in done.stderr
    daemon.client(
        "lading",
        "rm",
        "-f",
        *daemon.client("lading", "ps", "-aq").stdout.decode().split(),
        check=False,
    )
    daemon.client("lading", "network", "rm", "quiet")


class Remapped(Daemon):
    """A daemon with subordinate ids for ``nobody``, in a mount namespace of its own."""

    def command(self) -> list[str]:
        ids = self.root / "ids"
        ids.write_text("nobody:200000:65536\nnogroup:200000:65536\n")
        mounts = [f"mount --bind {ids} /etc/{name}" for name in ("subuid", "subgid")]
        script = " && ".join([*mounts, 'exec "$@" --userns-remap nobody:nogroup'])
        return ["unshare", "--mount", "sh", "-c", script, "sh", *super().command()]


@pytest.mark.skipif(not Path("/etc/subuid").exists(), reason="this host has no /etc/subuid")
def test_user_namespaces(site: Path) -> None:
    daemon = Remapped(environment={"PYTHONPATH": str(site)})
    with nothing_left(), daemon:
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        said = refused(daemon, "run", "--runtime", "no-userns", "busybox", "true")
        assert 'isolation backend "no-userns" cannot do "userns"' in said
        said = refused(daemon, "run", "--storage", "no-idmap", "busybox", "true")
        assert 'filesystem backend "no-idmap" cannot do "idmap"' in said
        for flags in (["--runtime", "no-userns"], ["--storage", "no-idmap"]):
            daemon.client("lading", "run", "--rm", "--userns", "host", *flags, "busybox", "true")
