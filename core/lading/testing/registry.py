"""The conformance kit of the registry role: a transport that passes it keeps the contract.

A transport's whole conformance file::

    import pytest
    from lading.hooks.registry import Remote
    from lading.testing.registry import Factory, RegistryConformance
    from my_transport import MyTransport

    class TestMyTransport(RegistryConformance):
        @pytest.fixture
        def factory(self) -> Factory:
            return MyTransport

        @pytest.fixture
        def remote(self) -> Remote:
            return Remote("127.0.0.1:5000", "kit/empty", insecure=True)   # nothing is there yet

Each test holds one rule, which its docstring states and a failure repeats. What a transport does
not declare as a capability is skipped. ``remote`` is an empty repository for each test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lading.errors import LadingError, NotFound, Unavailable, Unsupported
from lading.hooks.common import Context
from lading.hooks.registry import (
    OutgoingImage,
    OutgoingLayer,
    PushedLayer,
    Registry,
    Remote,
    RemoteImage,
    RemoteLayer,
    Stream,
)
from lading.model import oci
from lading.testing.images import made_image, unpacked

Factory = Callable[[Context], Any]

#: A port of the loopback interface on which nobody can listen.
NOBODY = "127.0.0.1:1"


@dataclass(frozen=True)
class Case:
    """One test's transport and its empty repository."""

    backend: Registry
    remote: Remote
    rule: str

    def expect(self, expected: object, got: object) -> None:
        """Fail with both values and the rule when they differ."""
        assert expected == got, f"expected {expected!r}, got {got!r}; rule: {self.rule}"

    def refused(self, kind: type[Exception], call: Callable[[], object]) -> None:
        """Fail with the rule unless the call raises an error of this kind."""
        try:
            got = call()
        except kind:
            return
        except Exception as error:
            raise AssertionError(
                f"expected {kind.__name__}, got {error!r}; rule: {self.rule}"
            ) from error
        raise AssertionError(f"expected {kind.__name__}, got {got!r}; rule: {self.rule}")

    def can(self, capability: str) -> None:
        """Skip unless the transport declares a capability."""
        if capability not in self.backend.capabilities:
            pytest.skip(f'the transport does not declare "{capability}"')

    def operation(self) -> Remote:
        """The repository, in a new operation."""
        return replace(self.remote, operation=uuid4().hex)

    def push(self, image: OutgoingImage, *tags: str) -> list[PushedLayer]:
        """Store an image as the engine does."""
        remote, image = self.operation(), replace(image, tags=tags)
        try:
            pushed = self.layers(remote, image)
            for tag in tags:
                self.backend.push_image(remote=remote, image=image, layers=pushed, tag=tag)
        finally:
            self.backend.close(remote=remote)
        return pushed

    def layers(self, remote: Remote, image: OutgoingImage) -> list[PushedLayer]:
        """Push the layers, side by side where the transport allows it."""

        def one(layer: OutgoingLayer) -> PushedLayer:
            return self.backend.push_layer(
                remote=remote, image=image, layer=layer, tell=lambda sent: None
            )

        if "ordered-push" in self.backend.capabilities:
            return [one(layer) for layer in image.layers]
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, image.layers))

    def pull(self, reference: str) -> tuple[RemoteImage, list[bytes]]:
        """Fetch an image with the content of its layers."""
        remote = self.operation()
        try:
            found = self.backend.resolve(remote=remote, reference=reference, platform="")
            return found, [self.blob(remote, layer) for layer in found.layers]
        finally:
            self.backend.close(remote=remote)

    def blob(self, remote: Remote, layer: RemoteLayer, offset: int = 0) -> bytes:
        """The content of a layer from an offset on."""
        return everything(self.backend.open_blob(remote=remote, layer=layer, offset=offset))


def everything(stream: Stream) -> bytes:
    """Read a stream to its end and close it."""
    parts = []
    while part := stream.read(1 << 16):
        parts.append(part)
    stream.close()
    return b"".join(parts)


