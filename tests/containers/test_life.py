"""The life of containers, on fakes: what a user of the API sees of it."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial
from typing import Any

import pytest
from fakes import World

from lading.containers import (
    AttachOptions,
    Containers,
    ListOptions,
    Status,
)
from lading.errors import Conflict, Invalid, NotFound, NotModified, StartFailed
from lading.model.docker import (
    ContainerConfig,
    Empty,
    ExecConfig,
    HostConfig,
    LogConfig,
    NetworkingConfig,
    RestartPolicy,
    Update,
)
from lading.testing.waiting import until


def create(
    containers: Containers, name: str = "", host: HostConfig | None = None, **config: Any
) -> str:
    return containers.create(
        name, ContainerConfig(image="busybox", **config), host or HostConfig(), NetworkingConfig()
    ).id


def test_create_start_end(containers: Containers, world: World) -> None:
    made = create(containers, "web")
    assert containers.get("web").state.status is Status.CREATED
    wait = containers.wait(made, "next-exit")
    containers.start("web")
    record = containers.get(made[:12])
    assert (record.state.status, record.state.pid) == (Status.RUNNING, 4242)
    world.spawner.monitors[0].end(3)
    assert wait.result(60) == (3, "")
    until(lambda: made not in world.networks.connected)
    state = containers.get("/web").state
    assert (state.status, state.exit_code, state.pid) == (Status.EXITED, 3, 0)
    assert world.actions() == ["create", "start", "die"]


def test_names_are_unique_and_errors_name_the_owner(containers: Containers) -> None:
    made = create(containers, "web")
    with pytest.raises(Conflict, match=f'"/web" is already in use by container "{made}"'):
        create(containers, "web")
    other = create(containers, "other")
    with pytest.raises(Conflict, match="already in use"):
        containers.rename(other, "web")
    containers.rename("web", "front")
    assert containers.get("front").id == made
    containers.rename(other, "web")
    with pytest.raises(NotFound, match="No such container: nope"):
        containers.get("nope")


def test_a_failed_create_leaves_nothing(containers: Containers, world: World) -> None:
    with pytest.raises(NotFound, match="No such image"):
        containers.create("web", ContainerConfig(image="nope"), HostConfig(), NetworkingConfig())
    with pytest.raises(Invalid, match="volume name"):
        create(containers, "web", HostConfig(binds=["a/b:/c"]))
    assert world.filesystem.keys == {}
    assert list((world.root / "containers").iterdir()) == []
    create(containers, "web")


def test_a_start_that_fails_says_why_and_releases_everything(
    containers: Containers, world: World
) -> None:
    made = create(containers)
    world.spawner.fails = StartFailed('exec: "x": executable file not found in $PATH', errno=2)
    with pytest.raises(StartFailed, match="executable file not found"):
        containers.start(made)
    state = containers.get(made).state
    assert (state.status, state.exit_code) == (Status.CREATED, 127)
    assert "OCI runtime create failed" in state.error
    assert world.networks.connected == set()
    assert ("delete", made) in world.isolation.calls
    containers.start(made)
    assert containers.get(made).state.error == ""


def test_rm_containers_go_when_they_end_or_fail(containers: Containers, world: World) -> None:
    made = create(containers, "once", HostConfig(auto_remove=True))
    removed = containers.wait(made, "removed")
    containers.start(made)
    world.spawner.monitors[0].end(5)
    assert removed.result(60)[0] == 5
    with pytest.raises(NotFound):
        containers.get(made)
    assert world.filesystem.keys == {}
    made = create(containers, "once", HostConfig(auto_remove=True))
    removed = containers.wait(made, "removed")
    world.spawner.fails = StartFailed("permission denied", errno=13)
    with pytest.raises(StartFailed):
        containers.start(made)
    assert removed.result(60)[0] == 126


def test_stop_asks_then_kills(containers: Containers, world: World) -> None:
    made = create(containers, stop_signal="SIGINT")
    containers.start(made)
    world.isolation.ignores = {2}
    containers.stop(made, timeout=0)
    assert [c for c in world.isolation.calls if c[0] == "signal"] == [("signal", 2), ("signal", 9)]
    assert containers.get(made).state.exit_code == 137
    with pytest.raises(NotModified):
        containers.stop(made)
    with pytest.raises(Conflict, match="is not running"):
        containers.kill(made)


def test_start_twice_is_not_modified(containers: Containers) -> None:
    made = create(containers)
    containers.start(made)
    with pytest.raises(NotModified):
        containers.start(made)


def test_restart_keeps_rm_containers(containers: Containers, world: World) -> None:
    made = create(containers, host=HostConfig(auto_remove=True))
    containers.start(made)
    containers.restart(made, timeout=0)
    assert containers.get(made).state.status is Status.RUNNING
    assert len(world.spawner.monitors) == 2
    assert "restart" in world.actions()


def test_pause_and_what_it_forbids(containers: Containers) -> None:
    made = create(containers)
    with pytest.raises(Conflict, match="is not running"):
        containers.pause(made)
    containers.start(made)
    containers.pause(made)
    for forbidden in (
        lambda: containers.pause(made),
        lambda: containers.start(made),
        lambda: containers.remove(made),
        lambda: containers.exec_create(made, ExecConfig(cmd=["sh"])),
        lambda: containers.attach(made, AttachOptions(stdout=True)),
    ):
        with pytest.raises(Conflict):
            forbidden()
    containers.unpause(made)
    assert containers.get(made).state.status is Status.RUNNING


def test_remove_refuses_the_running_and_force_kills(containers: Containers, world: World) -> None:
    made = create(containers)
    containers.start(made)
    with pytest.raises(Conflict, match="stop the container before removing or force remove"):
        containers.remove(made)
    containers.remove(made, force=True)
    assert world.filesystem.keys == {}
    assert not (world.root / "containers" / made).exists()
    assert world.actions()[-2:] == ["die", "destroy"]


def test_policies_restart(containers: Containers, world: World) -> None:
    policy = RestartPolicy(name="on-failure", maximum_retry_count=2)
    made = create(containers, host=HostConfig(restart_policy=policy))
    wait = containers.wait(made, "next-exit")

    def begun(count: int) -> bool:
        return len(world.spawner.monitors) == count

    containers.start(made)
    for count in range(3):
        until(partial(begun, count + 1))
        until(lambda: containers.get(made).state.status is Status.RUNNING)
        world.spawner.monitors[-1].end(1)
    assert wait.result(60) == (1, "")
    assert containers.get(made).restart_count == 2


def test_stop_ends_restarting(containers: Containers, world: World) -> None:
    made = create(containers, host=HostConfig(restart_policy=RestartPolicy(name="always")))
    containers.start(made)
    wait = containers.wait(made)
    world.spawner.monitors[0].end(1)
    until(lambda: containers.get(made).state.status is Status.RESTARTING)
    containers.stop(made)
    assert wait.result(60) == (1, "")
    assert containers.get(made).state.status is Status.EXITED


def test_waiting(containers: Containers) -> None:
    made = create(containers)
    assert containers.wait(made, "not-running").result(0) == (0, "")
    with pytest.raises(Invalid, match="invalid condition"):
        containers.wait(made, "dead")
    removed = containers.wait(made, "removed")
    with pytest.raises(TimeoutError):
        removed.result(0)
    containers.remove(made)
    assert removed.result(0) == (0, "")


def test_a_client_that_attaches_before_the_start_gets_the_first_byte(
    containers: Containers, world: World
) -> None:
    made = create(containers, open_stdin=True)
    stream = containers.attach(made, AttachOptions(stdin=True, stdout=True))
    stream.connect().close()
    containers.start(made)
    spec = world.spawner.monitors[0].launch.attach[0]
    assert (spec.stdin, spec.stdout, spec.stderr) == (True, True, False)


def test_execs(containers: Containers, world: World) -> None:
    made = create(containers)
    with pytest.raises(Conflict, match="is not running"):
        containers.exec_create(made, ExecConfig(cmd=["sh"]))
    containers.start(made)
    with pytest.raises(NotFound, match="No such exec instance"):
        containers.exec_inspect("nope")
    live = ExecConfig(cmd=["sh", "-c", "x"], env=["A=b"], working_dir="/tmp", tty=True)
    exec_id = containers.exec_create(made, live)
    assert containers.exec_ids(made) == [exec_id]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lading.containers.users.read_below", lambda root: ["root:x:0:0::/root:\n", ""]
        )
        patch.setattr("lading.containers.users.paths.opened_root", open_nothing)
        assert containers.exec_start(exec_id, detach=True) is None
        process = world.spawner.monitors[0].execs[exec_id]
        assert (process["args"], process["cwd"]) == (["sh", "-c", "x"], "/tmp")
        assert {"A=b", "TERM=xterm", "HOME=/root"} <= set(process["env"])
        assert containers.exec_inspect(exec_id).running
        world.spawner.monitors[0].end_exec(exec_id, 4)
        assert containers.exec_inspect(exec_id).exit_code == 4
        with pytest.raises(Conflict, match="has already run"):
            containers.exec_start(exec_id, detach=True)
        missing = containers.exec_create(made, ExecConfig(cmd=["missing"], attach_stdout=True))
        stream = containers.exec_start(missing)
        assert stream is not None
        with stream.connect() as client:
            assert b"executable file not found" in client.recv(4096)
        assert containers.exec_inspect(missing).exit_code == 127


def test_the_exit_code_is_there_when_the_stream_ends(
    containers: Containers, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has read all before the daemon hears that the process has been started."""
    made = create(containers)
    containers.start(made)
    monkeypatch.setattr("lading.containers.users.read_below", lambda root: ["", ""])
    monkeypatch.setattr("lading.containers.users.paths.opened_root", open_nothing)
    exec_id = containers.exec_create(made, ExecConfig(cmd=["false"], attach_stdout=True))
    stream = containers.exec_start(exec_id)
    assert stream is not None
    monitor = world.spawner.monitors[0]
    ours, theirs = socket.socketpair()

    def run_to_its_end(exec_id: str, client: int) -> None:
        theirs.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        monitor.end_exec(exec_id, 1)

    monkeypatch.setattr(monitor, "on_exec", run_to_its_end)
    starting = threading.Thread(target=lambda: stream.hand_over(theirs.fileno(), b""))
    with ours, theirs:
        starting.start()
        assert ours.recv(1) == b""
        found = containers.exec_inspect(exec_id)
        starting.join()
    assert (found.running, found.exit_code) == (False, 1)


