"""Names of images, as Docker takes them apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import Invalid
from lading.model import platforms, reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "domain", "path", "tag", "digest", "familiar"),
    [
        ("busybox", "docker.io", "library/busybox", "", "", "busybox"),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", "", "busybox:1.36"),
        ("library/busybox", "docker.io", "library/busybox", "", "", "busybox"),
        ("docker.io/busybox", "docker.io", "library/busybox", "", "", "busybox"),
        ("index.docker.io/a/b", "docker.io", "a/b", "", "", "a/b"),
        ("a/b:c", "docker.io", "a/b", "c", "", "a/b:c"),
        ("a/b/c", "docker.io", "a/b/c", "", "", "a/b/c"),
        ("localhost/a", "localhost", "a", "", "", "localhost/a"),
        ("host:5000/a", "host:5000", "a", "", "", "host:5000/a"),
        ("host:5000/a:t", "host:5000", "a", "t", "", "host:5000/a:t"),
        ("h.example/library/a", "h.example", "library/a", "", "", "h.example/library/a"),
        ("[::1]:5000/a", "[::1]:5000", "a", "", "", "[::1]:5000/a"),
        ("HOST/a", "HOST", "a", "", "", "HOST/a"),
        (f"a@{DIGEST}", "docker.io", "library/a", "", DIGEST, f"a@{DIGEST}"),
        (f"h:1/a:t@{DIGEST}", "h:1", "a", "t", DIGEST, f"h:1/a:t@{DIGEST}"),
        ("a__b/c-d.e", "docker.io", "a__b/c-d.e", "", "", "a__b/c-d.e"),
        ("a---b", "docker.io", "library/a---b", "", "", "a---b"),
    ],
)
def test_parts(text: str, domain: str, path: str, tag: str, digest: str, familiar: str) -> None:
    found = reference.parse(text)
    assert (found.domain, found.path, found.tag, found.digest) == (domain, path, tag, digest)
    assert str(found) == familiar
    assert reference.parse(found.canonical) == found
    assert reference.unfamiliar(found.canonical) == found


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", "A", "a/B", "a//b", "/a", "a/", "-a", "a-", "a___b", "a..b", "a:-t",
        "a:" + "t" * 129, "a@", "a@sha256:abc", "a b", "a:t:t", "http://a/b", "ab" * 32, "é",
        "h:x/a", "a@b@c", "a" * 256, "../a", "a/../b", "a:t/b:",
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(Invalid):
        reference.parse(text)


def test_changes() -> None:
    named = reference.parse("a")
    assert str(named.with_default_tag()) == "a:latest"
    assert str(reference.parse("a:t").with_default_tag()) == "a:t"
    assert str(reference.parse(f"a@{DIGEST}").with_default_tag()) == f"a@{DIGEST}"
    assert str(named.with_tag("x").with_digest(DIGEST)) == f"a@{DIGEST}"
    with pytest.raises(Invalid):
        named.with_tag("-x")


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = reference.parse(text)
    except Invalid:
        return
    assert reference.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "system", "architecture", "variant"),
    [
        ("", "linux", platforms.architecture(), ""),
        ("linux", "linux", platforms.architecture(), ""),
        ("arm64", "linux", "arm64", ""),
        ("aarch64", "linux", "arm64", ""),
        ("linux/arm/v7", "linux", "arm", "v7"),
        ("Linux/x86_64", "linux", "amd64", ""),
    ],
)
def test_platforms(text: str, system: str, architecture: str, variant: str) -> None:
    assert platforms.parse(text) == platforms.Wanted(system, architecture, variant)


@pytest.mark.parametrize("text", ["/", "linux/", "a/b/c/d", "linux//v7"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(Invalid):
        platforms.parse(text)


def test_variants() -> None:
    assert platforms.parse("linux/arm").accepts("linux", "arm", "v7")
    assert platforms.parse("linux/arm/v7").accepts("linux", "arm", "v7")
    assert platforms.parse("linux/arm/v7").accepts("linux", "arm", "")
    assert not platforms.parse("linux/arm/v7").accepts("linux", "arm", "v6")
