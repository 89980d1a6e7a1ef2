"""docker-py, which others build on: what the command lines do not use of the API."""

from __future__ import annotations

import io
import posixpath
import secrets
import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.models.containers import Container

from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root

#: docker-py loses what arrives together with the head of the answer (its buffered reader keeps it).
LATER = "sleep 0.5"


@pytest.fixture(params=["1.24", "1.41", "auto"], scope="module")
def client(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=daemon.host, version=request.param, timeout=60)
    yield client
    client.close()


@pytest.fixture
def container(client: docker.DockerClient) -> Iterator[Container]:
    """A container that repeats what it reads."""
    made = client.containers.run("busybox", ["cat"], detach=True, stdin_open=True)
    yield made
    made.remove(force=True, v=True)


def test_run_returns_the_output_and_raises_for_failure(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"bad\n"


def test_errors_are_recognised(client: docker.DockerClient) -> None:
    with pytest.raises(NotFound):
        client.containers.get("no-such")
    with pytest.raises(ImageNotFound):
        client.containers.create("no-such-image")
    with pytest.raises(APIError) as caught:
        client.api.create_container("busybox", ["true"], name="bad name!")
    assert caught.value.status_code == 400


def test_exec_separates_stdout_from_stderr(container: Container) -> None:
    code, output = container.exec_run(
        ["sh", "-c", f"{LATER}; echo out; echo err >&2; exit 4"], demux=True
    )
    assert (code, output) == (4, (b"out\n", b"err\n"))


def test_exec_streams(container: Container) -> None:
    _, pieces = container.exec_run(["sh", "-c", f"{LATER}; echo a; echo b"], stream=True)
    assert b"".join(pieces) == b"a\nb\n"


def test_attached_socket_carries_both_ways(container: Container) -> None:
    raw = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    raw._sock.sendall(b"hello\n")
    frame = raw.read(8 + 6)
    assert frame[8:] == b"hello\n"
    assert frame[:8] == b"\1\0\0\0\0\0\0\6"
    raw.close()


def test_logs_follow_until_the_end(client: docker.DockerClient) -> None:
    script = "for i in 1 2 3; do echo $i; sleep 0.1; done"
    made = client.containers.run("busybox", ["sh", "-c", script], detach=True)
    try:
        assert b"".join(made.logs(stream=True, follow=True)) == b"1\n2\n3\n"
        assert made.logs(tail=1) == b"3\n"
        stamped = made.logs(timestamps=True, tail=1)
        assert stamped.endswith(b"Z 3\n")
        assert made.wait()["StatusCode"] == 0
    finally:
        made.remove(force=True)


def test_files_go_in_and_out(container: Container) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("inside")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    assert container.put_archive("/", buffer.getvalue())
    pieces, found = container.get_archive("/inside")
    assert (found["name"], found["size"]) == ("inside", 5)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        content = archive.extractfile("inside")
        assert content
        assert content.read() == b"hello"
    assert {"Path": "/inside", "Kind": 1} in container.diff()


def test_stats_stream(container: Container) -> None:
    readings = container.stats(stream=True, decode=True)
    first, second = next(readings), next(readings)
    assert first["read"] < second["read"]
    assert second["pids_stats"]["current"] >= 1
    assert container.stats(stream=False)["cpu_stats"]["cpu_usage"]["total_usage"] > 0


def test_events_arrive_while_one_listens(client: docker.DockerClient) -> None:
    seen: list[str] = []
    events = client.events(decode=True, filters={"type": "container", "label": "events-test"})

    def listen() -> None:
        for event in events:
            seen.append(event.get("Action") or event["status"])
            if seen[-1] == "destroy":
                return

    thread = threading.Thread(target=listen)
    thread.start()
    client.containers.run("busybox", ["true"], remove=True, labels=["events-test"])
    thread.join(30)
    events.close()
    assert [e for e in seen if e in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


# Conditions of wait came with 1.30.
@pytest.mark.parametrize("client", ["1.41", "auto"], indirect=True, scope="module")
def test_wait_for_the_next_exit_before_the_start(client: docker.DockerClient) -> None:
    made = client.containers.create("busybox", ["sh", "-c", "exit 5"])
    url = client.api._url("/containers/{0}/wait", made.id)
    # The header comes at once: from then on the exit is promised.
    waiting = client.api._post(url, params={"condition": "next-exit"}, stream=True)
    made.start()
    assert waiting.json()["StatusCode"] == 5
    made.remove(force=True)


def test_images_by_name_and_id(client: docker.DockerClient) -> None:
    image = client.images.get("busybox")
    assert image.tags == ["busybox:latest"]
    assert client.images.get(image.id) == image
    assert image.tag("schema/other", tag="v1")
    saved = b"".join(client.images.get("schema/other:v1").save(named="schema/other:v1"))
    client.images.remove("schema/other:v1")
    (loaded,) = client.images.load(saved)
    assert loaded.id == image.id
    client.images.remove("schema/other:v1")
    with pytest.raises(ImageNotFound):
        client.images.get("schema/other:v1")


def test_networks_and_volumes(client: docker.DockerClient, container: Container) -> None:
    network = client.networks.create("docker-py-net", labels={"a": "b"})
    volume = client.volumes.create("docker-py-volume")
    try:
        network.connect(container, aliases=["other"])
        network.reload()
        assert [c.id for c in network.containers] == [container.id]
        network.disconnect(container)
        assert volume in client.volumes.list()
        assert network in client.networks.list(filters={"label": "a=b"})
    finally:
        network.remove()
        volume.remove()


def test_the_daemon_describes_itself(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["Version"]
    assert client.info()["OSType"] == "linux"
    if client.api._version != "1.24":  # came with 1.25
        assert client.df()["Images"]


def test_a_wait_ends_although_the_container_is_started_anew(client: docker.DockerClient) -> None:
    policy = {"Name": "always"}
    made = client.containers.run("busybox", ["sleep", "0.3"], detach=True, restart_policy=policy)
    try:
        assert made.wait(timeout=30)["StatusCode"] == 0
    finally:
        made.remove(force=True)


def test_what_an_exec_writes_is_framed_as_its_start_says(
    client: docker.DockerClient, container: Container
) -> None:
    hello = ["sh", "-c", f"{LATER}; echo hello"]
    made = client.api.exec_create(container.id, hello, tty=True)
    assert client.api.exec_start(made) == b"hello\r\n"
    made = client.api.exec_create(container.id, hello, tty=True)
    assert client.api.exec_start(made, tty=True) == b"hello\r\n"


def test_a_commit_meets_the_end_of_the_container(client: docker.DockerClient) -> None:
    for _ in range(5):
        made = client.containers.run("busybox", ["true"], detach=True)
        image = made.commit()
        made.remove(force=True)
        client.images.remove(image.id)


def test_info_counts_images_that_only_others_build_on(client: docker.DockerClient) -> None:
    context = io.BytesIO(b"FROM busybox\nENV a=b\nENV c=d\n")
    image, _ = client.images.build(fileobj=context, tag="docker-py-count")
    assert client.info()["Images"] == len({i.id for i in client.images.list(all=True)})
    client.images.remove(image.id, force=True)


def test_a_network_s_links_name_containers_that_come_later(client: docker.DockerClient) -> None:
    network = client.networks.create("docker-py-links")
    made = client.containers.create("busybox", ["sleep", "60"], network="docker-py-links")
    made.start()
    other = None
    try:
        network.disconnect(made)
        network.connect(made, links=[("docker-py-later", "bar")])
        other = client.containers.run(
            "busybox", ["sleep", "60"], name="docker-py-later", network="docker-py-links",
            detach=True,
        )  # fmt: skip
        _, said = made.exec_run(["ping", "-c1", "-W1", "bar"], privileged=True)
        other.reload()
        address = other.attrs["NetworkSettings"]["Networks"]["docker-py-links"]["IPAddress"]
        assert f"PING bar ({address})" in said.decode()
        network.disconnect(made)
        with pytest.raises(APIError):
            network.disconnect(made, force=True)
    finally:
        for one in filter(None, (made, other)):
            one.remove(force=True)
        network.remove()


def test_a_link_is_removed_and_the_container_stays(
    client: docker.DockerClient, container: Container
) -> None:
    made = client.containers.run(
        "busybox", ["sleep", "60"], links={container.name: "db"}, detach=True
    )
    try:
        client.api.remove_container(f"{made.name}/db", link=True)
        assert b"db" not in made.exec_run(["cat", "/etc/hosts"]).output.split()
        made.reload()
        assert not made.attrs["HostConfig"]["Links"]
        with pytest.raises(NotFound):
            client.api.remove_container(f"{made.name}/db", link=True)
        with pytest.raises(APIError):
            client.api.remove_container(made.name, link=True)
        assert client.containers.get(made.id).status == "running"
    finally:
        made.remove(force=True)


def test_an_exec_s_terminal_is_resized_as_soon_as_the_start_is_answered(
    client: docker.DockerClient, container: Container
) -> None:
    """As clients do that ask on a second connection; the process may not run yet."""
    for _ in range(5):
        made = client.api.exec_create(
            container.id, ["sh", "-c", "read -r _; stty size"], tty=True, stdin=True
        )["Id"]
        stream = client.api.exec_start(made, tty=True, socket=True)
        client.api.exec_resize(made, height=33, width=77)
        stream._sock.sendall(b"\n")
        output = b""
        while piece := stream._sock.recv(1024):
            output += piece
        stream.close()
        assert b"33 77" in output


@pytest.mark.parametrize("client", ["1.41", "auto"], indirect=True, scope="module")
def test_mounts_are_shown_without_what_was_not_given(client: docker.DockerClient) -> None:
    made = client.containers.create(
        "busybox",
        ["true"],
        mounts=[
            docker.types.Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20),
            docker.types.Mount("/v", "shown", labels={"a": "b"}, read_only=True),
        ],
    )
    plain = client.containers.create("busybox", ["true"])
    try:
        assert made.attrs["HostConfig"]["Mounts"] == [
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20}},
            {
                "Type": "volume",
                "Source": "shown",
                "Target": "/v",
                "ReadOnly": True,
                "VolumeOptions": {"Labels": {"a": "b"}},
            },
        ]
        assert "Mounts" not in plain.attrs["HostConfig"]
    finally:
        made.remove(v=True)
        plain.remove()
        client.volumes.get("shown").remove()