def open_nothing(path: str) -> Any:
    from contextlib import nullcontext

    return nullcontext(-1)


def test_update(containers: Containers, world: World) -> None:
    made = create(containers)
    containers.update(made, Update(memory=64 << 20))
    assert containers.get(made).host_config.memory == 64 << 20
    containers.start(made)
    containers.update(made, Update(cpu_shares=512))
    assert world.isolation.calls[-1] == ("update", {"cpu": {"shares": 512}})
    with pytest.raises(Invalid, match="Minimum memory limit"):
        containers.update(made, Update(memory=1))


def test_volumes_of_a_container(containers: Containers, world: World) -> None:
    made = create(containers, host=HostConfig(binds=["data:/d:nocopy"]), volumes={"/anon": Empty()})
    mounts = {m.destination: m for m in containers.get(made).mounts}
    assert mounts["/d"].source == world.volumes.get("data").mountpoint
    anonymous = mounts["/anon"].name
    assert len(world.volumes.list()) == 2
    other = create(containers, host=HostConfig(volumes_from=[made]))
    containers.remove(made, volumes=True)
    assert world.volumes.get(anonymous), "another container has it still"
    containers.remove(other, volumes=True)
    assert {v.name for v in world.volumes.list()} == {anonymous, "data"}


def test_list_and_filters(containers: Containers, world: World) -> None:
    first = create(containers, "one", labels={"tier": "web"})
    second = create(containers, "two")
    containers.start(second)

    def listed(all: bool = False, **filters: list[str]) -> list[str]:
        names = {k.replace("_", "-"): v for k, v in filters.items()}
        return [
            row.container.name for row in containers.list(ListOptions(all, filters=dict(names)))
        ]

    assert listed() == ["two"]
    assert listed(all=True) == ["two", "one"]
    assert listed(all=True, label=["tier=web"]) == ["one"]
    assert listed(status=["created"]) == ["one"]
    assert listed(all=True, name=["^tw"]) == ["two"]
    assert listed(all=True, id=[first[:8]]) == ["one"]
    assert listed(before=["two"]) == ["one"]
    assert listed(since=["one"]) == ["two"]
    assert listed(all=True, ancestor=["busybox"]) == ["two", "one"]
    world.spawner.monitors[0].end(9)
    until(lambda: listed(exited=["9"]) == ["two"])
    with pytest.raises(Invalid, match="invalid filter 'colour'"):
        listed(colour=["red"])
    assert set(containers.prune({}).deleted) == {first, second}


