"""The registry role: a transport that fetches images from, and stores them in, a registry.

Walk of a pull::

    resolve(remote, "latest", platform) ──▶ RemoteImage: config and layers
    open_blob(remote, layer, offset)    ──▶ a stream, for each layer that is not here
    close(remote)

Walk of a push::

    push_layer(remote, image, layer)    ──▶ where it is now, for each layer
    push_image(remote, image, layers, tag)                  for each tag
    close(remote)

Three kinds of places fit under this. A registry of today has manifests and takes layers in any
order. One of 2014 has a chain of documents instead: its transport presents that as config and
layers, declares ``ordered-push``, announces the push with the first layer, and sends what of the
chain has no layer in between. A plain directory needs no more than files
(``tests/registry/test_kit.py`` has one).

Glossary

``remote``     a :class:`Remote`: one repository of one registry, how to reach it, on whose
               behalf. Its ``operation`` is the same for all calls of one pull or push, so a
               transport can keep tokens, cookies and connections by it, until ``close``.
``reference``  a tag, or a digest ``sha256:<hex>``.
``layer``      a tar, mostly compressed, by its digest in that form. A transport of a protocol
               whose layers have no digests gives ``digest`` as "" and says in ``key`` what it
               needs to find it again; the core then hashes what it gets.

The core verifies digests and lengths of all layers that it fetches, resumes a broken stream by
calling ``open_blob`` again with an ``offset``, and decides about retries. A transport verifies what
it reads itself (manifests, configs), takes up uploads that broke, and repeats by itself what has no
effect: a request answered with 429 or 5xx before any content.

Errors: NotFound (repository, tag, blob), Unauthorized (credentials missing or wrong), Denied,
Unavailable (no answer, or not one of a registry), Invalid (an answer that breaks the protocol),
Unsupported. ``OSError`` from a stream's ``read`` means that it broke. All hooks may be called from
many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from lading.hooks.common import Probe, hookspec

SPEC_VERSION = 1


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks: a user with a password, or with an identity token instead."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository and the way to it.

    ``host`` is ``name[:port]``; ``repository`` the path without it. ``insecure`` allows plain HTTP
    and unverified TLS. ``certificates`` is a directory with ``*.crt`` (authorities) and pairs of
    ``*.cert`` and ``*.key`` (client's), or "". A peer that is silent for ``timeout`` seconds counts
    as dead.
    """

    host: str
    repository: str = ""
    insecure: bool = False
    certificates: str = ""
    credentials: Credentials | None = None
    operation: str = ""
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class RemoteLayer:
    """A layer that a registry has; ``size`` is -1 when unknown."""

    digest: str
    size: int
    media_type: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest or index as the registry has it."""

    digest: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image that a registry has, for one platform.

    ``config`` is an OCI image config. It may lack ``rootfs`` when the layers' digests are unknown:
    the core completes it. ``digest`` is what ``name@digest`` means, "" if the protocol has none.
    """

    digest: str
    config: bytes
    layers: Sequence[RemoteLayer]
    manifest: RemoteManifest | None = None


class Stream(Protocol):
    """Content being read; an iterator of it would hide where it broke."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, b"" at the end. Raises OSError when the connection breaks."""
        ...

    def close(self) -> None:
        """Let go of it, read to the end or not; a ``read`` of another thread ends then."""
        ...


@dataclass(frozen=True, slots=True)
class OutgoingLayer:
    """A layer to push.

    ``digest`` and ``size`` are "" and -1 for one that is compressed while it is sent: they are
    known when its stream is at the end, from ``sent()``. ``open`` may be called again, for a new
    attempt, and gives the same bytes. ``sources`` are other repositories of the same registry that
    may have it.
    """

    diff_id: str
    digest: str
    size: int
    media_type: str
    open: Callable[[], Stream]
    sent: Callable[[], tuple[str, int]]
    sources: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PushedLayer:
    """Where a layer is now; ``state`` is ``pushed``, ``exists`` or ``mounted``."""

    digest: str
    size: int
    media_type: str
    state: str


@dataclass(frozen=True, slots=True)
class OutgoingImage:
    """An image to push: its config, its layers base first, the manifest it was pulled with."""

    id: str
    config: bytes
    layers: Sequence[OutgoingLayer]
    tags: Sequence[str] = ()
    manifest: RemoteManifest | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One row of a search."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> SearchResult:
        """From a row of ``/v1/search``, where all but the name may be missing."""
        return cls(
            str(row.get("name", "")),
            str(row.get("description") or ""),
            int(row.get("star_count") or 0),
            bool(row.get("is_official")),
            bool(row.get("is_automated") or row.get("is_trusted")),
        )


class Registry(Protocol):
    """The hooks every registry transport has.

    Capabilities: ``ordered-push`` (layers must be pushed one by one, base first), ``search``,
    ``delete``, ``digests`` (images have digests that ``resolve`` understands).
    """

    spec_version: ClassVar[int]
    capabilities: ClassVar[frozenset[str]]

    @hookspec(firstresult=True)
    def probe(self) -> Probe:
        """Tell whether this transport works here; no network is touched."""
        ...

    @hookspec(firstresult=True)
    def ping(self, remote: Remote) -> bool:
        """Tell whether the host speaks this protocol. Raises Unavailable when nobody answers."""
        ...

    @hookspec(firstresult=True)
    def login(self, remote: Remote) -> str:
        """Check the credentials; returns an identity token or "". Raises Unauthorized."""
        ...

    @hookspec(firstresult=True)
    def manifest(self, remote: Remote, reference: str) -> RemoteManifest:
        """Fetch what a reference leads to, as it is. Raises NotFound, Unsupported."""
        ...

    @hookspec(firstresult=True)
    def resolve(self, remote: Remote, reference: str, platform: str) -> RemoteImage:
        """Fetch the image for a platform ``os/arch[/variant]`` ("" = this host's).

        Raises NotFound for the reference, or when there is none for the platform.
        """
        ...

    @hookspec(firstresult=True)
    def open_blob(self, remote: Remote, layer: RemoteLayer, offset: int) -> Stream:
        """Open a layer from byte ``offset`` on.

        Raises NotFound; Unsupported when ``offset`` is not 0 and the registry cannot do it.
        """
        ...

    @hookspec(firstresult=True)
    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        """Store a layer unless it is there already; ``tell`` gets the bytes sent so far."""
        ...

    @hookspec(firstresult=True)
    def push_image(
        self, remote: Remote, image: OutgoingImage, layers: Sequence[PushedLayer], tag: str
    ) -> RemoteManifest:
        """Store the image under a tag, all its layers being there. Raises Invalid, Denied."""
        ...

    @hookspec(firstresult=True)
    def tags(self, remote: Remote) -> Iterator[str]:
        """Yield the tags of the repository. Raises NotFound."""
        ...

    @hookspec(firstresult=True)
    def search(self, remote: Remote, term: str, limit: int) -> Sequence[SearchResult]:
        """Find repositories, the best first. Raises Unsupported."""
        ...

    @hookspec(firstresult=True)
    def delete(self, remote: Remote, reference: str) -> None:
        """Remove a tag or manifest. Raises NotFound, Unsupported."""
        ...

    @hookspec(firstresult=True)
    def close(self, remote: Remote) -> None:
        """Forget what was kept for the remote's operation; never raises."""
        ...


OPTIONAL: Mapping[str, type] = {}

#: What each capability promises.
CAPABILITIES: Mapping[str, str] = {
    "ordered-push": "layers must be pushed one by one, base first",
    "search": "repositories can be searched for",
    "delete": "tags and manifests can be removed",
    "digests": "images have digests by which they can be fetched",
}
