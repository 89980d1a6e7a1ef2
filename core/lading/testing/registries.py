"""Registries that tests run beside themselves: Lading's own, Debian's, and a real dockerd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lading.testing.daemon import find_client, unmount_below

START_SECONDS = 30.0
USER, PASSWORD = "me", "secret-word"
#: bcrypt of the password, the only kind that docker-registry takes.
_BCRYPT = "$2b$04$zr7g.2TjCQQze6wDg0LQseAZkSpjZVtmh8FGAc6y4dPgMr7JqFrfe"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Certificates:
    """A private authority, and a certificate for 127.0.0.1."""

    folder: Path
    ca: Path = field(init=False)
    certificate: Path = field(init=False)
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        import trustme  # a dependency of tests that use certificates only

        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        self.ca, self.certificate, self.key = (
            self.folder / name for name in ("ca.crt", "server.pem", "server.key")
        )
        authority.cert_pem.write_to_path(self.ca)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        issued.private_key_pem.write_to_path(self.key)

    def trust(self, host: str) -> Path:
        """A ``certs.d`` that trusts the authority for a host."""
        (self.folder / "certs.d" / host).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.ca, self.folder / "certs.d" / host / "ca.crt")
        return self.folder / "certs.d"


@dataclass
class Site:
    """A registry that runs."""

    kind: str
    host: str
    root: Path
    certificates: Certificates | None
    user: str = ""
    log: Path = field(default=Path(os.devnull))

    def skopeo(self, *arguments: str, check: bool = True) -> str:
        """Run skopeo with what it needs to reach this registry; ``@`` in front of a name stands
        for the registry."""
        words = [
            w.replace("@", f"docker://{self.host}/", 1) if w[0] == "@" else w for w in arguments
        ]
        command, *rest = words
        flags = {"copy": ["--src-{}", "--dest-{}"]}.get(command, ["--{}"])
        options = []
        for flag in flags:
            if self.user:
                options.append(flag.format("creds") + f"={USER}:{PASSWORD}")
            if self.certificates:
                self.certificates.trust(self.host)
                folder = self.certificates.folder / "certs.d" / self.host
                options.append(flag.format("cert-dir") + f"={folder}")
            else:
                options.append(flag.format("tls-verify") + "=false")
        done = subprocess.run(
            ["skopeo", "--insecure-policy", command, *options, *rest],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"skopeo {' '.join(words)}: {done.stderr}\n{self.log.read_text()}")
        return done.stdout


def needs(*programs: str) -> None:
    """Skip without a program."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"the host has no {program}")


@contextmanager
def process(command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """A program that runs inside the block."""
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not ready():
            if running.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def own_registry(
    root: Path, *, tls: bool = False, users: bool = False, port: int = 0
) -> Iterator[Site]:
    """Lading's registry as a process."""
    root.mkdir(exist_ok=True)
    port = port or free_port()
    certificates = Certificates(root) if tls and not (root / "ca.crt").exists() else None
    base = [find_client("lading"), "registry"]
    flags = ["--root", str(root / "data"), "--listen", f"127.0.0.1:{port}"]
    if certificates:
        flags += ["--tls-cert", str(certificates.certificate), "--tls-key", str(certificates.key)]
    if users:
        flags += ["--auth", str(root / "users")]
        subprocess.run(
            [*base, "user", "add", "--auth", str(root / "users"), "--password-stdin", USER],
            input=PASSWORD, text=True, check=True,
        )  # fmt: skip
    log = root / "log"
    with process([*base, "serve", "--debug", *flags], log, lambda: answers(port)):
        yield Site("own", f"127.0.0.1:{port}", root, certificates, USER if users else "", log)


@contextmanager
def debian_registry(root: Path, *, tls: bool = False, users: bool = False) -> Iterator[Site]:
    """Debian's docker-registry."""
    needs("docker-registry")
    root.mkdir(exist_ok=True)
    port = free_port()
    certificates = Certificates(root) if tls else None
    config = (
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    if certificates:
        config += f"  tls: {{certificate: {certificates.certificate}, key: {certificates.key}}}\n"
    if users:
        (root / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        config += f"auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n"
    (root / "config.yml").write_text(config)
    log = root / "log"
    command = ["docker-registry", "serve", str(root / "config.yml")]
    with process(command, log, lambda: answers(port)):
        yield Site("debian", f"127.0.0.1:{port}", root, certificates, USER if users else "", log)


@contextmanager
def real_dockerd(root: Path, storage: str = "--storage-driver=vfs") -> Iterator[Callable[..., str]]:
    """A real dockerd on a root of its own: called with the arguments of ``docker``."""
    needs("dockerd", "docker")
    root.mkdir(exist_ok=True)
    (root / "config.json").write_text("{}")
    address = f"unix://{root}/s"
    with ExitStack() as stack:
        stack.enter_context(
            process(
                [
                    "dockerd", f"--data-root={root}/data", f"--exec-root={root}/run",
                    f"--pidfile={root}/pid", f"--host={address}", "--bridge=none",
                    "--iptables=false", "--ip6tables=false", storage,
                    "--insecure-registry=127.0.0.0/8", f"--config-file={root}/config.json",
                ],
                root / "log",
                (root / "s").exists,
            )
        )  # fmt: skip
        stack.callback(unmount_below, root)

        def docker(*arguments: str, input: bytes | None = None) -> str:
            done = subprocess.run(
                ["docker", "-H", address, *arguments],
                input=input, capture_output=True, timeout=300, check=False,
                env={**os.environ, "DOCKER_CONFIG": str(root / "config")},
            )  # fmt: skip
            text = done.stdout.decode(errors="replace")
            if done.returncode:
                raise AssertionError(f"docker {arguments}: {text}{done.stderr.decode()}")
            return text

        yield docker