def test_the_next_daemon_knows_what_happened(containers: Containers, world: World) -> None:
    made = create(containers, "web", labels={"a": "b"})
    containers.start(made)
    record = containers.get(made)
    world.spawner.monitors[0].end(7)
    until(lambda: containers.get(made).state.status is Status.EXITED)
    again = Containers(world.parts())
    again.reconcile()
    found = again.get("web")
    assert (found.state.exit_code, found.config) == (7, record.config)
    again.close()


def test_what_ended_without_a_daemon_gets_its_true_exit_status(
    containers: Containers, world: World
) -> None:
    from lading.monitor.exit import write_exit
    from lading.monitor.launch import Exit

    made = create(containers, "web")
    containers.start(made)
    lost = create(containers, "lost")
    containers.start(lost)
    containers.close()
    write_exit(
        world.root / "run" / "containers" / made, Exit(6, finished_at="2026-01-02T03:04:05Z")
    )
    again = Containers(world.parts())
    again.reconcile()
    state = again.get("web").state
    assert (state.exit_code, state.finished_at) == (6, "2026-01-02T03:04:05Z")
    assert again.get("lost").state.exit_code == 137
    again.close()


def test_debris_of_a_crash_is_swept(containers: Containers, world: World) -> None:
    containers.close()
    orphan = "f" * 64
    world.filesystem.keys[orphan] = ""
    world.filesystem.keys["unpack-1"] = ""
    (world.root / "containers" / orphan).mkdir()
    again = Containers(world.parts())
    again.reconcile()
    assert list(world.filesystem.keys) == ["unpack-1"]
    assert not (world.root / "containers" / orphan).exists()
    assert ("delete", orphan) in world.isolation.calls
    again.close()


