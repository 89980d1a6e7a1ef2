"""Which capabilities a container needs of its backends: what they lack is refused at ``create``.

The contracts' tables ``CAPABILITIES`` say what each means. Nothing of a container exists when it is
refused, whoever asks for it and by whatever option.
"""

from __future__ import annotations

from collections.abc import Iterator

from lading.containers import asked, modes, roots, security, spec
from lading.containers.parts import Parts
from lading.containers.records import Container


def check(parts: Parts, record: Container) -> None:
    """Raise Unavailable for what the chosen backends cannot do."""
    isolation = parts.isolations.get(record.isolation)
    for capability in of_isolation(parts, record):
        isolation.require(capability)
    if not roots.in_place(record):
        filesystem = parts.filesystems.get(record.filesystem)
        for capability in _of_filesystem(parts, record):
            filesystem.require(capability)


def of_isolation(parts: Parts, record: Container) -> Iterator[str]:
    """What ``config.json`` will ask of the isolation backend."""
    host = record.host_config
    mapped = bool(parts.id_maps(host)[0])
    if record.hooks:
        yield "hooks"
    if spec.wants_init(parts.defaults, host):
        yield "init"
    if mapped:
        yield "userns"
    # With a user namespace of its own a container makes its network namespace itself.
    if modes.joins_network(host) or not (mapped or host.network_mode == "host"):
        yield "netns-path"
    options = security.parse_options(host.security_opt)
    if spec.wants_seccomp(parts.defaults, host, options):
        yield "seccomp"
    if not host.privileged:
        yield "devices"


def _of_filesystem(parts: Parts, record: Container) -> Iterator[str]:
    """What the root asks of the filesystem backend, beside storage options."""
    if record.rootfs_mode == asked.OVERLAID:
        yield "base-directory"
    if parts.id_maps(record.host_config)[0]:
        yield "idmap"
