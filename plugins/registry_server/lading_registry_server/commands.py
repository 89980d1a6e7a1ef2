"""``lading registry``: serve, users, grants, collection."""

from __future__ import annotations

import logging
import signal
import ssl
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from lading.errors import LadingError, NotFound

DEFAULT_ROOT = "/var/lib/lading-registry"
DEFAULT_LISTEN = "127.0.0.1:5000"

_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=DEFAULT_ROOT,
    show_default=True,
    help="Directory of the registry",
)
_auth = click.option(
    "--auth",
    "users",
    type=click.Path(path_type=Path),
    required=True,
    help="File of the users",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def registry() -> None:
    """Run a registry of your own."""


class _Failure(click.ClickException):
    def show(self, file: object = None) -> None:
        click.echo(f"registry: {self.message}", err=True)


def _failed(error: Exception) -> _Failure:
    return _Failure(str(error) or type(error).__name__)


@registry.command()
@_root
@click.option(
    "--listen",
    multiple=True,
    default=[DEFAULT_LISTEN],
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; may be repeated",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain in PEM")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key")
@click.option(
    "--auth",
    "users",
    type=click.Path(path_type=Path),
    help="File of the users; without it everybody may do everything",
)
@click.option("--signup", is_flag=True, help="Let clients make themselves users (login of 2014)")
@click.option(
    "--external-url", default="", metavar="URL", help="How clients reach it, behind a reverse proxy"
)
@click.option(
    "--trusted-proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS[/BITS]",
    help="Proxy whose X-Forwarded-Proto and -Host are believed; may be repeated",
)
@click.option("--debug", is_flag=True, help="Log each request")
def serve(
    root: Path,
    listen: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    users: Path | None,
    signup: bool,
    external_url: str,
    proxies: tuple[str, ...],
    debug: bool,
) -> None:
    """Serve images: OCI distribution, Registry v1 and a web page on the same port."""
    from lading_registry_server.serve import running  # the other commands do without a server

    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(levelname)s %(message)s"
    )
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        with running(
            root,
            listen,
            users=users,
            certificate=tls_cert,
            key=tls_key,
            signup=signup,
            url=external_url,
            proxies=proxies,
        ) as server:
            for listener in server.listeners:
                host, port = listener.socket.getsockname()[:2]
                click.echo(f"listening on {host}:{port}", err=True)
            ended.wait()
    except (LadingError, OSError, ssl.SSLError) as error:
        raise _failed(error) from error


@registry.command()
@_root
@click.option("--untagged", is_flag=True, help="Remove manifests that no tag leads to as well")
@click.option(
    "--grace", default=3600.0, show_default=True, help="Keep what is younger than so many seconds"
)
def gc(root: Path, untagged: bool, grace: float) -> None:
    """Remove content that nothing refers to; may run beside a server."""
    from lading_registry_server.collection import collect
    from lading_registry_server.store import Store

    try:
        if not (root / "registry.db").exists():
            raise NotFound(f'"{root}" is no directory of a registry')
        store = Store(root)
        try:
            done = collect(store, grace=grace, untagged=untagged)
        finally:
            store.close()
    except (LadingError, OSError) as error:
        raise _failed(error) from error
    click.echo(
        f"removed {done.manifests} manifests, {done.images} images of v1, "
        f"{done.blobs} blobs of {done.space} bytes"
    )


@registry.group()
def user() -> None:
    """Manage who may log in."""


@user.command("add")
@_auth
@click.option("--admin", is_flag=True, help="May do everything")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input")
@click.argument("name")
def user_add(users: Path, admin: bool, password_stdin: bool, name: str) -> None:
    """Add a user, or change his password."""
    from lading_registry_server.users import Users

    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        Users(users).add(name, password, admin=admin)
    except (LadingError, OSError) as error:
        raise _failed(error) from error


@user.command("rm")
@_auth
@click.argument("name")
def user_rm(users: Path, name: str) -> None:
    """Remove a user; his repositories stay."""
    from lading_registry_server.users import Users

    try:
        Users(users).remove(name)
    except (LadingError, OSError) as error:
        raise _failed(error) from error


@user.command("ls")
@_auth
def user_ls(users: Path) -> None:
    """List the users."""
    from lading_registry_server.users import Users

    try:
        for known in sorted(Users(users).all().values(), key=lambda row: row.name):
            click.echo(f"{known.name}{' (admin)' if known.admin else ''}")
    except (LadingError, OSError) as error:
        raise _failed(error) from error


@registry.command()
@_root
@click.option("--push", is_flag=True, help="Let the user push as well")
@click.option("--revoke", is_flag=True, help="Take back what was granted")
@click.argument("repository")
@click.argument("user_name", metavar="USER")
def grant(root: Path, push: bool, revoke: bool, repository: str, user_name: str) -> None:
    """Let a user pull a private repository, or push to it."""
    from lading_registry_server import names
    from lading_registry_server.store import Store

    try:
        store = Store(root)
        try:
            name = names.stored(repository)
            if store.repositories.get(name) is None:
                raise NotFound(f'repository "{repository}" does not exist')
            if revoke:
                store.repositories.revoke(name, user_name)
            else:
                store.repositories.grant(name, user_name, push=push)
        finally:
            store.close()
    except (LadingError, OSError) as error:
        raise _failed(error) from error
