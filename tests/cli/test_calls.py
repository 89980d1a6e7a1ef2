"""Whole calls against a recording daemon: requests, output, exit codes."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_daemon import LADING, Answer, Asked, FakeDaemon, answer, frame

IDENTITY = "f" * 64
CONTAINER = {
    "Id": IDENTITY,
    "Names": ["/web", "/other/alias"],
    "Image": "busybox",
    "Command": 'sh -c "a long command line"',
    "Created": 1_400_000_000,
    "State": "running",
    "Status": "Up 5 minutes",
    "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"}],
    "Labels": {"a": "b"},
    "Mounts": [],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}


def message(text: str, status: int) -> Answer:
    return answer({"message": text}, status)


def runnable(fake: FakeDaemon, *, output: bytes = b"", code: int = 0) -> None:
    """Answers for a whole `run`."""
    fake.on("POST", "/containers/create", answer({"Id": IDENTITY, "Warnings": ["careful"]}, 201))
    raw = {"Connection": "Upgrade", "Upgrade": "tcp"}
    fake.on("POST", f"/containers/{IDENTITY}/attach", Answer(output, 101, raw))
    fake.on("POST", f"/containers/{IDENTITY}/wait", {"StatusCode": code, "Error": None})
    fake.on("POST", f"/containers/{IDENTITY}/start", Answer(b"", 204))


def test_run_attaches_and_waits_before_it_starts(fake: FakeDaemon) -> None:
    runnable(fake, output=frame(b"out\n") + frame(b"err\n", 2), code=7)
    done = fake.run("run", "busybox", "true")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr == "WARNING: careful\nerr\n"
    order = [a.path.rpartition("/")[2] for a in fake.asked if a.method == "POST"]
    assert order == ["create", "attach", "wait", "start"]
    assert fake.requests(".*/wait")[0].query == {"condition": ["next-exit"]}
    query = fake.requests(".*/attach")[0].query
    assert (query["stdout"], query["stderr"], query["stream"]) == (["1"], ["1"], ["1"])
    assert "stdin" not in query


def test_run_in_the_background_prints_the_id(fake: FakeDaemon, tmp_path: Path) -> None:
    runnable(fake)
    done = fake.run("run", "-d", "--rm", "--cidfile", str(tmp_path / "cid"), "busybox")
    assert (done.returncode, done.stdout) == (0, IDENTITY + "\n")
    assert (tmp_path / "cid").read_text() == IDENTITY
    assert not fake.requests(".*/attach")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("exec /x: no such file or directory", 127),
        ("exec /etc/passwd: permission denied", 126),
        ("port is already allocated", 125),
    ],
)
def test_exit_codes_when_it_cannot_start(fake: FakeDaemon, reason: str, code: int) -> None:
    runnable(fake)
    fake.on("POST", f"/containers/{IDENTITY}/start", message(reason, 400))
    done = fake.run("run", "busybox", "x")
    assert done.returncode == code
    assert f"Error response from daemon: {reason}" in done.stderr


def test_a_missing_image_is_pulled(fake: FakeDaemon) -> None:
    runnable(fake)
    made = answer({"Id": IDENTITY, "Warnings": []}, 201)
    answers = iter([message("No such image: some/image:latest", 404), made])
    fake.on("POST", "/containers/create", lambda asked: next(answers))
    fake.on("POST", "/images/create", Answer(b'{"status":"Pulled it"}\r\n'))
    done = fake.run("run", "-d", "some/image")
    assert done.returncode == 0
    assert done.stdout == IDENTITY + "\n"
    assert "Unable to find image 'some/image:latest' locally" in done.stderr
    assert "Pulled it" in done.stderr
    assert fake.requests("/images/create")[0].query == {
        "fromImage": ["some/image"],
        "tag": ["latest"],
    }


def test_a_missing_image_is_not_pulled_when_never(fake: FakeDaemon) -> None:
    fake.on("POST", "/containers/create", message("No such image: x:latest", 404))
    done = fake.run("run", "--pull", "never", "x")
    assert (done.returncode, "No such image" in done.stderr) == (125, True)


def test_a_failed_pull_ends_in_125(fake: FakeDaemon) -> None:
    fake.on("POST", "/containers/create", message("No such image: x:latest", 404))
    failed = Answer(b'{"errorDetail":{"message":"no way"},"error":"no way"}')
    fake.on("POST", "/images/create", failed)
    done = fake.run("run", "x")
    assert (done.returncode, "no way" in done.stderr) == (125, True)


def test_ps(fake: FakeDaemon) -> None:
    fake.on("GET", "/containers/json", [CONTAINER])
    lines = fake.run("ps", "-a", "--filter", "label=a").stdout.splitlines()
    assert lines[0].split()[:3] == ["CONTAINER", "ID", "IMAGE"]
    for cell in (
        "ffffffffffff",
        '"sh -c \\"a long comma…"',
        "Up 5 minutes",
        "0.0.0.0:8080->80/tcp",
    ):
        assert cell in lines[1]
    assert lines[1].endswith("web")
    query = fake.requests("/containers/json")[0].query
    assert (query["all"], json.loads(query["filters"][0])) == (["1"], {"label": {"a": True}})


def test_ps_in_other_forms(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.on("GET", "/containers/json", [CONTAINER])
    assert fake.run("ps", "-q").stdout == "f" * 12 + "\n"
    assert fake.run("ps", "-q", "--no-trunc").stdout == IDENTITY + "\n"
    one = fake.run("ps", "--format", '{{.Names}}|{{.Label "a"}}|{{.Labels}}|{{.Networks}}')
    assert one.stdout == "web|b|a=b|bridge\n"
    table = fake.run("ps", "--format", "table {{.ID}}\t{{.Names}}").stdout
    assert table == "CONTAINER ID   NAMES\nffffffffffff   web\n"
    assert json.loads(fake.run("ps", "--format", "json").stdout)["Names"] == "web"
    assert fake.run("ps", "--format", "{{").returncode == 64
    (tmp_path / "config/config.json").write_text('{"psFormat": "{{.Names}}!"}')
    assert fake.run("ps").stdout == "web!\n"
    fake.run("ps", "--size")
    assert fake.requests("/containers/json")[-1].query["size"] == ["1"]
    fake.run("ps", "-n", "3", "--since", "x")
    query = fake.requests("/containers/json")[-1].query
    assert (query["limit"], json.loads(query["filters"][0])) == (["3"], {"since": {"x": True}})


def test_exec(fake: FakeDaemon) -> None:
    fake.on("POST", "/containers/web/exec", answer({"Id": "e1"}, 201))
    raw = {"Connection": "Upgrade", "Upgrade": "tcp"}
    fake.on("POST", "/exec/e1/start", Answer(frame(b"in\n"), 101, raw))
    fake.on("GET", "/exec/e1/json", {"ExitCode": 9, "Running": False})
    done = fake.run("exec", "-e", "A=b", "-u", "1", "-w", "/w", "web", "ls", "-l")
    assert (done.returncode, done.stdout) == (9, "in\n")
    body = fake.requests("/containers/web/exec")[0].json
    assert (body["Cmd"], body["Env"], body["User"]) == (["ls", "-l"], ["A=b"], "1")


def test_logs_come_apart(fake: FakeDaemon) -> None:
    fake.on("GET", "/containers/web/json", {"Id": IDENTITY, "Config": {"Tty": False}})
    output = frame(b"one\n") + frame(b"two\n", 2)
    fake.on("GET", f"/containers/{IDENTITY}/logs", Answer(output))
    done = fake.run("logs", "-f", "-t", "--tail", "5", "--since", "100", "web")
    assert (done.stdout, done.stderr) == ("one\n", "two\n")
    query = fake.requests(".*/logs")[0].query
    assert query == {
        **{name: ["1"] for name in ("stdout", "stderr", "timestamps", "follow")},
        "tail": ["5"],
        "since": ["100"],
    }


def test_logs_of_a_terminal_are_raw(fake: FakeDaemon) -> None:
    fake.on("GET", "/containers/web/json", {"Id": IDENTITY, "Config": {"Tty": True}})
    fake.on("GET", f"/containers/{IDENTITY}/logs", Answer(b"\x01raw\r\n"))
    assert fake.run("logs", "web").stdout == "\x01raw\r\n".replace("\r\n", "\r\n")


def test_inspect_finds_any_kind(fake: FakeDaemon) -> None:
    fake.on("GET", "/volumes/data", {"Name": "data", "Driver": "local"})
    for kind in ("containers/[^/]*/json", "images/[^/]*/json", "networks/[^/]*"):
        fake.on("GET", f"/{kind}", message("No such thing", 404))
    done = fake.run("inspect", "data", "nosuch")
    assert json.loads(done.stdout) == [{"Name": "data", "Driver": "local"}]
    assert (done.returncode, done.stderr) == (1, "Error: No such object: nosuch\n")
    assert fake.run("inspect", "-f", "{{.Driver}}", "data").stdout == "local\n"
    assert fake.run("inspect", "-f", "{{.Driver", "data").returncode == 64
    missing = fake.run("inspect", "--type", "volume", "nosuch")
    assert (missing.returncode, missing.stdout) == (1, "[]\n")


def test_members_that_are_missing_are_zero_in_templates(fake: FakeDaemon) -> None:
    container = {"Id": "1", "State": {"Running": True}, "Config": {"Cmd": None}, "HostConfig": {}}
    fake.on("GET", "/containers/web/json", container)
    layout = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.Config.Cmd}}"
    layout += " {{.HostConfig.Init}} {{.Config.Labels.x}} {{len .HostConfig.Binds}}"
    assert fake.run("inspect", "-f", layout, "web").stdout == "none [] <nil> <no value> 0\n"
    wrong = fake.run("inspect", "-f", "{{.State.Nosuch}}", "web")
    assert (wrong.returncode, 'no entry for key "Nosuch"' in wrong.stderr) == (1, True)


def test_several_at_once_go_on_after_an_error(fake: FakeDaemon) -> None:
    def remove(asked: Asked) -> Answer:
        return (
            message("No such container: b", 404) if asked.path.endswith("/b") else Answer(b"", 204)
        )

    fake.on("DELETE", "/containers/.*", remove)
    done = fake.run("rm", "-f", "-v", "a", "c")
    assert (done.returncode, done.stdout) == (0, "a\nc\n")
    done = fake.run("rm", "a", "b", "c")
    assert (done.returncode, done.stdout) == (1, "a\nc\n")
    assert done.stderr == "Error response from daemon: No such container: b\n"
    assert fake.requests("/containers/a")[0].query == {"v": ["1"], "force": ["1"]}


def test_stop_and_kill_pass_their_flags(fake: FakeDaemon) -> None:
    fake.on("POST", "/containers/web/.*", Answer(b"", 204))
    fake.run("stop", "-t", "0", "web")
    fake.run("stop", "web")
    fake.run("kill", "-s", "HUP", "web")
    assert [a.query for a in fake.requests("/containers/web/.*")] == [
        {"t": ["0"]},
        {},
        {"signal": ["HUP"]},
    ]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nosuch"], 1, "unknown command: lading nosuch"),
        (["container", "nosuch"], 1, "unknown command: lading container nosuch"),
        (["ps", "extra"], 1, "'lading ps' accepts no arguments"),
        (["run"], 1, "'lading run' requires at least 1 argument"),
        (["tag", "a"], 1, "'lading tag' requires 2 arguments"),
        (["ps", "--foo"], 125, "unknown flag: --foo"),
        (["run", "--foo", "x"], 125, "See 'lading run --help'."),
        (["--foo", "ps"], 125, "unknown flag: --foo"),
        (["logs", "-n"], 125, "flag needs an argument: 'n' in -n"),
        (["pull", "UPPER"], 1, "must be lowercase"),
        (["pull", "a:b:c"], 1, "invalid reference format"),
        (["start", "-a", "x", "y"], 1, "cannot start and attach multiple containers"),
        (["cp", "a", "b"], 1, "must specify at least one container source"),
        (["cp", "a:x", "b:y"], 1, "copying between containers is not supported"),
        (["-H", "tcp://x:1", "ps"], 1, "specify only one -H"),
    ],
)
def test_wrong_command_lines(fake: FakeDaemon, words: list[str], code: int, text: str) -> None:
    done = fake.run(*words)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_no_daemon(tmp_path: Path) -> None:
    command = [LADING, "-H", f"unix://{tmp_path}/none", "ps"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Cannot connect to the Docker daemon at unix://" in done.stderr


def test_the_version_of_the_api_is_agreed_on(fake: FakeDaemon) -> None:
    fake.on("GET", "/containers/json", [])
    assert fake.run("ps").returncode == 0
    assert fake.run("ps", environment={"DOCKER_API_VERSION": "1.30"}).returncode == 0
    assert len(fake.requests("/_ping")) == 1


def test_host_from_the_environment(fake: FakeDaemon) -> None:
    fake.on("GET", "/containers/json", [CONTAINER])
    for names in ({"DOCKER_HOST": fake.host}, {"LADING_HOST": fake.host, "DOCKER_HOST": "tcp://x"}):
        done = subprocess.run(
            [LADING, "ps", "-q"], capture_output=True, text=True, env={**os.environ, **names}
        )
        assert done.stdout == "f" * 12 + "\n", done.stderr


def test_context_names_a_host(fake: FakeDaemon, tmp_path: Path) -> None:
    import hashlib

    meta = tmp_path / "config/contexts/meta" / hashlib.sha256(b"there").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": fake.host}}}))
    fake.on("GET", "/containers/json", [CONTAINER])
    for words in (["-c", "there", "ps", "-q"],):
        done = subprocess.run([LADING, *words], capture_output=True, text=True)
        assert done.stdout == "f" * 12 + "\n", done.stderr
    assert subprocess.run([LADING, "-c", "none", "ps"], capture_output=True).returncode == 1


def test_interrupt_ends_without_a_traceback(fake: FakeDaemon) -> None:
    import threading

    asked, release = threading.Event(), threading.Event()

    def hang(_: Asked) -> Answer:
        asked.set()
        release.wait(20)
        return Answer()

    fake.on("POST", "/images/create", hang)
    process = subprocess.Popen(
        [LADING, "-H", fake.host, "pull", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert asked.wait(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    release.set()
    assert (process.returncode, errors) == (130, b"")


def test_login_keeps_what_the_daemon_accepts(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.on("POST", "/auth", {"Status": "Login Succeeded", "IdentityToken": ""})
    done = fake.run("login", "-u", "me", "--password-stdin", "reg.test:5000", input=b"secret\n")
    assert (done.returncode, done.stdout) == (0, "Login Succeeded\n")
    path = tmp_path / "config/config.json"
    assert path.stat().st_mode & 0o777 == 0o600
    stored = json.loads(path.read_text())["auths"]["reg.test:5000"]
    assert base64.b64decode(stored["auth"]) == b"me:secret"
    fake.on("POST", "/images/create", Answer(b""))
    fake.run("pull", "reg.test:5000/x:1")
    sent = fake.requests("/images/create")[0].headers["x-registry-auth"]
    auth = json.loads(base64.urlsafe_b64decode(sent))
    assert (auth["username"], auth["password"]) == ("me", "secret")
    assert "Removing login credentials" in fake.run("logout", "reg.test:5000").stdout
    assert json.loads(path.read_text())["auths"] == {}


def test_login_that_is_refused(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.on("POST", "/auth", message("unauthorized", 401))
    done = fake.run("login", "-u", "me", "-p", "x", "-e", "me@x", "reg.test")
    assert (done.returncode, "unauthorized" in done.stderr) == (1, True)
    assert not (tmp_path / "config/config.json").exists()


def test_credential_helper(fake: FakeDaemon, tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\ncase $1 in\n"
        'get) read name; echo "{\\"ServerURL\\":\\"$name\\",\\"Username\\":\\"u\\",'
        '\\"Secret\\":\\"s\\"}";;\n'
        f"store) cat > {tmp_path}/stored;;\nesac\n"
    )
    helper.chmod(0o755)
    (tmp_path / "config/config.json").write_text('{"credsStore": "test"}')
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    fake.on("POST", "/images/create", Answer(b""))
    fake.run("pull", "reg.test/x", environment=path)
    sent = fake.requests("/images/create")[0].headers["x-registry-auth"]
    assert json.loads(base64.urlsafe_b64decode(sent))["password"] == "s"
    fake.on("POST", "/auth", {"Status": "Login Succeeded"})
    fake.run("login", "-u", "me", "--password-stdin", "reg.test", input=b"p", environment=path)
    assert json.loads((tmp_path / "stored").read_text())["Secret"] == "p"
    assert json.loads((tmp_path / "config/config.json").read_text())["auths"] == {"reg.test": {}}


def test_build(fake: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    lines = [{"stream": "Step 1\n"}, {"aux": {"ID": "sha256:abc"}}, {"stream": "done\n"}]
    fake.on("POST", "/build", Answer("".join(json.dumps(x) + "\r\n" for x in lines).encode()))
    iid = tmp_path / "iid"
    done = fake.run(
        *("build", "-t", "a:1", "-t", "b", "--build-arg", "X=1", "--label", "l=1", "--no-cache"),
        *("--iidfile", str(iid), "-m", "1m", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Step 1\ndone\n")
    assert iid.read_text() == "sha256:abc"
    asked = fake.requests("/build")[0]
    assert asked.query["t"] == ["a:1", "b"]
    assert json.loads(asked.query["buildargs"][0]) == {"X": "1"}
    assert (asked.query["rm"], asked.query["nocache"]) == (["1"], ["1"])
    assert asked.query["memory"] == [str(1 << 20)]
    quiet = fake.run("build", "-q", str(tmp_path))
    assert quiet.stdout == "sha256:abc\n"
    from_stdin = fake.run("build", "-", input=b"FROM y\n")
    assert from_stdin.returncode == 0
    assert b"FROM y" in fake.requests("/build")[-1].body
    failed = Answer(b'{"errorDetail":{"code":3,"message":"RUN failed"},"error":"RUN failed"}')
    fake.on("POST", "/build", failed)
    done = fake.run("build", str(tmp_path))
    assert (done.returncode, "RUN failed" in done.stderr) == (3, True)


def test_prune_asks_first(fake: FakeDaemon) -> None:
    pruned = {"ContainersDeleted": [IDENTITY], "SpaceReclaimed": 1500}
    fake.on("POST", "/containers/prune", pruned)
    done = fake.run("container", "prune", input=b"n\n")
    assert "WARNING! This will remove all stopped containers." in done.stdout
    assert not fake.requests("/containers/prune")
    done = fake.run("container", "prune", input=b"y\n")
    assert f"Deleted Containers:\n{IDENTITY}\n\nTotal reclaimed space: 1.5kB\n" in done.stdout


def test_help_names_every_command() -> None:
    from lading.cli.application import load
    from lading.cli.commands import GROUPS, Table

    shown = subprocess.run([LADING, "--help"], capture_output=True, text=True).stdout
    table = Table()
    for name in [*table.commands, *table.groups]:
        assert f"  {name} " in shown
    entries = [*table.commands.values()]
    for _, group in GROUPS.values():
        entries += group.values()
    for target, help in entries:
        assert load(target).help
        assert help


def test_completion(fake: FakeDaemon) -> None:
    fake.on("GET", "/containers/json", [CONTAINER])

    def complete(line: str) -> list[str]:
        environment = {
            **os.environ,
            "DOCKER_HOST": fake.host,
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
            "_LADING_COMPLETE": "bash_complete",
        }
        done = subprocess.run([LADING], capture_output=True, text=True, env=environment)
        return [row.partition(",")[2] for row in done.stdout.splitlines()]

    assert complete("lading pau") == ["pause"]
    assert complete("lading rm w") == ["web"]
    assert complete("lading ps --no") == ["--no-trunc"]
    assert complete("lading network in") == ["inspect"]
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run([LADING, "completion", shell], capture_output=True, text=True)
        assert "_LADING_COMPLETE" in done.stdout


def test_an_interrupt_while_the_program_loads_shows_no_traceback() -> None:
    script = (
        "import os, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'lading.cli.application':\n"
        "            os.kill(os.getpid(), 2)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from lading.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
