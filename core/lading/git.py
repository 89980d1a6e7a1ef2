"""Git repositories elsewhere as directories: a reference, a directory in it, submodules.

``git`` itself does it, with no terminal to ask on and only the transports that the caller allows:
``ext::`` would run commands, ``file`` would read what the caller may not see.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lading.errors import Invalid, Unavailable
from lading.linux import paths

#: Transports of a repository that is not on this host.
REMOTE = ("http", "https", "git", "ssh")
_SCP = re.compile(r"[\w.-]+@[\w.-]+:(?!//)")
#: A clone that makes no progress for this long is given up, in seconds.
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository's files: the directory asked for, and the commit they are of."""

    directory: Path
    commit: str


def is_repository(address: str) -> bool:
    """Whether an address names a git repository, as Docker tells: by its scheme or ``.git``."""
    path = address.partition("#")[0]
    if address.startswith(("git://", "ssh://", "git+ssh://", "github.com/")) or _SCP.match(address):
        return True
    return address.startswith(("http://", "https://", "file://")) and path.endswith(".git")


def checkout(
    address: str, place: Path, *, transports: Sequence[str] = REMOTE, keep_git: bool = False
) -> Checkout:
    """Check ``ADDRESS[#REFERENCE[:DIRECTORY]]`` out in an empty directory.

    Raises Invalid for an address or a directory that is none, Unavailable when git fails.
    """
    if shutil.which("git") is None:
        raise Unavailable(f'clone "{address}": this host has no git', hint="install git")
    url, _, fragment = address.partition("#")
    reference, _, below = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if reference.startswith("-") or url.startswith("-") or not url.isprintable():
        raise Invalid(f'invalid git repository "{address}"')
    git = _Git(address, place, transports)
    git.run("init", "--quiet")
    git.run("remote", "add", "origin", "--", url)
    wanted = reference or "HEAD"
    if not git.try_run("fetch", "--quiet", "--depth", "1", "origin", "--", wanted):
        # Servers without a protocol of their own cannot send a part, and some no commit by id.
        git.run("fetch", "--quiet", "--tags", "origin", "--", "+refs/heads/*:refs/remotes/origin/*")
        found = [wanted, f"origin/{wanted}"] if reference else [git.head()]
        git.run("checkout", "--quiet", "--detach", git.first(found))
    else:
        git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    commit = git.run("rev-parse", "HEAD").strip()
    if not keep_git:
        shutil.rmtree(place / ".git")
    return Checkout(_below(address, place, below), commit)


def _below(address: str, place: Path, below: str) -> Path:
    with paths.opened_root(place) as root:
        try:
            found = paths.open_in_root(root, below or ".", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise Invalid(f'"{below}" is no directory of the repository {address}') from error
        try:
            return Path(os.readlink(f"/proc/self/fd/{found}"))
        finally:
            os.close(found)


class _Git:
    def __init__(self, address: str, place: Path, transports: Sequence[str]) -> None:
        self._address, self._place = address, place
        kept = ("PATH", "HOME", "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "no_proxy")
        self._environment = {name: os.environ[name] for name in kept if name in os.environ}
        self._environment |= {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_ALLOW_PROTOCOL": ":".join(transports),
            "LC_ALL": "C",
        }

    def run(self, *arguments: str) -> str:
        """What git prints. Raises Unavailable."""
        done = self._done(arguments)
        if done.returncode:
            told = done.stderr.strip() or f"exit {done.returncode}"
            raise Unavailable(f'git {arguments[0]} of "{self._address}": {told}')
        return done.stdout

    def try_run(self, *arguments: str) -> bool:
        """Whether git could."""
        return self._done(arguments).returncode == 0

    def head(self) -> str:
        """The commit that the repository's own HEAD names."""
        rows = self.run("ls-remote", "origin", "HEAD").split()
        if not rows:
            raise Unavailable(f'"{self._address}": the repository is empty')
        return rows[0]

    def first(self, names: Sequence[str]) -> str:
        """The first of some names that is a commit here. Raises Invalid."""
        for name in names:
            done = self._done(("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"))
            if done.returncode == 0:
                return done.stdout.strip()
        raise Invalid(f'"{self._address}": the repository has no {names[0]}')

    def _done(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", "-C", str(self._place), *arguments],
                capture_output=True, text=True, errors="replace", check=False,
                stdin=subprocess.DEVNULL, env=self._environment, timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f'git {arguments[0]} of "{self._address}": timed out') from error
