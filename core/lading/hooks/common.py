"""What all roles share: the markers, a backend's identity, the answer of ``probe``, mounts.

A backend is one object, made by the callable that its entry point names (group
``lading.<role>``, name = the short name users write). The loader calls it with a
:class:`Context`; the constructor must be cheap and must not fail for what the host lacks:
that is what ``probe`` reports. The object carries ``spec_version`` and ``capabilities`` as
class attributes, and implements every hook of its role's Protocol, plus those of each
capability's Protocol that it declares, with the ``hookimpl`` marker and the exact parameter
names. All calls are by keyword.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

PROJECT = "lading"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Context:
    """What a backend is made from.

    ``name`` is the short name; ``data`` a directory that is the backend's own and persists
    (mode 0700, made before the call); ``run`` likewise but emptied at boot (tmpfs);
    ``options`` the backend's table in the config, values as TOML gives them.
    """

    name: str
    data: Path
    run: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend can work on this host.

    ``reason`` says in one sentence why not (empty when usable), ``remedy`` what would mend
    it. ``version`` is that of the mechanism (kernel feature, library, binary). ``details``
    are rows for ``lading info``. ``warnings`` are limits that do not make it unusable.
    """

    usable: bool
    reason: str = ""
    remedy: str = ""
    version: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount to be made, as OCI runtime-spec "mounts" has it.

    ``type`` is the kernel's filesystem name, or ``bind``. ``source`` is a host path, or a
    name for filesystems without a source. ``options`` are those of mount(8): flags
    (``ro``, ``nosuid``, ``rbind``, ``rprivate`` ...) and data options mixed, in order.
    ``target`` is relative to where the receiver puts the whole recipe; empty for the root.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()
    target: str = ""