def test_a_load_that_fails_says_so_in_the_stream(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ImageLoadError, match="tar"):
        client.images.load(b"abc")


def test_a_network_s_name_may_have_blanks(client: docker.DockerClient) -> None:
    network = client.networks.create("test 01")
    try:
        made = client.containers.run("busybox", ["true"], network="test 01", detach=True)
        made.wait()
        assert list(made.attrs["NetworkSettings"]["Networks"]) == ["test 01"]
        made.remove()
    finally:
        network.remove()
    for name in ("", " ", "a/b", "a:b", "a\nb"):
        with pytest.raises(APIError):
            client.networks.create(name)


def test_volumes_tell_of_each_mount(client: docker.DockerClient) -> None:
    name = f"told-{secrets.token_hex(4)}"
    made = client.containers.create("busybox", ["true"], volumes=[f"{name}:/v:ro", f"{name}:/w"])
    try:
        made.start()
        made.wait()
        made.remove()
        until = int(time.time()) + 1
        found = client.events(since=1, until=until, filters={"volume": name}, decode=True)
        told = [(e["Action"], e["Actor"]["Attributes"]) for e in found]
    finally:
        client.volumes.get(name).remove()
    mounted = {"container": made.id, "driver": "local", "propagation": ""}
    assert told == [
        ("create", {"driver": "local"}),
        ("mount", {**mounted, "destination": "/v", "read/write": "false"}),
        ("mount", {**mounted, "destination": "/w", "read/write": "true"}),
        ("unmount", {"container": made.id, "driver": "local"}),
    ]


