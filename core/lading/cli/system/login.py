"""``lading login`` and ``lading logout``."""

from __future__ import annotations

import getpass
import sys

from lading.cli.command import between, command
from lading.cli.credentials import Credentials
from lading.cli.errors import DaemonError, Failure
from lading.cli.flags import Call, switch, text
from lading.cli.images.reference import DEFAULT_DOMAIN, INDEX_KEY
from lading.cli.streams.terminal import is_terminal

Auth = dict[str, str]


def registry_key(address: str) -> str:
    """The name under which a registry's credentials are kept."""
    bare = address.removeprefix("https://").removeprefix("http://").rstrip("/")
    if bare in ("", DEFAULT_DOMAIN, "index.docker.io", "index.docker.io/v1"):
        return INDEX_KEY
    return bare


@command(
    "Log in to a registry",
    usage="[OPTIONS] [SERVER]",
    arguments=between(0, 1),
    flags=(
        text("email", "e", "Accepted; only registries of 2014 asked for it", hidden=True),
        text("password", "p", "Password"),
        switch("password-stdin", "", "Read the password from stdin"),
        text("username", "u", "User"),
    ),
)
def login(call: Call) -> None:
    """Check credentials with the daemon and keep them."""
    registry = registry_key(call.args[0] if call.args else "")
    credentials = Credentials(call.session.settings)
    stored = credentials.get(registry)
    asked = call.text("username") or call.text("password")
    if stored and not asked and _accepted_again(call, registry, stored):
        return
    auth = _asked(call, registry, stored)
    answer = call.session.post("/auth", auth) or {}
    if answer.get("IdentityToken"):
        # It stands for the password, which is not kept then.
        auth = _with_token(auth, answer["IdentityToken"])
    helper = credentials.store(registry, auth)
    if not helper:
        call.session.warn(
            f"WARNING! The credentials are stored unencrypted in '{call.session.settings.path}'."
        )
    call.session.print(answer.get("Status") or "Login Succeeded")


def _accepted_again(call: Call, registry: str, stored: Auth) -> bool:
    call.session.print("Authenticating with existing credentials...")
    try:
        answer = call.session.post("/auth", stored) or {}
    except DaemonError as error:
        call.session.warn(f"Login did not succeed, error: {error.message}")
        return False
    if answer.get("IdentityToken"):
        token = answer["IdentityToken"]
        Credentials(call.session.settings).store(registry, _with_token(stored, token))
    call.session.print(answer.get("Status") or "Login Succeeded")
    return True


def _with_token(auth: Auth, token: str) -> Auth:
    kept = {n: value for n, value in auth.items() if n in ("username", "serveraddress")}
    return {**kept, "identitytoken": token}


def _asked(call: Call, registry: str, stored: Auth) -> Auth:
    """User and password from flags, stdin or the terminal."""
    user, password = call.text("username"), call.text("password")
    if call.on("password-stdin"):
        if password:
            raise Failure("--password and --password-stdin are mutually exclusive")
        if not user:
            raise Failure("must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        call.session.warn(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin."
        )
    if not (user and password) and not is_terminal(0):
        raise Failure("cannot perform an interactive login from a non-TTY device")
    if not user:
        known = stored.get("username", "")
        sys.stdout.write(f"Username ({known}): " if known else "Username: ")
        sys.stdout.flush()
        user = sys.stdin.readline().strip() or known
    if not password:
        password = getpass.getpass("Password: ")
    if not user or not password:
        raise Failure("user and password are required")
    auth = {"username": user, "password": password, "serveraddress": registry}
    return auth | ({"email": call.text("email")} if call.text("email") else {})


@command("Forget a registry's credentials", usage="[SERVER]", arguments=between(0, 1))
def logout(call: Call) -> None:
    """Remove credentials from where they are kept."""
    registry = registry_key(call.args[0] if call.args else "")
    shown = (
        registry.removeprefix("https://").removesuffix("/v1/")
        if (registry == INDEX_KEY)
        else registry
    )
    call.session.print(f"Removing login credentials for {shown}")
    if not Credentials(call.session.settings).erase(registry):
        call.session.print(f"Not logged in to {shown}")
