"""A Debian root file system, made with debootstrap, from which builds without a network install.

It holds what images of languages hold (a C compiler, make, Python with pip), a flat repository of
packages for apt and a wheelhouse for pip: their configuration knows no other source. Making it
takes minutes and the host's mirror, so it is kept in the user's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
INCLUDED = ("ca-certificates", "gcc", "libc6-dev", "make", "python3", "python3-pip", "python3-venv")
#: What builds install from the repository.
PACKAGES = ("adduser", "gosu", "jq", "libcap2-bin", "nginx-light", "tini")
WHEELS = ("click", "itsdangerous", "jinja2")
REPOSITORY, WHEELHOUSE = "repo", "wheels"

#: As in the images that are published: no documentation, no downloads kept, no services started.
_CONFIGURATION = {
    "etc/apt/sources.list": f"deb [trusted=yes] file:/{REPOSITORY} ./\n",
    "etc/apt/apt.conf.d/docker-clean": 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb";'
    ' };\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
    "etc/pip.conf": f"[global]\nno-index = true\nfind-links = /{WHEELHOUSE}\n",
    "etc/hostname": "",
    "etc/hosts": "127.0.0.1\tlocalhost\n",
    "etc/resolv.conf": "",
}
#: In force from the start.
_DPKG = "force-unsafe-io\n" + "".join(
    f"path-exclude=/usr/share/{folder}/*\n" for folder in ("doc", "man", "locale")
)
_LEFT_OUT = (
    "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "var/cache/apt/*",
    "var/lib/apt/lists/*", "var/log/*", "var/cache/ldconfig/aux-cache", "etc/machine-id",
)  # fmt: skip


def debian_base(packages: Sequence[str] = PACKAGES, wheels: Sequence[str] = WHEELS) -> Path:
    """The archive (tar) of the root file system, from the cache or made now.

    Raises ConnectionError with the output of what failed: nearly always a mirror out of reach.
    """
    said = repr(
        (SUITE, INCLUDED, packages, wheels, sorted(_CONFIGURATION.items()), _DPKG, _LEFT_OUT)
    )
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lading-tests"
    place.mkdir(parents=True, exist_ok=True)
    archive = place / f"debian-{hashlib.sha256(said.encode()).hexdigest()[:12]}.tar"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            work = Path(tempfile.mkdtemp(prefix="debian-", dir=place))
            try:
                _make(work / "root", packages, wheels)
                _run("tar", "--numeric-owner", "-C", str(work / "root"), "-cf", f"{work}/tar", ".")
                os.rename(work / "tar", archive)
            finally:
                shutil.rmtree(work)
    return archive


def _make(root: Path, packages: Sequence[str], wheels: Sequence[str]) -> None:
    (root / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(_DPKG)
    included = f"--include={','.join(INCLUDED)}"
    _run("debootstrap", "--variant=minbase", included, SUITE, str(root))
    for folder in (REPOSITORY, f"{REPOSITORY}/partial", WHEELHOUSE):
        (root / folder).mkdir()
    install = f"apt-get -o Dir::Cache::archives=/{REPOSITORY} install -y --no-install-recommends"
    _run("chroot", str(root), "sh", "-c", f"apt-get update && {install} -d {' '.join(packages)}")
    _index(root)
    _run(
        "python3", "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version=3.11",
        "--platform=manylinux2014_x86_64", "-d", str(root / WHEELHOUSE), *wheels,
    )  # fmt: skip
    for pattern in _LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, text in _CONFIGURATION.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(text)
    (root / "usr/sbin/policy-rc.d").chmod(0o755)


def _index(root: Path) -> None:
    """Write the index of the flat repository (deb822 of each package, with name and digest)."""
    entries = []
    for path in sorted((root / REPOSITORY).glob("*.deb")):
        control = _run("dpkg-deb", "--field", str(path)).strip()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        entries.append(f"{control}\nFilename: ./{path.name}\nSize: {size}\nSHA256: {digest}\n")
    (root / REPOSITORY / "Packages").write_text("\n".join(entries))
    (root / REPOSITORY / "partial").rmdir()
    (root / REPOSITORY / "lock").unlink(missing_ok=True)


def _run(*words: str) -> str:
    """Run it in the network of who started the tests, whose own has no way out, and with mounts
    that end with it."""
    network = f"/proc/{os.getppid()}/ns/net"
    done = subprocess.run(
        ["nsenter", f"--net={network}", "unshare", "--mount", *words],
        capture_output=True, timeout=900, check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        text = (done.stdout + done.stderr).decode(errors="replace")
        raise ConnectionError(f"{' '.join(words)}: exit {done.returncode}\n{text[-4000:]}")
    return done.stdout.decode()