def test_the_primary_group_is_a_supplementary_one_too(client: docker.DockerClient) -> None:
    output = client.containers.run(
        "busybox",
        ["grep", "^Groups:", "/proc/self/status"],
        user="1:2",
        group_add=["77"],
        remove=True,
    )
    assert output.split() == [b"Groups:", b"2", b"77"]


def test_a_directory_s_content_goes_under_the_name_of_the_target(
    client: docker.DockerClient, daemon: Daemon, container: Container, tmp_path: Path
) -> None:
    """``docker cp CONTAINER:/d/. new``: the archive's names begin with the dot."""
    container.exec_run(["sh", "-c", "mkdir -p /d/e; echo x > /d/e/f; ln -s d /l"])
    for path in ("/d/.", "/l/."):
        pieces, stat = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            assert [posixpath.normpath(n) for n in tar.getnames()] == [".", "e", "e/f"]
        assert stat["name"] == "."
        assert container.get_archive("/l")[1]["linkTarget"] == "/d"
        for program in ("docker", "lading"):
            for there, target in ((False, "new"), (True, "old")):
                place = tmp_path / path.strip("/.") / program / target
                (place if there else place.parent).mkdir(parents=True)
                daemon.client(program, "cp", f"{container.id}:{path}", str(place))
                assert (place / "e" / "f").read_text() == "x\n", (path, program, target)
                shutil.rmtree(place.parent)
