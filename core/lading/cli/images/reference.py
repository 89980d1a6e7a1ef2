"""Names of images as users write them, as far as a client must understand them."""

from __future__ import annotations

import re

from lading.cli.errors import Failure

DEFAULT_DOMAIN = "docker.io"
INDEX_KEY = "https://index.docker.io/v1/"
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"\w[\w.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class ImageName:
    """A name in its parts: ``domain``, ``path``, ``tag`` and ``digest`` (empty if not given)."""

    def __init__(self, domain: str, path: str, tag: str, digest: str) -> None:
        self.domain, self.path, self.tag, self.digest = domain, path, tag, digest

    @property
    def familiar(self) -> str:
        """The name without tag as users see it: no default domain, no ``library/``."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar_full(self) -> str:
        """The same with tag and digest, the tag ``latest`` when neither is given."""
        tag = self.tag or ("" if self.digest else "latest")
        return (
            self.familiar + (f":{tag}" if tag else "") + (f"@{self.digest}" if self.digest else "")
        )

    @property
    def registry(self) -> str:
        """The key of the registry's credentials."""
        return INDEX_KEY if self.domain == DEFAULT_DOMAIN else self.domain


def parse(text: str) -> ImageName:
    """The parts of a name; raises Failure."""
    if _IDENTIFIER.fullmatch(text):
        raise Failure(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    domain, slash, path = head.partition("/")
    if not slash or not (
        "." in domain or ":" in domain or domain == "localhost" or domain.lower() != domain
    ):
        domain, path = DEFAULT_DOMAIN, head
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    empty_tag = rest.endswith(":")
    bad_tag = empty_tag or (tag != "" and not _TAG.fullmatch(tag))
    if bad_tag or (at and not _DIGEST.fullmatch(digest)):
        raise Failure(f"invalid reference format: {text!r}")
    if not _PATH.fullmatch(path):
        if path.lower() != path and _PATH.fullmatch(path.lower()):
            raise Failure(f"invalid reference format: repository name ({path}) must be lowercase")
        raise Failure(f"invalid reference format: {text!r}")
    return ImageName(domain, path, tag, digest)
