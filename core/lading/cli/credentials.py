"""Credentials of registries: in ``config.json``, or with a helper program.

A helper is ``docker-credential-NAME`` with one of the verbs ``get``, ``store``, ``erase``, ``list``
as its argument and JSON on its streams.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from lading.cli.errors import Failure
from lading.cli.settings import Settings

TOKEN_USER = "<token>"


class Credentials:
    """The store that a client's settings choose for each registry."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get(self, registry: str) -> dict[str, str]:
        """An AuthConfig; empty when the registry is not known."""
        helper = self._helper(registry)
        if helper:
            return self._from_helper(helper, registry)
        auths = self._settings.table("auths")
        entry = auths.get(registry)
        if entry is None:
            bare = host_of(registry)
            entry = next((auths[key] for key in auths if host_of(key) == bare), None)
        return _decoded(entry, registry) if isinstance(entry, dict) else {}

    def all(self) -> dict[str, dict[str, str]]:
        """Every AuthConfig that is stored, by registry."""
        found = {key: self.get(key) for key in self._settings.table("auths")}
        store = self._settings.text("credsStore")
        if store:
            for registry in json.loads(run_helper(store, "list", "") or "{}"):
                found[registry] = self._from_helper(store, registry)
        for registry in self._settings.table("credHelpers"):
            found[registry] = self.get(registry)
        return {registry: auth for registry, auth in found.items() if auth}

    def store(self, registry: str, auth: dict[str, str]) -> str:
        """Keep credentials; returns the helper's name, "" when they are in the file."""
        helper = self._helper(registry)
        auths = self._settings.values.setdefault("auths", {})
        if helper:
            token = auth.get("identitytoken")
            request = {
                "ServerURL": registry,
                "Username": TOKEN_USER if token else auth.get("username", ""),
                "Secret": token or auth.get("password", ""),
            }
            run_helper(helper, "store", json.dumps(request))
            auths[registry] = {}
        else:
            auths[registry] = _encoded(auth)
        self._settings.save()
        return helper

    def erase(self, registry: str) -> bool:
        """Forget credentials; whether there were any."""
        auths = self._settings.values.setdefault("auths", {})
        bare = host_of(registry)
        keys = [key for key in auths if key == registry or host_of(key) == bare]
        helper = self._helper(registry)
        if helper:
            run_helper(helper, "erase", registry)
        for key in keys:
            del auths[key]
        if keys:
            self._settings.save()
        return bool(keys)

    def _helper(self, registry: str) -> str:
        own = self._settings.table("credHelpers").get(host_of(registry))
        return str(own) if own else self._settings.text("credsStore")

    def _from_helper(self, helper: str, registry: str) -> dict[str, str]:
        answer = run_helper(helper, "get", registry, missing_is_empty=True)
        if not answer:
            return {}
        found = json.loads(answer)
        user, secret = found.get("Username", ""), found.get("Secret", "")
        if user == TOKEN_USER:
            return {"identitytoken": secret, "serveraddress": registry}
        return {"username": user, "password": secret, "serveraddress": registry}


def host_of(registry: str) -> str:
    """The host (and port) of a registry's address."""
    return (
        registry.partition("://")[2].partition("/")[0]
        if "://" in registry
        else (registry.partition("/")[0])
    )


def _decoded(entry: dict[str, Any], registry: str) -> dict[str, str]:
    auth: dict[str, str] = {"serveraddress": registry}
    for name in ("username", "password", "email", "identitytoken", "registrytoken"):
        if entry.get(name):
            auth[name] = str(entry[name])
    if entry.get("auth"):
        try:
            text = base64.b64decode(entry["auth"]).decode()
        except ValueError as error:
            raise Failure(f'credentials of "{registry}": cannot decode "auth"') from error
        user, colon, password = text.partition(":")
        if not colon:
            raise Failure(f'credentials of "{registry}": "auth" has no colon')
        auth |= {"username": user, "password": password.rstrip("\0")}
    return auth if len(auth) > 1 else {}


def _encoded(auth: dict[str, str]) -> dict[str, str]:
    pair = f"{auth.get('username', '')}:{auth.get('password', '')}"
    entry = {"auth": base64.b64encode(pair.encode()).decode()}
    for name in ("email", "identitytoken"):
        if auth.get(name):
            entry[name] = auth[name]
    return entry


def run_helper(helper: str, verb: str, text: str, *, missing_is_empty: bool = False) -> str:
    """Call a credential helper; its standard output. Raises Failure."""
    import subprocess  # late: most users have no helper

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], check=False, input=text, capture_output=True, text=True
        )
    except OSError as error:
        raise Failure(f'credential helper "{program}": {error.strerror}') from error
    said = done.stdout.strip()
    if done.returncode == 0:
        return said
    if missing_is_empty and "credentials not found" in said.lower():
        return ""
    raise Failure(f'credential helper "{program}" {verb}: {said or done.stderr.strip()}')


def header(auth: dict[str, Any]) -> str:
    """``X-Registry-Auth`` and ``X-Registry-Config``: URL-safe base64 of JSON."""
    return base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()
