"""The daemon is killed before and after every hook of every operation; nothing may stay half-done.

Which hooks an operation calls is seen by ``trace`` in a run without faults, so the sweep follows
the engine. After each kill the next daemon must start, the operation must go through when it is
repeated, and when all is removed the daemon must have what it had before: the same snapshots,
blobs, control groups, network namespaces, mounts, directories and intents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lading.errors import LadingError
from lading.testing.daemon import busybox_image, nothing_left
from lading.testing.registries import free_port
from lading_registry_server.serve import running as registry_running

from .engine import Engine, Refused, context, engine

pytestmark = pytest.mark.root

#: Hooks that change nothing: killing around them kills between the others.
READING = {"stat", "mounts", "layer_directory", "usage", "walk", "processes", "stats", "probe"}
BUILD = "FROM busybox\nRUN echo built > /built\nCOPY f /f\n"
PORTS = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
BODY = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"PortBindings": PORTS}}
Deed = Callable[[Engine], object]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    with registry_running(tmp_path_factory.mktemp("registry"), [address]):
        yield address


@pytest.fixture
def swept() -> Iterator[Engine]:
    with nothing_left(), engine(busybox_image()) as running:
        yield running


def nothing(engine: Engine) -> None:
    """No preparation."""


def create(engine: Engine) -> None:
    engine.gone("DELETE", "/containers/x", force=1)
    engine.call("POST", "/containers/create", BODY, name="x")


def start(engine: Engine) -> None:
    engine.gone("POST", "/containers/x/start")


def created_started(engine: Engine) -> None:
    create(engine)
    start(engine)


def execute(engine: Engine) -> None:
    created = engine.call("POST", "/containers/x/exec", {"Cmd": ["sleep", "0"]})
    engine.call("POST", f"/exec/{created['Id']}/start", {"Detach": True})


def commit(engine: Engine) -> None:
    engine.call("POST", "/commit", container="x", repo="committed")


def stop(engine: Engine) -> None:
    engine.gone("POST", "/containers/x/stop", t=0)


def remove(engine: Engine) -> None:
    engine.gone("DELETE", "/containers/x", force=1)


def build(engine: Engine) -> None:
    engine.call("POST", "/build", context(BUILD), t="built")


OPERATIONS: dict[str, tuple[Deed, Deed]] = {
    "create": (nothing, create),
    "start": (create, start),
    "exec": (created_started, execute),
    "commit": (created_started, commit),
    "stop": (created_started, stop),
    "remove": (created_started, remove),
    "build": (nothing, build),
}


def hooks_of(engine: Engine, prepare: Deed, deed: Deed) -> list[tuple[str, str]]:
    """The changing hooks that the operation calls, each once, in order."""
    prepare(engine)
    engine.rest()
    engine.forget()
    deed(engine)
    engine.rest()
    found = [call for call in dict.fromkeys(engine.called()) if call[1] not in READING]
    engine.clean()
    return found


def sweep(engine: Engine, prepare: Deed, deed: Deed, victim: str, roles: set[str]) -> list[str]:
    """Kill at each hook in turn; returns what was wrong, by hook."""
    hooks = [h for h in hooks_of(engine, prepare, deed) if h[0] in roles]
    assert hooks
    baseline = engine.baseline()
    wrong = []
    for role, hook in hooks:
        for when in ("before", "after"):
            place = f"{when} {role}.{hook}"
            prepare(engine)
            engine.rest()
            rule = engine.add_rule(
                action="kill", role=role, hook=hook, when=when, times=1, victim=victim
            )
            try:
                deed(engine)
            except (Refused, LadingError, OSError):
                pass
            wrong += [f"{place}: {text}" for text in after(engine, rule, deed, victim, baseline)]
    return wrong


def after(engine: Engine, rule: str, deed: Deed, victim: str, baseline: set[str]) -> Iterator[str]:
    """Start the next daemon, repeat the operation, remove everything; yields what is wrong."""
    if victim == "daemon":
        try:
            engine.revive()
        except Exception as error:
            pytest.fail(f"the daemon was not killed, or did not come back: {error!r}")
    if engine.fitted(rule) < 1:
        yield "the rule has not fitted"
    engine.call("DELETE", f"/lading/faults/{rule}")
    try:
        deed(engine)
    except (Refused, LadingError, OSError) as error:
        yield f"repeated: {error}"
    try:
        engine.clean()
    except (Refused, LadingError, OSError) as error:
        yield f"removed: {error}"
    if change := engine.settled(baseline):
        yield f"left or lost: {', '.join(change)}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_daemon_dies_at_a_hook(swept: Engine, operation: str) -> None:
    prepare, deed = OPERATIONS[operation]
    roles = {"filesystem", "isolation", "network"}
    assert sweep(swept, prepare, deed, "daemon", roles) == []


def test_the_daemon_dies_while_it_pulls(swept: Engine, registry: str) -> None:
    swept.call("POST", "/build", context("FROM busybox\nCOPY f /g\n"), t=f"{registry}/pulled")
    swept.call("POST", f"/images/{registry}/pulled/push", tag="latest")
    swept.clean()

    def pull(engine: Engine) -> None:
        engine.call("POST", "/images/create", fromImage=f"{registry}/pulled", tag="latest")

    assert sweep(swept, nothing, pull, "daemon", {"filesystem", "registry"}) == []


@pytest.mark.parametrize("operation", ["start", "exec"])
def test_the_process_that_calls_isolation_dies(swept: Engine, operation: str) -> None:
    prepare, deed = OPERATIONS[operation]
    assert sweep(swept, prepare, deed, "caller", {"isolation"}) == []


def test_a_commit_that_was_killed_leaves_room_for_the_next(swept: Engine) -> None:
    """The key of its view was taken once more by the next daemon, which counts from the start."""
    created_started(swept)
    swept.add_rule(action="kill", role="filesystem", hook="view", when="after", times=1)
    with pytest.raises((Refused, LadingError, OSError)):
        commit(swept)
    swept.revive()
    for _ in range(4):
        commit(swept)
