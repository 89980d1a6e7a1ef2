"""Images in Docker's JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lading.api.render_container import config_json
from lading.api.times import seconds_of
from lading.api.version import Version
from lading.images import Deleted, HistoryLine, Image
from lading.model.docker import ContainerConfig, convert

# What of a container's config an image's own has since 1.50.
_IMAGE_MEMBERS = frozenset(
    (
        "ArgsEscaped",
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Healthcheck",
        "Labels",
        "OnBuild",
        "Shell",
        "StopSignal",
        "User",
        "Volumes",
        "WorkingDir",
    )
)
UNKNOWN = -1


def summaries(
    images: Iterable[Image],
    *,
    version: Version,
    users: Mapping[str, int] | None = None,
    shared: bool = False,
) -> list[dict[str, Any]]:
    """Rows of ``GET /images/json``; ``users`` counts the containers per image ID."""
    listed = list(images)
    uses = Counter(chain for image in listed for chain in {x.chain_id for x in image.layers})
    return [_summary(image, version, users, uses if shared else None) for image in listed]


def _summary(
    image: Image,
    version: Version,
    users: Mapping[str, int] | None,
    uses: Mapping[str, int] | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": seconds_of(image.created),
        "Size": image.size,
        "SharedSize": UNKNOWN,
        "Labels": image.labels,
        "Containers": UNKNOWN if users is None else users.get(image.id, 0),
    }
    if uses is not None:
        row["SharedSize"] = sum(
            max(layer.size, 0) for layer in image.layers if uses[layer.chain_id] > 1
        )
    if version < (1, 44):
        row["VirtualSize"] = image.size
    if version < (1, 43):
        # An image without names had these two.
        row["RepoTags"] = row["RepoTags"] or ["<none>:<none>"]
        row["RepoDigests"] = row["RepoDigests"] or ["<none>@<none>"]
    return row


def layers_size(images: Iterable[Image]) -> int:
    """Bytes of all layers, each counted once."""
    sizes = {layer.chain_id: max(layer.size, 0) for image in images for layer in image.layers}
    return sum(sizes.values())


def inspect(image: Image, *, storage: str, version: Version) -> dict[str, Any]:
    """``GET /images/X/json``; ``storage`` is the filesystem backend's name."""
    config = image.config
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "Created": image.created or "0001-01-01T00:00:00Z",
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": _config(config.config, version),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {"Name": storage, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": image.last_tagged or "0001-01-01T00:00:00Z"},
    }
    if config.variant:
        shown["Variant"] = config.variant
    if version < (1, 45):
        shown["Container"] = config.container
        shown["ContainerConfig"] = _config(config.container_config, version)
    if version < (1, 44):
        shown["VirtualSize"] = image.size
    return shown


def _config(config: dict[str, Any] | None, version: Version) -> dict[str, Any]:
    shown = config_json(convert(config, ContainerConfig), version)
    for name in ("Env", "Labels"):
        # Docker's null, where a container has an empty list.
        shown[name] = shown[name] or None
    if version < (1, 50):
        return shown
    return {name: value for name, value in shown.items() if name in _IMAGE_MEMBERS}


def history_line(line: HistoryLine) -> dict[str, Any]:
    """A row of ``GET /images/X/history``."""
    return {
        "Id": line.id,
        "Created": seconds_of(line.created),
        "CreatedBy": line.created_by,
        "Tags": list(line.tags),
        "Size": line.size,
        "Comment": line.comment,
    }


def deletions(lines: Sequence[Deleted]) -> list[dict[str, str]]:
    """What ``DELETE /images/X`` and prune have done."""
    return [
        {"Untagged": line.untagged} if line.untagged else {"Deleted": line.deleted}
        for line in lines
    ]
