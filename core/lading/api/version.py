"""Versions of the Docker Engine API."""

from __future__ import annotations

from lading.http.messages import Request

Version = tuple[int, int]

#: The range that is answered; what is older than 1.24 in the form of its time where that is cheap.
MINIMUM: Version = (1, 11)
MAXIMUM: Version = (1, 51)


def spelled(version: Version) -> str:
    """``1.51``."""
    return f"{version[0]}.{version[1]}"


def version_of(request: Request) -> Version:
    """The API version that the client speaks."""
    version: Version = request.state.get("version", MAXIMUM)
    return version