class RegistryConformance:
    """All rules of ``lading.hooks.registry``."""

    #: Options of the transport's table in the configuration.
    options: Mapping[str, Any] = {}

    @pytest.fixture
    def factory(self) -> Factory:
        """The maker of the transport: what a subclass must give."""
        raise NotImplementedError("give a fixture `factory` that returns the transport's class")

    @pytest.fixture
    def remote(self) -> Remote:
        """An empty repository: what a subclass must give."""
        raise NotImplementedError("give a fixture `remote` that returns an empty repository")

    @pytest.fixture
    def case(
        self, factory: Factory, remote: Remote, tmp_path: Path, request: pytest.FixtureRequest
    ) -> Case:
        """The test's own transport, and the rule that the test's docstring states."""
        for name in ("data", "run"):
            (tmp_path / name).mkdir(mode=0o700)
        context = Context("conformance", tmp_path / "data", tmp_path / "run", self.options)
        backend = factory(context)
        probe = backend.probe()
        if not probe.usable:
            pytest.skip(f"{probe.reason} ({probe.remedy})")
        return Case(backend, remote, " ".join((request.function.__doc__ or "").split()))

    # -- reaching it

    def test_ping_knows_its_registry(self, case: Case) -> None:
        """ping: tell whether the host speaks this protocol."""
        case.expect(True, case.backend.ping(remote=case.remote))

    def test_ping_of_nobody_is_unavailable(self, case: Case) -> None:
        """ping: raises Unavailable when nobody answers."""
        nobody = replace(case.remote, host=NOBODY)
        case.refused(Unavailable, lambda: case.backend.ping(remote=nobody))

    def test_close_may_be_repeated(self, case: Case) -> None:
        """close: forget what was kept for the remote's operation; never raises."""
        remote = case.operation()
        for _ in range(2):
            case.backend.close(remote=remote)

    # -- there and back

    def test_what_was_pushed_comes_back(self, case: Case) -> None:
        """resolve: config and layers of the image that was pushed."""
        image = made_image([{"a": b"one"}, {"b": b"two", "c": b"three"}])
        case.push(image, "t")
        found, contents = case.pull("t")
        case.expect(image.config, found.config)
        case.expect([{"a": b"one"}, {"b": b"two", "c": b"three"}], [unpacked(c) for c in contents])

    def test_history_without_layers_comes_back(self, case: Case) -> None:
        """resolve: the config is the one that was pushed, lines without a layer included."""
        image = made_image([{"a": b"one"}], empty_lines=3)
        case.push(image, "t")
        case.expect(image.config, case.pull("t")[0].config)

    def test_image_without_layers(self, case: Case) -> None:
        """push_image: store the image, all its layers being there; there may be none."""
        image = made_image([], empty_lines=1)
        case.push(image, "t")
        found, contents = case.pull("t")
        case.expect((image.config, []), (found.config, contents))

    def test_layers_are_described_as_they_are(self, case: Case) -> None:
        """RemoteLayer: digest ("" or that of the content) and size (-1 or that of the content)."""
        case.push(made_image([{"a": bytes(5000)}]), "t")
        found, (content,) = case.pull("t")
        (layer,) = found.layers
        assert layer.digest in ("", oci.digest_of(content)), case.rule
        assert layer.size in (-1, len(content)), case.rule

    def test_layer_of_unknown_digest(self, case: Case) -> None:
        """OutgoingLayer: digest and size are known when its stream is at the end."""
        image = made_image([{"a": b"x" * 100_000}], announced=False)
        (pushed,) = case.push(image, "t")
        case.expect(image.layers[0].sent(), (pushed.digest, pushed.size))
        case.expect([{"a": b"x" * 100_000}], [unpacked(c) for c in case.pull("t")[1]])

    def test_large_layer(self, case: Case) -> None:
        """push_layer and open_blob: content of any size, in pieces."""
        files = {f"f{n}": bytes([n]) * 700_000 for n in range(8)}
        case.push(made_image([files], compressed=False), "t")
        case.expect([files], [unpacked(content) for content in case.pull("t")[1]])

    def test_progress_is_told(self, case: Case) -> None:
        """push_layer: tell gets the bytes sent so far."""
        image, remote = made_image([{"a": bytes(3 << 20)}], compressed=False), case.operation()
        told: list[int] = []
        case.backend.push_layer(remote=remote, image=image, layer=image.layers[0], tell=told.append)
        case.backend.close(remote=remote)
        case.expect(sorted(told), told)
        case.expect(image.layers[0].size, told[-1] if told else None)

    def test_layer_that_is_there_is_not_sent_again(self, case: Case) -> None:
        """push_layer: store a layer unless it is there already."""
        image = made_image([{"a": b"one"}])
        case.push(image, "t")
        (pushed,) = case.push(image, "u")
        case.expect("exists", pushed.state)

    def test_images_share_their_base(self, case: Case) -> None:
        """push_layer: a layer that another image of the repository has is there."""
        case.push(made_image([{"a": b"base"}, {"b": b"one"}]), "one")
        states = [p.state for p in case.push(made_image([{"a": b"base"}, {"b": b"two"}]), "two")]
        case.expect(["exists", "pushed"], states)
        case.expect([{"a": b"base"}, {"b": b"two"}], [unpacked(c) for c in case.pull("two")[1]])

    # -- parts

    def test_the_rest_from_an_offset(self, case: Case) -> None:
        """open_blob: from byte offset on; Unsupported when the registry cannot do it."""
        case.push(made_image([{"a": bytes(range(256)) * 40}], compressed=False), "t")
        remote = case.operation()
        found = case.backend.resolve(remote=remote, reference="t", platform="")
        (layer,) = found.layers
        stream = case.backend.open_blob(remote=remote, layer=layer, offset=0)
        begun = stream.read(1000)
        stream.close()
        try:
            rest = case.blob(remote, layer, len(begun))
        except Unsupported:
            rest = case.blob(remote, layer)[len(begun) :]
        case.backend.close(remote=remote)
        case.expect({"a": bytes(range(256)) * 40}, unpacked(begun + rest))

    # -- names

    def test_tags_are_listed(self, case: Case) -> None:
        """tags: yield the tags of the repository."""
        case.push(made_image([{"a": b"one"}]), "v1", "latest")
        case.push(made_image([{"a": b"two"}]), "v2")
        case.expect(["latest", "v1", "v2"], sorted(case.backend.tags(remote=case.operation())))

    def test_tag_moves(self, case: Case) -> None:
        """push_image: store the image under a tag, from which another one is taken."""
        case.push(made_image([{"a": b"one"}]), "t")
        second = made_image([{"a": b"two"}])
        case.push(second, "t")
        case.expect(second.config, case.pull("t")[0].config)

    def test_unknown_tag(self, case: Case) -> None:
        """resolve: raises NotFound for the reference."""
        case.push(made_image([{"a": b"one"}]), "t")
        case.refused(NotFound, lambda: case.pull("other"))

    def test_unknown_repository(self, case: Case) -> None:
        """resolve, tags: raise NotFound for the repository."""
        case.refused(NotFound, lambda: case.pull("t"))
        case.refused(NotFound, lambda: list(case.backend.tags(remote=case.operation())))

    # -- optional powers

    def test_digest_names_the_image(self, case: Case) -> None:
        """digests: images have digests that resolve and manifest understand."""
        case.can("digests")
        image = made_image([{"a": b"one"}])
        case.push(image, "t")
        digest = case.pull("t")[0].digest
        found, _ = case.pull(digest)
        case.expect((digest, image.config), (found.digest, found.config))
        manifest = case.backend.manifest(remote=case.operation(), reference=digest)
        case.expect((digest, digest), (manifest.digest, oci.digest_of(manifest.content)))

    def test_unknown_digest(self, case: Case) -> None:
        """digests: raises NotFound for the reference."""
        case.can("digests")
        case.push(made_image([{"a": b"one"}]), "t")
        case.refused(NotFound, lambda: case.pull(oci.digest_of(b"nothing of the kind")))

    def test_reference_without_meaning(self, case: Case) -> None:
        """manifest: raises NotFound, or Unsupported where there are no digests."""
        expected = NotFound if "digests" in case.backend.capabilities else Unsupported
        case.push(made_image([{"a": b"one"}]), "t")
        digest = oci.digest_of(b"nothing of the kind")
        case.refused(
            expected,
            lambda: case.backend.manifest(remote=case.operation(), reference=digest),
        )

    def test_deleted_tag_is_gone(self, case: Case) -> None:
        """delete: remove a tag or manifest. Raises NotFound."""
        case.can("delete")
        case.push(made_image([{"a": b"one"}]), "gone")
        case.push(made_image([{"a": b"two"}]), "stays")
        remote = case.operation()
        case.backend.delete(remote=remote, reference="gone")
        case.backend.close(remote=remote)
        case.refused(NotFound, lambda: case.pull("gone"))
        case.expect(1, len(case.pull("stays")[1]))
        case.refused(
            NotFound, lambda: case.backend.delete(remote=case.operation(), reference="gone")
        )

    def test_search_finds_the_repository(self, case: Case) -> None:
        """search: find repositories."""
        case.can("search")
        case.push(made_image([{"a": b"one"}]), "t")
        term = case.remote.repository.rpartition("/")[2]
        rows = case.backend.search(
            remote=replace(case.operation(), repository=""), term=term, limit=10
        )
        assert any(row.name.endswith(term) for row in rows), f"{rows}; rule: {case.rule}"

    def test_search_keeps_to_its_limit(self, case: Case) -> None:
        """search: at most limit rows."""
        case.can("search")
        for number in range(3):
            name = f"{case.remote.repository}-{number}"
            Case(case.backend, replace(case.remote, repository=name), case.rule).push(
                made_image([{"a": b"one"}]), "t"
            )
        term = case.remote.repository.rpartition("/")[2]
        remote = replace(case.operation(), repository="")
        case.expect(2, len(case.backend.search(remote=remote, term=term, limit=2)))

    # -- at the same time

    def test_many_at_once(self, case: Case) -> None:
        """All hooks may be called from many threads."""
        images = {f"t{n}": made_image([{"a": b"base"}, {"b": b"%d" % n}]) for n in range(6)}
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda row: case.push(row[1], row[0]), images.items()))
            found = dict(zip(images, pool.map(case.pull, images), strict=True))
        for tag, image in images.items():
            case.expect(image.config, found[tag][0].config)

    def test_errors_are_of_the_tree(self, case: Case) -> None:
        """Errors: NotFound, Unauthorized, Denied, Unavailable, Invalid, Unsupported."""
        nobody = replace(case.operation(), host=NOBODY)
        case.refused(
            LadingError,
            lambda: case.backend.resolve(remote=nobody, reference="t", platform=""),
        )
