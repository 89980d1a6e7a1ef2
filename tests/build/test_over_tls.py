"""What a client offers to a build, secrets and its SSH agent, over TCP with TLS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from lading.testing.contexts import with_ssh, write_files
from lading.testing.daemon import Daemon, busybox_image, find_client, nothing_left
from lading.testing.registries import free_port

pytestmark = pytest.mark.root

#: Longer than a record of TLS, so that it comes in several.
SECRET = b"0123456789abcdef\n" * 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``, ``cert.pem`` and ``key.pem`` of a client, ``server.pem`` of the daemon."""
    place = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(place / "ca.pem"))
    client = authority.issue_cert("client@example.test")
    client.private_key_pem.write_to_path(str(place / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(place / "cert.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(place / "server.pem")
    )
    return place


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A daemon that wants a certificate of its clients."""
    host = f"tcp://127.0.0.1:{free_port()}"
    flags = (
        f"--host={host}", "--tlsverify", f"--tlscacert={folder / 'ca.pem'}",
        f"--tlscert={folder / 'server.pem'}", f"--tlskey={folder / 'server.pem'}",
    )  # fmt: skip
    with nothing_left(), Daemon(*flags) as daemon:
        daemon.client("lading", "import", "-", "busybox", input=busybox_image())
        yield host


def build(address: str, folder: Path, place: Path, text: str, *flags: str) -> str:
    write_files(place, {"Dockerfile": text})
    command = [
        find_client("lading"), "-H", address, "--tlsverify", "--tlscacert", str(folder / "ca.pem"),
        "--tlscert", str(folder / "cert.pem"), "--tlskey", str(folder / "key.pem"),
        "build", "--no-cache", "--force-rm", "--network", "none", *flags, str(place),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    out = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, out
    return out


def test_secrets(address: str, folder: Path, tmp_path: Path) -> None:
    secret, place = tmp_path / "secret", tmp_path / "context"
    secret.write_bytes(SECRET)
    text = (
        "FROM busybox AS a\nRUN --mount=type=secret,id=s cmp /run/secrets/s /dev/null; "
        "echo a $(wc -c < /run/secrets/s)\n"
        "FROM busybox AS b\nRUN --mount=type=secret,id=s echo b $(tail -c 5 /run/secrets/s)\n"
        "FROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    out = build(address, folder, place, text, "--secret", f"id=s,src={secret}")
    assert f"a {len(SECRET)}\n" in out
    assert "b cdef\n" in out


def test_an_agent(address: str, folder: Path, tmp_path: Path) -> None:
    ssh = with_ssh(tmp_path)
    text = f"FROM busybox\n{ssh.step}"
    out = build(address, folder, ssh.context, text, "--ssh", f"default={ssh.key}")
    assert "(ED25519)" in out
