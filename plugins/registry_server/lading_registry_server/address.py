"""How clients reach the server: by its own listener, or through a reverse proxy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from lading.errors import Invalid
from lading.http.messages import Request

_HOST = re.compile(r"[A-Za-z0-9.\-_\[\]:]{1,255}")


class Address:
    """Scheme and host as the client has them.

    ``url`` says them once for all. ``proxies`` are addresses or networks whose headers
    ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` are believed; from anybody else they mean
    nothing, since they would lead passwords elsewhere. Raises Invalid.
    """

    def __init__(self, scheme: str, *, url: str = "", proxies: Sequence[str] = ()) -> None:
        self._scheme = scheme
        self._fixed = _origin(url) if url else None
        try:
            self._proxies = [ipaddress.ip_network(text, strict=False) for text in proxies]
        except ValueError as error:
            raise Invalid(f"trusted proxy: {error}") from error

    def of(self, request: Request) -> tuple[str, str]:
        """Scheme and host for a request."""
        if self._fixed is not None:
            return self._fixed
        scheme, host = self._scheme, request.headers.get("host", "")
        if self._proxies and self._believed(request.peer.address):
            told = _last(request, "x-forwarded-proto").lower()
            scheme = told if told in ("http", "https") else scheme
            told = _last(request, "x-forwarded-host")
            host = told if _HOST.fullmatch(told) else host
        return scheme, host

    def host(self, request: Request) -> str:
        """The host alone."""
        return self.of(request)[1]

    def _believed(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._proxies)


def _last(request: Request, name: str) -> str:
    """What the nearest proxy has said; what comes before it may be the client's."""
    return request.headers.get(name, "").rpartition(",")[2].strip()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise Invalid(
            f'external URL "{url}"', hint="expected is a form such as https://registry.example"
        )
    return parts.scheme, parts.netloc
