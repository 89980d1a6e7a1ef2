"""The side that has forked a process of a container: it does what the process asks of it.

Resource limits and the hooks of the runtime are for one with the engine's rights, which the process
may have given up already.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

from lading.bundle import lifecycle_hooks, reaper, seccomp
from lading.bundle.channel import Channel
from lading.bundle.config import Config, Process
from lading.bundle.init import Plan
from lading.bundle.state import WAITING
from lading.errors import Conflict, LadingError, StartFailed
from lading.hooks.common import Mount
from lading.hooks.isolation import Container, Stdio
from lading.linux import capabilities, procfs
from lading.linux.cgroups import Cgroup


def plan(
    container: Container,
    config: Config,
    recipe: Sequence[Mount],
    stdio: Stdio,
    group: Cgroup,
    filters: Path,
) -> Plan:
    """What the init needs to know. Raises Unsupported and Invalid for a seccomp profile."""
    return Plan(
        container,
        config,
        recipe,
        stdio,
        group,
        seccomp.compiled(config.linux.get("seccomp"), filters),
        held_capabilities(config),
        capabilities.last(),
        reaper.own_texts() if config.reaping_init else None,
    )


def held_capabilities(config: Config) -> int:
    """What may be given: all in a user namespace of its own, else what the engine has itself."""
    return (1 << capabilities.last() + 1) - 1 if config.remapped else capabilities.held()


def accompany(plan: Plan, ours: Channel, pid: int) -> int:
    """Do what the init asks for until it is ready; returns the console's master or -1."""
    console = -1
    try:
        while True:
            message, descriptor = ours.expect("ready")
            console = max(console, descriptor)
            wants = message.get("wants")
            if wants == "limits":
                limit(plan.config.process, pid)
            elif wants == "hooks":
                names = ("prestart", "createRuntime")
                lifecycle_hooks.run(plan.config, names, plan.container, pid, "creating")
            elif "ready" in message:
                return console
            if wants:
                ours.send({})
    except BaseException:
        if console >= 0:
            os.close(console)
        raise


def limit(process: Process, pid: int) -> None:
    """Set resource limits and the OOM score of another process. Raises OSError, saying which."""
    for row in process.limits:
        try:
            resource.prlimit(pid, row.number, (row.soft, row.hard))
        except (PermissionError, ValueError) as error:
            present = resource.prlimit(pid, row.number)[1]
            raise StartFailed(
                f"set {row.name} to {row.soft}:{row.hard}: the hard limit here is {present}, and "
                "the engine may not raise it",
                hint="it needs CAP_SYS_RESOURCE",
            ) from error
    if process.oom_score_adj is not None:
        proc = procfs.open_procfs()
        try:
            procfs.write(proc, f"{pid}/oom_score_adj", str(process.oom_score_adj))
        except PermissionError as error:
            raise StartFailed(
                f"set the OOM score adjustment to {process.oom_score_adj}: {error.strerror}",
                hint="to lower it takes CAP_SYS_RESOURCE",
            ) from error
        finally:
            os.close(proc)


def start(container: Container, channel: Channel, config: Config, pid: int) -> None:
    """Let the init go on; returns when it has executed the program. Raises StartFailed."""
    try:
        (container.state / WAITING).unlink(missing_ok=True)
        channel.send({"start": True})
        channel.receive()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Conflict(f'container "{container.id}" is not in state created') from error
    except OSError as error:
        raise StartFailed(str(error)) from error
    finally:
        channel.close()
    try:
        lifecycle_hooks.run(config, ("poststart",), container, pid, "running")
    except LadingError:
        # The program runs already, and must not go on (runtime-spec 1.2, "Lifecycle", step 9).
        os.kill(pid, signal.SIGKILL)
        raise
