"""The other faces of the API: TLS, events, docker-py, the client's own formats."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import trustme

from lading.testing.daemon import Daemon, busybox_image, find_client

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``, ``cert.pem`` and ``key.pem`` of a client, the same for a server."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, issued in (
        ("", authority.issue_cert("client@example.test")),
        ("server-", authority.issue_cert("127.0.0.1", "localhost")),
    ):
        issued.private_key_pem.write_to_path(folder / f"{name}key.pem")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}cert.pem")
    return folder


@pytest.fixture(scope="module")
def tls(certificates: Path) -> Iterator[list[str]]:
    """The global flags with which a client reaches a daemon over mutual TLS."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [
        f"--host=tcp://127.0.0.1:{port}",
        "--tlsverify",
        f"--tlscacert={certificates}/ca.pem",
        f"--tlscert={certificates}/server-cert.pem",
        f"--tlskey={certificates}/server-key.pem",
    ]
    # Interfaces are not compared: the shared daemon beside it keeps making some.
    with Daemon(*flags) as daemon:
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        yield [
            "-H",
            f"tcp://127.0.0.1:{port}",
            "--tlsverify",
            "--tlscacert",
            f"{certificates}/ca.pem",
            "--tlscert",
            f"{certificates}/cert.pem",
            "--tlskey",
            f"{certificates}/key.pem",
        ]


def test_stdin_ends_over_tls_and_output_still_comes(tls: list[str], client: str) -> None:
    data = bytes(range(256)) * 4096 * 20
    command = [find_client(client), *tls, "run", "-i", "--rm", "busybox", "cat"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=120)
    assert (done.returncode, len(done.stdout)) == (0, len(data)), done.stderr
    assert done.stdout == data


def test_without_a_certificate_nobody_gets_in(tls: list[str], certificates: Path) -> None:
    flags = [*tls[:3], "--tlscacert", f"{certificates}/ca.pem"]
    command = [find_client("lading"), *flags, "--tlscert=", "--tlskey=", "ps"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode != 0


def test_plain_tcp_is_refused_without_the_flag() -> None:
    daemon = Daemon("--host=tcp://127.0.0.1:0")
    with pytest.raises(RuntimeError, match="insecure"):
        daemon.start()
    daemon.close()


def test_events_see_it_all(daemon: Daemon, client: str) -> None:
    since = f"{time.time():.9f}"
    name = f"seen{time.monotonic_ns()}"
    daemon.client(client, "run", "--name", name, "busybox", "true")
    daemon.client(client, "rm", name)
    flags = [
        "--since",
        since,
        "--until",
        f"{time.time() + 0.5:.9f}",
        "--filter",
        f"container={name}",
    ]
    shown = (
        daemon.client(client, "events", *flags, "--format", "{{.Action}}").stdout.decode().split()
    )
    for action in ("create", "start", "die", "destroy"):
        assert action in shown
    assert (
        shown.index("create") < shown.index("start") < shown.index("die") < shown.index("destroy")
    )


@pytest.fixture
def api(daemon: Daemon) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=daemon.host)
    yield client
    client.close()


def test_docker_py_runs_and_reads(api: docker.DockerClient) -> None:
    assert api.ping()
    assert api.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    box = api.containers.run("busybox", "sleep 100", detach=True)
    try:
        box.reload()
        assert box.status == "running"
        assert box.exec_run("echo in").output == b"in\n"
        assert box.stats(stream=False)["memory_stats"]["usage"] > 0
        assert box.top()["Processes"]
    finally:
        box.remove(force=True)


def test_docker_py_errors_have_their_types(api: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ImageNotFound):
        api.images.get("nosuch")
    with pytest.raises(docker.errors.NotFound):
        api.containers.get("nosuch")
    with pytest.raises(docker.errors.ContainerError):
        api.containers.run("busybox", "false", remove=True)


def test_version_and_info(daemon: Daemon, client: str) -> None:
    shown = (
        daemon.client(client, "version", "--format", "{{.Server.Version}}").stdout.decode().strip()
    )
    assert shown
    assert daemon.client(client, "info", "--format", "{{.Driver}}").stdout == b"overlay\n"
