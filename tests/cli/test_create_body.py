"""What ``create`` sends: as expected, and as the Docker clients of this host send it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_daemon import FakeDaemon, answer

from lading.testing.daemon import docker_clients

CASES: dict[str, list[str]] = {
    "nothing": [],
    "terminal": ["-it"],
    "ports": [
        *("-p", "80", "-p", "127.0.0.1:8080-8081:90-91/udp", "-p", "8000-8010:80"),
        *("-p", "[::1]:1:2", "--expose", "5-7"),
    ],
    "publish all": ["-P"],
    "environment": ["-e", "X=1", "-e", "HOME", "-e", "NOSUCHVARIABLE", "-l", "a=b", "-l", "c"],
    "files": [
        *("-v", "/a:/b:ro", "-v", "vol:/c", "-v", "/anon"),
        *("--mount", "type=bind,src=/x,dst=/y,readonly"),
        *("--mount", "type=volume,src=v,target=/z,volume-opt=a=b,volume-label=l=1"),
        *("--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"),
        *("--tmpfs", "/run:size=1m", "--volumes-from", "o:ro", "--volume-driver", "vd"),
    ],
    "limits": [
        *("--memory", "512m", "--memory-swap", "-1", "--cpus", "1.5", "--cpu-shares", "5"),
        *("--cpuset-cpus", "0-1", "--pids-limit", "10", "--blkio-weight", "100"),
        *("--shm-size", "64m", "--ulimit", "nofile=1:2", "--memory-swappiness", "5"),
        *("--oom-kill-disable", "--oom-score-adj", "5", "--memory-reservation", "10m"),
        *("--cpu-period", "10", "--cpu-quota", "20"),
    ],
    "network": [
        *("--network", "n", "--ip", "10.0.0.5", "--network-alias", "al", "--link", "a:b"),
        *("--link-local-ip", "169.254.0.1"),
    ],
    "host network": ["--net", "host"],
    "shared network": ["--net", "container:other"],
    "link": ["--link", "a:b"],
    "health": [
        *("--health-cmd", "x", "--health-interval", "5s", "--health-retries", "3"),
        *("--health-start-period", "1m"),
    ],
    "no health": ["--no-healthcheck"],
    "devices": [
        *("--device", "/dev/fuse", "--device", "/dev/a:/dev/b:r"),
        *("--device-cgroup-rule", "c 1:3 rwm", "--device-read-bps", "/dev/sda:1mb"),
        *("--device-write-iops", "/dev/sda:10", "--blkio-weight-device", "/dev/sda:100"),
    ],
    "security": [
        *("--cap-add", "CAP_NET_ADMIN", "--cap-drop", "ALL", "--privileged"),
        *("--security-opt", "no-new-privileges", "--security-opt", "label=disable"),
        *("--sysctl", "net.ipv4.ip_forward=1", "--userns", "host", "--uts", "host"),
        *("--pid", "host", "--ipc", "host", "--cgroupns", "private", "--cgroup-parent", "/x"),
        *("--read-only", "--group-add", "g"),
    ],
    "restart": ["--restart", "on-failure:3"],
    "init": ["--rm", "--init"],
    "logging": ["--log-driver", "json-file", "--log-opt", "max-size=1m"],
    "names": [
        *("--dns", "1.1.1.1", "--dns-search", "x", "--dns-opt", "y"),
        *("--add-host", "h:1.2.3.4", "--hostname", "hh", "--domainname", "dd"),
    ],
    "process": [
        *("--entrypoint", "", "-u", "1:2", "-w", "/w", "--stop-signal", "INT"),
        *("--stop-timeout", "5", "--name", "nm"),
    ],
    "entrypoint": ["--entrypoint", "sh"],
    "streams": ["-a", "stdin", "-a", "stdout", "-i"],
    "engine": ["--runtime", "rr", "--storage-opt", "size=1G"],
}
# Members that one client sends and the other leaves out mean nothing when they are empty.
EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {})


def meaningful(value: Any) -> Any:
    if isinstance(value, dict):
        cleaned = {name: meaningful(member) for name, member in value.items()}
        return {name: member for name, member in cleaned.items() if member not in EMPTY}
    if isinstance(value, list):
        return [meaningful(item) for item in value]
    return value


def sent(fake: FakeDaemon, words: list[str], program: str = "") -> dict[str, Any]:
    fake.on("POST", "/containers/create", answer({"Id": "f" * 64, "Warnings": []}, 201))
    done = fake.run("create", *words, "busybox", "echo", "hi", program=program)
    assert done.returncode == 0, done.stderr
    asked = fake.requests("/containers/create")[-1]
    body = meaningful(asked.json)
    assert isinstance(body, dict)
    # Two clients word "not set" in two ways here.
    endpoints = body.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    if endpoints == {"default": {}}:
        body.pop("NetworkingConfig")
    if body["HostConfig"].get("RestartPolicy") == {"Name": "no"}:
        body["HostConfig"].pop("RestartPolicy")
    if body["HostConfig"].get("ConsoleSize") == [0, 0]:
        body["HostConfig"].pop("ConsoleSize")
    body["query"] = asked.query
    return body


#: What the client 26.1 leaves out although it was asked for; 20.10 and 28 send it.
FORGOTTEN = {
    "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps"
}  # fmt: skip


@pytest.mark.parametrize("client", docker_clients())
@pytest.mark.parametrize("name", CASES)
def test_same_as_docker(
    fake: FakeDaemon, client: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = sent(fake, CASES[name], client), sent(fake, CASES[name])
    for body in (theirs, ours):
        # The client of 2020 keeps these in maps.
        for values in (body["HostConfig"].get("Binds", []), body.get("Env", [])):
            values.sort()
    for member in FORGOTTEN - theirs["HostConfig"].keys():
        ours["HostConfig"].pop(member, None)
    assert ours == theirs


def test_relative_source_is_a_directory_of_the_client(
    fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sent(fake, ["-v", "./here:/d"])["HostConfig"]["Binds"] == [f"{tmp_path}/here:/d"]


def test_own_flags_travel_in_members_that_docker_has(fake: FakeDaemon) -> None:
    body = sent(fake, ["--isolation", "lxc", "--storage", "vfs,size=1G"])
    assert body["HostConfig"]["Runtime"] == "lxc"
    assert body["HostConfig"]["StorageOpt"] == {"driver": "vfs", "size": "1G"}


def test_namespace_by_path(fake: FakeDaemon) -> None:
    body = sent(fake, ["--net", "ns:/run/netns/x"])
    assert body["HostConfig"]["NetworkMode"] == "ns:/run/netns/x"


def test_files_of_variables_and_labels(fake: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=1\n\nHOME\nNOSUCHVARIABLE\nB=x y\n")
    (tmp_path / "labels").write_text("one=1\n")
    body = sent(
        fake,
        [
            "--env-file",
            str(tmp_path / "env"),
            "--label-file",
            str(tmp_path / "labels"),
            "-e",
            "A=2",
        ],
    )
    assert body["Env"][0] == "A=1"
    assert "B=x y" in body["Env"]
    assert body["Env"][-1] == "A=2"
    assert not any(value.startswith("NOSUCHVARIABLE") for value in body["Env"])
    assert body["Labels"] == {"one": "1"}


def test_proxies_of_the_configuration_reach_the_container(fake: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "config/config.json").write_text(
        '{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}}}'
    )
    assert set(sent(fake, ["-e", "NO_PROXY=mine"])["Env"]) == {
        "NO_PROXY=mine",
        "HTTP_PROXY=http://p:1",
        "http_proxy=http://p:1",
        "no_proxy=x",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "abc"], "invalid containerPort: abc"),
        (["-p", "1-2:5-9"], "invalid ranges specified"),
        (["-p", "80/xyz"], "invalid proto: xyz"),
        (["-m", "abc"], 'invalid argument "abc" for "-m, --memory" flag: invalid size: \'abc\''),
        (["--rm=maybe"], 'strconv.ParseBool: parsing "maybe"'),
        (["--foo"], "unknown flag: --foo"),
        (["-y"], "unknown shorthand flag: 'y' in -y"),
        (["--mount", "type=bind,src=/x"], "target is required"),
        (["--mount", "type=wrong,dst=/x"], "invalid mount type"),
        (["--mount", "foo"], "must be a key=value pair"),
        (["--ulimit", "nofile=5:1"], "soft limit must be less"),
        (["--ulimit", "wrong=5"], "invalid ulimit type"),
        (["--cpus", "x"], "failed to parse x"),
        (["--restart", "on-failure:x"], "maximum retry count must be an integer"),
        (["--restart", "always", "--rm"], "cannot specify both --restart and --rm"),
        (["--gpus", "all"], "could not select device driver"),
        (["--add-host", "nocolon"], "bad format for add-host"),
        (["--device", "relative"], "is not an absolute path"),
        (["--env-file", "/no/such"], "open /no/such: no such file"),
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts"),
        (["--network", "a", "--network", "host"], "cannot attach both"),
        (["--pull", "sometimes"], "invalid pull option"),
        (["--security-opt", "what"], "invalid --security-opt"),
        (["--isolation", "a", "--runtime", "b"], "two backends"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    fake: FakeDaemon, words: list[str], message: str
) -> None:
    done = fake.run("run", *words, "busybox")
    assert (done.returncode, message in done.stderr) == (125, True), done.stderr
    assert not fake.requests("/containers/.*")
