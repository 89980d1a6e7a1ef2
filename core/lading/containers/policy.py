"""When a container that has ended is started again."""

from __future__ import annotations

from lading.containers.records import Container
from lading.errors import Invalid
from lading.model.docker import HostConfig, RestartPolicy

#: Seconds before the first restart, and the most; each one that follows soon doubles the wait.
FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0

#: A container that ran this long (seconds) starts again with the first delay.
SETTLED = 10.0

NAMES = ("no", "always", "on-failure", "unless-stopped")


def check(policy: RestartPolicy, host: HostConfig | None = None) -> None:
    """Raises Invalid for a wrong policy, or one that contradicts ``--rm``."""
    name, retries = policy.name, policy.maximum_retry_count
    if name and name not in NAMES:
        raise Invalid(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if retries < 0:
        raise Invalid("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != "on-failure":
        raise Invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if host is not None and host.auto_remove and name not in ("", "no"):
        raise Invalid("can't create 'AutoRemove' container with restart policy")


def restarts(container: Container, exit_code: int) -> bool:
    """Whether a container that has just ended runs again."""
    policy = container.host_config.restart_policy
    if container.manually_stopped or policy.name in ("", "no"):
        return False
    if policy.name == "on-failure":
        limit = policy.maximum_retry_count
        return exit_code != 0 and (limit == 0 or container.restart_count < limit)
    return True


def restarts_at_boot(container: Container) -> bool:
    """Whether a container that ended with the host runs again when the daemon starts."""
    policy = container.host_config.restart_policy
    if policy.name == "always":
        return container.has_run
    return (
        container.has_run
        and not container.manually_stopped
        and restarts(container, container.state.exit_code or 255)
    )


def next_delay(previous: float, ran: float) -> float:
    """Seconds to wait, from the wait before (0 for none) and how long the container ran."""
    if previous <= 0 or ran >= SETTLED:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
