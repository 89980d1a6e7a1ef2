"""Which registry a name means, how it is reached, and which transport serves it."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from lading.backends import Backends, Loaded
from lading.config import Registry as RegistrySettings
from lading.config import Settings
from lading.errors import Denied, LadingError, Unavailable
from lading.hooks.registry import Credentials, Registry, Remote
from lading.model.reference import DEFAULT_DOMAIN, Reference

#: Where images of the default domain are; its name is not its registry's.
DEFAULT_HOST = "registry-1.docker.io"

#: How long the answer to a ping holds, in seconds.
REMEMBER_SECONDS = 300.0


class Remotes:
    """Chooses by the configuration; a ping decides where that says nothing."""

    def __init__(self, registries: Backends[Registry], settings: Settings) -> None:
        self._registries, self._settings = registries, settings
        self._chosen: dict[str, tuple[str, float]] = {}

    def candidates(self, reference: Reference, credentials: Credentials | None) -> list[Remote]:
        """The ways to an image, mirrors first. Raises Denied for a blocked registry."""
        own = self._own(reference.domain)
        if own.blocked:
            raise Denied(
                f'registry "{reference.domain}" is blocked',
                hint=f'registry."{reference.domain}".blocked in the configuration says so',
            )
        host = DEFAULT_HOST if reference.domain == DEFAULT_DOMAIN else reference.domain
        mirrors = list(own.mirrors)
        if reference.domain == DEFAULT_DOMAIN:
            mirrors += self._settings.registry_mirrors
        operation = uuid4().hex
        found = [self._mirror(url, reference.path, operation) for url in mirrors]
        found.append(
            Remote(
                host,
                reference.path,
                self._insecure(reference.domain),
                self._certificates(host),
                credentials,
                operation,
                self._settings.registry_timeout,
            )
        )
        return found

    def only(self, reference: Reference, credentials: Credentials | None) -> Remote:
        """The registry itself, without its mirrors: for push, login and search."""
        return self.candidates(reference, credentials)[-1]

    def transport(self, remote: Remote) -> Loaded[Registry]:
        """The backend that serves a remote. Raises Unavailable when none does."""
        if name := self._own(remote.host).transport:
            return self._registries.get(name)
        name, until = self._chosen.get(remote.host, ("", 0.0))
        if name and until > time.monotonic():
            return self._registries.get(name)
        reasons = []
        # The newest protocol first: names sort by version.
        for backend in sorted(self._registries.usable(), key=lambda b: b.name, reverse=True):
            try:
                if backend.hook.ping(remote=replace(remote, operation="")):
                    self._chosen[remote.host] = (backend.name, time.monotonic() + REMEMBER_SECONDS)
                    return backend
            except LadingError as error:
                reasons.append(error.message)
        said = f'registry "{remote.host}": no registry transport is installed'
        raise Unavailable(reasons[0] if reasons else said)

    def _own(self, host: str) -> RegistrySettings:
        domain = DEFAULT_DOMAIN if host == DEFAULT_HOST else host
        return self._settings.registry.get(domain, RegistrySettings())

    def _mirror(self, url: str, path: str, operation: str) -> Remote:
        scheme, separator, rest = url.partition("://")
        host = (rest if separator else url).strip("/")
        insecure = scheme == "http" or self._insecure(host)
        timeout = self._settings.registry_timeout
        return Remote(host, path, insecure, self._certificates(host), None, operation, timeout)

    def _certificates(self, host: str) -> str:
        for top in self._settings.registry_certificates:
            if (Path(top) / host).is_dir():
                return str(Path(top) / host)
        return ""

    def _insecure(self, host: str) -> bool:
        own = self._own(host).insecure
        if own is not None:
            return own
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name == "localhost" or host in self._settings.insecure_registries:
            return True
        return _in_ranges(name, ["127.0.0.0/8", "::1/128", *self._settings.insecure_registries])


def _in_ranges(name: str, ranges: Sequence[str]) -> bool:
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    for text in ranges:
        try:
            if "/" in text and address in ipaddress.ip_network(text, strict=False):
                return True
        except ValueError:
            continue
    return False