def test_a_removal_that_a_crash_interrupted_is_finished(
    containers: Containers, world: World
) -> None:
    made = create(containers, "web")

    def crash(key: str) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.filesystem, "remove", crash)
        with pytest.raises(KeyboardInterrupt):
            containers.remove(made)
    containers.close()
    again = Containers(world.parts())
    again.reconcile()
    world.intents.resume(again.intents)
    assert world.filesystem.keys == {}
    assert not (world.root / "containers" / made).exists()
    with pytest.raises(NotFound):
        again.get("web")
    again.close()


def test_a_policy_brings_containers_back_after_the_host_went_down(
    containers: Containers, world: World
) -> None:
    import shutil

    for name, policy in (("al", "always"), ("un", "unless-stopped"), ("no", "no")):
        containers.start(
            create(containers, name, HostConfig(restart_policy=RestartPolicy(name=policy)))
        )
    containers.close()
    shutil.rmtree(world.root / "run" / "containers")
    again = Containers(world.parts())
    again.reconcile()
    again.restart_wanted()
    until(lambda: again.get("al").state.running and again.get("un").state.running)
    assert again.get("no").state.status is Status.EXITED
    again.close()


def test_log_options_without_a_driver_are_for_the_default_one(containers: Containers) -> None:
    made = create(containers, host=HostConfig(log_config=LogConfig(config={"max-size": "1m"})))
    config = containers.get(made).host_config.log_config
    assert (config.type, config.config) == ("json-file", {"max-size": "1m"})
    with pytest.raises(Invalid, match="unknown log opt 'colour'"):
        create(containers, host=HostConfig(log_config=LogConfig(config={"colour": "red"})))
