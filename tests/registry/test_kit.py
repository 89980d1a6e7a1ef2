"""The conformance kit itself: a plain directory passes, transports that break a rule are caught."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lading.errors import Invalid, NotFound, Unavailable
from lading.hooks import Context, Probe, hookimpl
from lading.hooks.registry import (
    OutgoingImage,
    OutgoingLayer,
    PushedLayer,
    Remote,
    RemoteImage,
    RemoteLayer,
    RemoteManifest,
    SearchResult,
    Stream,
)
from lading.model import oci
from lading.testing.registry import Case, Factory, RegistryConformance


class Directory:
    """A transport to a plain directory: ``blobs/<digest>`` and ``names/<repository>/<tag>``.

    The reference backend of the kit. ``host`` is a path here.
    """

    spec_version: ClassVar[int] = 1
    capabilities: ClassVar[frozenset[str]] = frozenset({"search", "delete", "digests"})

    def __init__(self, context: Context) -> None:
        """Nothing is kept."""

    @hookimpl
    def probe(self) -> Probe:
        return Probe(usable=True)

    @hookimpl
    def ping(self, remote: Remote) -> bool:
        if not Path(remote.host).is_dir():
            raise Unavailable(f'"{remote.host}" is no directory')
        return True

    @hookimpl
    def login(self, remote: Remote) -> str:
        return ""

    @hookimpl
    def manifest(self, remote: Remote, reference: str) -> RemoteManifest:
        name = self._names(remote) / reference
        digest = reference if ":" in reference else self._read(name).decode()
        return RemoteManifest(digest, oci.DOCKER_MANIFEST, self._read(self._blob(remote, digest)))

    @hookimpl
    def resolve(self, remote: Remote, reference: str, platform: str) -> RemoteImage:
        found = self.manifest(remote, reference)
        manifest = oci.decode_manifest(found.content)
        config = self._read(self._blob(remote, manifest.config.digest))
        layers = [RemoteLayer(row.digest, row.size, row.media_type) for row in manifest.layers]
        return RemoteImage(found.digest, config, layers, found)

    @hookimpl
    def open_blob(self, remote: Remote, layer: RemoteLayer, offset: int) -> Stream:
        return io.BytesIO(self._read(self._blob(remote, layer.digest))[offset:])

    @hookimpl
    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        if layer.digest and self._blob(remote, layer.digest).exists():
            return PushedLayer(layer.digest, layer.size, layer.media_type, "exists")
        content = b""
        stream = layer.open()
        while piece := stream.read(1 << 20):
            content += piece
            tell(len(content))
        stream.close()
        digest, size = layer.sent()
        self._write(self._blob(remote, digest), content)
        return PushedLayer(digest, size, layer.media_type, "pushed")

    @hookimpl
    def push_image(
        self, remote: Remote, image: OutgoingImage, layers: Sequence[PushedLayer], tag: str
    ) -> RemoteManifest:
        rows = [oci.Descriptor(la.media_type, la.digest, la.size) for la in layers]
        content = oci.docker_manifest(image.config, rows)
        for blob in (image.config, content):
            self._write(self._blob(remote, oci.digest_of(blob)), blob)
        self._write(self._names(remote) / tag, oci.digest_of(content).encode())
        return RemoteManifest(oci.digest_of(content), oci.DOCKER_MANIFEST, content)

    @hookimpl
    def tags(self, remote: Remote) -> Iterator[str]:
        try:
            yield from sorted(os.listdir(self._names(remote)))
        except FileNotFoundError as error:
            raise NotFound(f"no repository {remote.repository}") from error

    @hookimpl
    def search(self, remote: Remote, term: str, limit: int) -> Sequence[SearchResult]:
        rows = sorted(p.name.replace("%", "/") for p in (Path(remote.host) / "names").iterdir())
        return [SearchResult(name) for name in rows if term in name][:limit]

    @hookimpl
    def delete(self, remote: Remote, reference: str) -> None:
        try:
            (self._names(remote) / reference).unlink()
        except FileNotFoundError as error:
            raise NotFound(f"no tag {reference}") from error

    @hookimpl
    def close(self, remote: Remote) -> None:
        """Nothing to close."""

    def _names(self, remote: Remote) -> Path:
        return Path(remote.host) / "names" / remote.repository.replace("/", "%")

    def _blob(self, remote: Remote, digest: str) -> Path:
        return Path(remote.host) / "blobs" / digest

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no {path.name}") from error

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}.{id(content)}")
        aside.write_bytes(content)
        aside.rename(path)


class TestDirectory(RegistryConformance):
    @pytest.fixture
    def factory(self) -> Factory:
        return Directory

    @pytest.fixture
    def remote(self, tmp_path: Path) -> Remote:
        (tmp_path / "shelf").mkdir()
        return Remote(str(tmp_path / "shelf"), "kit/empty")


class RewritesConfigs(Directory):
    """Formats what it should pass on."""

    def push_image(
        self, remote: Remote, image: OutgoingImage, layers: Sequence[PushedLayer], tag: str
    ) -> RemoteManifest:
        config = json.dumps(json.loads(image.config), indent=1).encode()
        return super().push_image(remote, replace(image, config=config), layers, tag)


class ForgetsOffsets(Directory):
    def open_blob(self, remote: Remote, layer: RemoteLayer, offset: int) -> Stream:
        return super().open_blob(remote, layer, 0)


class SendsAgain(Directory):
    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        return super().push_layer(remote, image, replace(layer, digest=""), tell)


class TrustsAnnouncements(Directory):
    """Takes the digest before it is known."""

    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        done = super().push_layer(remote, image, layer, tell)
        return replace(done, digest=layer.digest, size=layer.size)


class OwnErrors(Directory):
    def resolve(self, remote: Remote, reference: str, platform: str) -> RemoteImage:
        try:
            return super().resolve(remote, reference, platform)
        except NotFound as error:
            raise KeyError(reference) from error


class LooseReferences(Directory):
    """Answers every question with the latest."""

    def manifest(self, remote: Remote, reference: str) -> RemoteManifest:
        try:
            return super().manifest(remote, reference)
        except NotFound:
            return super().manifest(remote, "t")


class WrongErrors(Directory):
    def delete(self, remote: Remote, reference: str) -> None:
        try:
            super().delete(remote, reference)
        except NotFound as error:
            raise Invalid(error.message) from error


class Boundless(Directory):
    def search(self, remote: Remote, term: str, limit: int) -> Sequence[SearchResult]:
        return super().search(remote, term, 1000)


class Silent(Directory):
    def push_layer(
        self,
        remote: Remote,
        image: OutgoingImage,
        layer: OutgoingLayer,
        tell: Callable[[int], None],
    ) -> PushedLayer:
        return super().push_layer(remote, image, layer, lambda sent: None)


class Optimist(Directory):
    def ping(self, remote: Remote) -> bool:
        return True


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (RewritesConfigs, "what_was_pushed_comes_back"),
        (RewritesConfigs, "history_without_layers_comes_back"),
        (ForgetsOffsets, "the_rest_from_an_offset"),
        (SendsAgain, "layer_that_is_there_is_not_sent_again"),
        (SendsAgain, "images_share_their_base"),
        (TrustsAnnouncements, "layer_of_unknown_digest"),
        (OwnErrors, "unknown_tag"),
        (OwnErrors, "unknown_repository"),
        (LooseReferences, "unknown_tag"),
        (LooseReferences, "reference_without_meaning"),
        (WrongErrors, "deleted_tag_is_gone"),
        (Boundless, "search_keeps_to_its_limit"),
        (Silent, "progress_is_told"),
        (Optimist, "ping_of_nobody_is_unavailable"),
    ],
)
def test_a_broken_transport_is_caught(broken: type[Directory], rule: str, tmp_path: Path) -> None:
    test: Any = getattr(RegistryConformance(), f"test_{rule}")
    (tmp_path / "shelf").mkdir()
    backend: Any = broken(Context("broken", tmp_path, tmp_path))
    case = Case(backend, Remote(str(tmp_path / "shelf"), "kit/empty"), "the rule")
    with pytest.raises(AssertionError, match=r"rule: the rule"):
        test(case)


def test_every_test_of_the_kit_states_its_rule() -> None:
    missing = [
        name
        for name in dir(RegistryConformance)
        if name.startswith("test_") and not getattr(RegistryConformance, name).__doc__
    ]
    assert missing == []
