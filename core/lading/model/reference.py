"""Names of images: Docker's reference grammar.

::

    reference  = name [":" tag] ["@" digest]
    name       = [domain "/"] path
    domain     = host [":" port]        has a dot or a port, or is "localhost", or has capitals
    path       = component ("/" component)*

The *canonical* form has domain and tag; the *familiar* one leaves out ``docker.io/`` and
``library/`` again. Source: the grammar in the comments of distribution/reference, as in Docker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lading.errors import Invalid

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"
LONGEST_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed name. ``tag`` and ``digest`` are "" where not given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: what a repository is known by."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as users write it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL)
        return short if "/" not in short else self.path

    @property
    def canonical(self) -> str:
        """The whole name with domain."""
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """The whole name as users write it."""
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """With ``latest`` when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """With another tag and no digest. Raises Invalid."""
        check_tag(tag)
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> Reference:
        """With that digest and no tag."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        return self.familiar


def parse(text: str) -> Reference:
    """Parse what a user wrote. Raises Invalid."""
    if _ID.fullmatch(text):
        raise Invalid(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise Invalid(f"invalid reference format: bad digest in {text!r}")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise Invalid("invalid reference format")
    domain, path = _split(name)
    if path != path.lower():
        raise Invalid(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise Invalid("invalid reference format")
    if len(path) > LONGEST_NAME:
        raise Invalid(f"repository name must not be more than {LONGEST_NAME} characters")
    return Reference(domain, path, tag, digest)


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL + path
    return domain, path


def check_tag(tag: str) -> None:
    """Raise Invalid for what is no tag."""
    if not _TAG.fullmatch(tag):
        raise Invalid(f'invalid tag "{tag}"', hint="letters, digits, _ . - and at most 128 of them")


def is_id(text: str) -> bool:
    """Whether it can be an image id or a prefix of one, with or without ``sha256:``."""
    return bool(re.fullmatch(r"(?:sha256:)?[0-9a-f]{1,64}", text))


def unfamiliar(canonical: str) -> Reference:
    """Parse a canonical name again, as the store keeps them."""
    rest, _, digest = canonical.partition("@")
    name, _, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "")
    domain, _, path = name.partition("/")
    return Reference(domain, path, tag, digest)
