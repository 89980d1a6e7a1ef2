"""``prune``: remove what nothing uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from lading.cli.command import NONE, Command, command
from lading.cli.creation.flags import size
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, Flag, switch, texts
from lading.cli.output.table import api_filters
from lading.cli.output.units import human_size
from lading.cli.session import Session

Filters = dict[str, dict[str, bool]]
FORCE = switch("force", "f", "Do not ask")
FILTER = texts("filter", "", "Only those that meet a condition (name=value)", kind="filter")


def confirmed(call: Call, warning: str) -> bool:
    """Ask, unless ``--force`` was given."""
    if call.on("force"):
        return True
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        if not answer:
            call.session.print("")
        return False
    return True


def filters_of(call: Call) -> Filters:
    """``--filter`` and what ``config.json`` adds to every prune."""
    filters = api_filters(call.texts("filter"))
    for condition in call.session.settings.values.get("pruneFilters") or []:
        key, _, value = str(condition).partition("=")
        filters.setdefault(key, {})[value] = True
    return filters


def prune_containers(session: Session, filters: Filters) -> int:
    """Remove stopped containers; the bytes that were freed."""
    answer = session.post("/containers/prune", filters=filters)
    _list(session, "Deleted Containers:", answer.get("ContainersDeleted"))
    return int(answer.get("SpaceReclaimed") or 0)


def prune_images(session: Session, filters: Filters, *, everything: bool) -> int:
    """Remove dangling images, or all unused ones."""
    wanted = {**filters, "dangling": {"false" if everything else "true": True}}
    answer = session.post("/images/prune", filters=wanted)
    lines = [
        f"{'untagged' if item.get('Untagged') else 'deleted'}: "
        f"{item.get('Untagged') or item.get('Deleted')}"
        for item in answer.get("ImagesDeleted") or []
    ]
    _list(session, "Deleted Images:", lines)
    return int(answer.get("SpaceReclaimed") or 0)


def prune_networks(session: Session, filters: Filters) -> int:
    """Remove unused networks."""
    answer = session.post("/networks/prune", filters=filters)
    _list(session, "Deleted Networks:", answer.get("NetworksDeleted"))
    return 0


def prune_volumes(session: Session, filters: Filters, *, everything: bool) -> int:
    """Remove unused volumes: those without a name, or all."""
    wanted = {**filters, "all": {"true": True}} if everything else filters
    answer = session.post("/volumes/prune", filters=wanted)
    _list(session, "Deleted Volumes:", answer.get("VolumesDeleted"))
    return int(answer.get("SpaceReclaimed") or 0)


def prune_cache(
    session: Session, filters: Filters, *, everything: bool, keep: int | None = None
) -> int:
    """Remove build cache until no more than ``keep`` bytes are left."""
    answer = session.post(
        "/build/prune", all=everything, filters=filters, **{"keep-storage": keep or None}
    )
    _list(session, "Deleted build cache objects:", answer.get("CachesDeleted"))
    return int(answer.get("SpaceReclaimed") or 0)


def _list(session: Session, title: str, names: Sequence[str] | None) -> None:
    if names:
        session.print(title)
        for name in names:
            session.print(name)
        session.print("")


def _total(session: Session, size: int) -> None:
    session.print(f"Total reclaimed space: {human_size(size)}")


def _command(
    help: str, warning: Callable[[Call], str], act: Callable[[Call, Filters], int], *more: Flag
) -> Command:
    def prune(call: Call) -> None:
        filters = filters_of(call)
        if confirmed(call, warning(call)):
            _total(call.session, act(call, filters))

    flags = (*more, FILTER, FORCE)
    return command(help, usage="[OPTIONS]", arguments=NONE, flags=flags)(prune)


container_prune = _command(
    "Remove all stopped containers",
    lambda call: "This will remove all stopped containers.",
    lambda call, filters: prune_containers(call.session, filters),
)
image_prune = _command(
    "Remove unused images",
    lambda call: (
        "This will remove all images without at least one container associated to them."
        if call.on("all")
        else "This will remove all dangling images."
    ),
    lambda call, filters: prune_images(call.session, filters, everything=call.on("all")),
    switch("all", "a", "Those with a name too"),
)
volume_prune = _command(
    "Remove unused volumes",
    lambda call: (
        "This will remove all volumes not used by at least one container."
        if call.on("all")
        else "This will remove anonymous volumes not used by at least one container."
    ),
    lambda call, filters: prune_volumes(call.session, filters, everything=call.on("all")),
    switch("all", "a", "Those with a name too"),
)
builder_prune = _command(
    "Remove build cache",
    lambda call: "This will remove unused build cache.",
    lambda call, filters: prune_cache(
        call.session, filters, everything=call.on("all"), keep=call.value("keep-storage")
    ),
    switch("all", "a", "All of it, also what images with a name need"),
    size("keep-storage", "", "Leave so much, what was used last"),
)


@command(
    "Remove unused networks",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(FILTER, FORCE),
)
def network_prune(call: Call) -> None:
    """Remove networks without containers."""
    warning = "This will remove all custom networks not used by at least one container."
    if confirmed(call, warning):
        prune_networks(call.session, filters_of(call))


@command(
    "Remove all that is unused",
    usage="[OPTIONS]",
    arguments=NONE,
    flags=(
        switch("all", "a", "All unused images, not only dangling ones"),
        FILTER,
        FORCE,
        switch("volumes", "", "Anonymous volumes too"),
    ),
)
def system_prune(call: Call) -> None:
    """Remove containers, networks, images, build cache, and volumes if asked to."""
    filters = filters_of(call)
    if call.on("volumes") and "until" in filters:
        raise Failure('the "until" filter is not supported with "--volumes"')
    everything = call.on("all")
    images = "images without at least one container" if everything else "dangling images"
    what = ["stopped containers", "networks not used by at least one container", images]
    if call.on("volumes"):
        what.append("anonymous volumes not used by at least one container")
    if not confirmed(call, f"This will remove: {', '.join([*what, 'unused build cache'])}."):
        return
    session, freed = call.session, prune_containers(call.session, filters)
    prune_networks(session, filters)
    if call.on("volumes"):
        freed += prune_volumes(session, filters, everything=False)
    freed += prune_images(session, filters, everything=everything)
    freed += _cache_if_any(session, filters, everything)
    _total(session, freed)


def _cache_if_any(session: Session, filters: Filters, everything: bool) -> int:
    cache_filters: dict[str, Any] = {k: v for k, v in filters.items() if k == "until"}
    try:
        return prune_cache(session, cache_filters, everything=everything)
    except DaemonError as error:
        if error.status in (404, 501):
            return 0  # a daemon without a build cache of its own
        raise
