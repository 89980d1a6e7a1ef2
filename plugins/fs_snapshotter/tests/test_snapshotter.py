"""What a snapshotter behind a socket has beyond the contract: it can be away, slow, another's."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from lading.errors import Conflict, Unavailable
from lading.hooks import Context
from lading.linux import mounts, syscalls
from lading.testing.containerd import Containerd
from lading.testing.waiting import until
from lading_fs_snapshotter import Snapshotter

pytestmark = pytest.mark.root

Make = Callable[..., Snapshotter]


@pytest.fixture
def make(containerd: Containerd, tmp_path: Path) -> Make:
    """Backends in one namespace of the test's own."""
    namespace = f"test-{uuid4().hex[:12]}"

    def made(data: str = "data", **options: Any) -> Snapshotter:
        place = tmp_path / data
        place.mkdir(exist_ok=True)
        usual = {"address": containerd.address, "namespace": namespace}
        return Snapshotter(Context("snapshotter", place, place, {**usual, **options}))

    return made


def on_disk(containerd: Containerd) -> set[str]:
    place = containerd.root / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
    return {p.name for p in place.iterdir()} if place.exists() else set()


def test_nobody_listens(make: Make, tmp_path: Path) -> None:
    backend = make(address=str(tmp_path / "nothing"))
    probe = backend.probe()
    assert not probe.usable
    assert "No such file" in probe.reason
    assert "[filesystem.snapshotter]" in probe.remedy


def test_an_unknown_snapshotter_is_refused_with_those_that_there_are(make: Make) -> None:
    probe = make(snapshotter="missing").probe()
    assert not probe.usable
    assert 'no snapshotter "missing"' in probe.reason
    assert "native, overlayfs" in probe.remedy


def test_a_snapshotter_that_containerd_cannot_use_is_refused_with_the_reason(make: Make) -> None:
    probe = make(snapshotter="zfs").probe()
    assert not probe.usable
    assert "zfs" in probe.reason


def test_a_snapshotter_that_never_answers_is_given_up(make: Make, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        backend = make(address=str(tmp_path / "s"), timeout=0.5)
        probe = backend.probe()
        assert "did not answer in time" in probe.reason
        with pytest.raises(Unavailable, match="did not answer in time"):
            backend.prepare(key="a", parent="", labels={})


def test_a_restart_of_containerd_breaks_nothing(
    containerd: Containerd, make: Make, tmp_path: Path
) -> None:
    backend = make()
    recipe = backend.prepare(key="a", parent="", labels={})
    place = tmp_path / "place"
    place.mkdir()
    mounts.mount_recipe(recipe, place)
    try:
        (place / "f").write_text("kept")
        containerd.restart()
        assert (place / "f").read_text() == "kept"
        assert backend.mounts(key="a") == recipe
        containerd.stop()
        # Comes back while the call is made.
        with futures.ThreadPoolExecutor(1) as pool:
            called = pool.submit(backend.commit, key="a", name="base")
            time.sleep(0.3)
            containerd.start()
            called.result()
    finally:
        syscalls.umount2(str(place), syscalls.MNT_DETACH)
    assert [s.key for s in make().walk()] == ["base"]


def test_containerd_collects_what_was_removed_and_nothing_else(
    containerd: Containerd, make: Make
) -> None:
    backend = make()
    before = on_disk(containerd)
    backend.prepare(key="a", parent="", labels={})
    backend.commit(key="a", name="base")
    backend.prepare(key="b", parent="base", labels={})
    backend.prepare(key="gone", parent="base", labels={})
    backend.remove(key="gone")
    until(lambda: len(on_disk(containerd) - before) == 2)
    assert sorted(s.key for s in backend.walk()) == ["b", "base"]


def test_the_namespace_of_another_engine_is_left_alone(containerd: Containerd, make: Make) -> None:
    make().prepare(key="a", parent="", labels={})
    with pytest.raises(Unavailable, match="belongs to the engine with"):
        make("other").prepare(key="b", parent="", labels={})
    make("third", snapshotter="native").prepare(key="b", parent="", labels={})
    containerd.ctr("namespaces", "create", "k8s.io")
    with pytest.raises(Unavailable, match="not made by Lading"):
        make(namespace="k8s.io").prepare(key="a", parent="", labels={})


def test_a_containerd_that_merely_runs_here_costs_nothing(
    containerd: Containerd, tmp_path: Path
) -> None:
    code = (
        "import sys, pathlib, lading_fs_snapshotter.snapshotter as module\n"
        "from lading.hooks import Context\n"
        f"module.ADDRESS = {containerd.address!r}\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "backend = module.Snapshotter(Context('snapshotter', place, place))\n"
        "assert backend.probe().usable, backend.probe()\n"
        "assert list(backend.walk()) == []\n"
        "print([name for name in sys.modules if name in ('grpc', 'google.protobuf')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


class Forwarding(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A proxy snapshotter: the snapshots service of a socket, and nothing else."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(f"unix:{address}")

    def service(self, details: Any) -> Any:
        if "/containerd.services.snapshots.v1.Snapshots/" not in details.method:
            return None
        metadata = [m for m in details.invocation_metadata if m[0] == "containerd-namespace"]

        def unary(request: bytes, context: Any) -> Any:
            try:
                return self.channel.unary_unary(details.method)(request, metadata=metadata)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        def stream(request: bytes, context: Any) -> Any:
            yield from self.channel.unary_stream(details.method)(request, metadata=metadata)

        if details.method.endswith("/List"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@pytest.fixture
def proxy(containerd: Containerd, tmp_path: Path) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Forwarding(containerd.address)])
    server.add_insecure_port(f"unix:{tmp_path}/proxy")
    server.start()
    yield f"unix://{tmp_path}/proxy"
    server.stop(None).wait()


def test_a_proxy_snapshotters_own_socket(proxy: str, make: Make) -> None:
    backend = make(address=proxy)
    probe = backend.probe()
    assert probe.usable
    assert "Namespace" not in probe.details
    backend.prepare(key="a", parent="", labels={"user": "me"})
    backend.commit(key="a", name="base")
    with pytest.raises(Conflict):
        backend.prepare(key="base", parent="", labels={})
    assert [(s.key, s.labels) for s in backend.walk()] == [("base", {"user": "me"})]
    backend.remove(key="base")
    assert list(backend.walk()) == []
