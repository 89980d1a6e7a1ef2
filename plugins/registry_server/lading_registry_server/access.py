"""Who asks, and what he may do.

Without a users file everybody may do everything. With one:

* a public repository may be pulled by everybody, a private one by its owner, those whom he has
  granted it, and admins;
* a user may push to his namespace ``NAME/...``, to what he owns or has been granted, and to a name
  that nobody has yet, unless it is in another user's namespace; the first pusher owns it;
* an admin may do everything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lading.http.messages import Request
from lading_registry_server import names
from lading_registry_server.repositories import Repositories, Repository
from lading_registry_server.tokens import REFRESH_LIFETIME, Tokens
from lading_registry_server.users import Users

PULL, PUSH, DELETE = "pull", "push", "delete"
#: What the protocols of 2014 call them.
LEGACY_ACTIONS = {"read": PULL, "write": PUSH, "delete": DELETE}

_LEGACY_TOKEN = re.compile(
    r'signature=(?P<signature>[^,"\s]+),\s*repository="?(?P<repository>[^",]+)"?,'
    r"\s*access=(?P<access>\w+)"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``granted``: what his token allows, when he came with one."""

    user: str = ""
    admin: bool = False
    granted: Mapping[str, list[str]] | None = None

    def token_allows(self, repository: str, action: str) -> bool:
        """Whether his token, if he has one, is for this."""
        return self.granted is None or action in self.granted.get(repository, ())


ANYBODY = Identity()


class BadCredentials(Exception):
    """The credentials that came with a request are wrong, or a token is no longer good."""


class Access:
    """Knows users, their tokens and their rights; thread safe. Names are stored ones."""

    def __init__(self, users: Users | None, tokens: Tokens, repositories: Repositories) -> None:
        self.users, self.tokens, self._repositories = users, tokens, repositories

    def identify(self, request: Request) -> Identity:
        """Who sent a request: by password, or by a token of either protocol.

        Raises BadCredentials.
        """
        scheme, _, value = request.headers.get("authorization", "").strip().partition(" ")
        if self.users is None or not scheme:
            return ANYBODY
        if scheme.lower() == "basic":
            return self.by_password(*basic(value))
        if scheme.lower() == "bearer":
            claims = self.tokens.read("access", value.strip())
            if claims is None:
                raise BadCredentials("the token is not good, or no longer")
            return self._known(claims.user, claims.access)
        if scheme.lower() == "token":
            return self._by_legacy_token(value)
        raise BadCredentials(f"the scheme {scheme} is not known here")

    def by_password(self, name: str, password: str) -> Identity:
        """Who that is. Raises BadCredentials."""
        # Clients of 2014 send an empty name and password when they have none.
        if not name and not password:
            return ANYBODY
        user = self.users.verify(name, password) if self.users is not None else None
        if user is None:
            raise BadCredentials("incorrect username or password")
        return Identity(user.name, user.admin)

    def by_refresh_token(self, token: str) -> Identity:
        """Who got that instead of sending his password again. Raises BadCredentials."""
        claims = self.tokens.read("refresh", token)
        if claims is None or not claims.user or claims.stamp != self._stamp(claims.user):
            raise BadCredentials("the refresh token is not good, or no longer")
        return self._known(claims.user, None)

    def refresh_token(self, identity: Identity) -> str:
        """What stands for a user's password until that is changed."""
        stamp = self._stamp(identity.user)
        return self.tokens.make("refresh", identity.user, lifetime=REFRESH_LIFETIME, stamp=stamp)

    def _stamp(self, name: str) -> str:
        """Changes with a user's password, and tells nothing of it."""
        user = self.users.get(name) if self.users is not None else None
        return hashlib.sha256(user.secret.encode()).hexdigest()[:32] if user else ""

    def _known(self, name: str, granted: Mapping[str, list[str]] | None) -> Identity:
        user = self.users.get(name) if self.users is not None and name else None
        if name and user is None:
            raise BadCredentials(f'user "{name}" is gone')
        return Identity(name, user.admin if user else False, granted)

    def _by_legacy_token(self, value: str) -> Identity:
        found = _LEGACY_TOKEN.search(value)
        claims = self.tokens.read("legacy", found["signature"]) if found else None
        if claims is None:
            raise BadCredentials("Requires authorization")
        return self._known(claims.user, claims.access)

    def legacy_token(self, identity: Identity, repository: str, access: str) -> str:
        """``signature=...,repository="...",access=...`` for calls that follow."""
        actions = [PULL, PUSH] if access == "write" else [LEGACY_ACTIONS[access]]
        signature = self.tokens.make("legacy", identity.user, {repository: actions}, 3600)
        return f'signature={signature},repository="{names.legacy(repository)}",access={access}'

    def may(self, identity: Identity, repository: str, action: str) -> bool:
        """Whether he may, leaving aside what his token is for."""
        if self.users is None or identity.admin:
            return True
        known = self._repositories.get(repository)
        user = identity.user
        namespace = repository.partition("/")[0] if "/" in repository else ""
        owns = bool(user) and (user == namespace or (known is not None and known.owner == user))
        if action == PULL and (known is None or not known.private):
            return True
        if owns:
            return True
        grants = self._repositories.grants(repository) if user else {}
        if action == PULL:
            return user in grants
        if action == DELETE:
            return False
        return grants.get(user, False) or (known is None and self._free(user, namespace))

    def _free(self, user: str, namespace: str) -> bool:
        """Whether a name that nobody has may be taken by a user."""
        return bool(user) and (self.users is None or self.users.get(namespace) is None)

    def allowed(self, identity: Identity, repository: str, action: str) -> bool:
        """Whether he may, and his token is for it."""
        return identity.token_allows(repository, action) and self.may(identity, repository, action)

    def shown(self, identity: Identity, repository: Repository) -> bool:
        """Whether he may know of a repository."""
        return not repository.private or self.may(identity, repository.name, PULL)


def basic(value: str) -> tuple[str, str]:
    """Name and password from the value of a Basic header. Raises BadCredentials."""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadCredentials("the Authorization header is damaged") from error
    name, _, password = text.partition(":")
    return name, password
