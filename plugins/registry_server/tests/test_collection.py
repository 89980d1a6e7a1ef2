"""Removal of what nothing refers to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lading.model import oci
from lading_registry_server.collection import collect
from lading_registry_server.store import Store

BASE = "a" * 64


def put_blob(site: Any, content: bytes) -> str:
    digest = oci.digest_of(content)
    site("POST", f"/v2/team/app/blobs/uploads/?digest={digest}", content)
    return digest


def put_image(site: Any, tag: str, layer: bytes) -> str:
    rows = [{"mediaType": oci.LAYER, "digest": put_blob(site, layer), "size": 1}]
    config = {"mediaType": oci.CONFIG, "digest": put_blob(site, b"{}"), "size": 2}
    body = json.dumps({"schemaVersion": 2, "config": config, "layers": rows}).encode()
    path = f"/v2/team/app/manifests/{tag}"
    answer = site("PUT", path, body, Content_Type=oci.MANIFEST)
    return str(answer.headers["docker-content-digest"])


def blobs(site: Any) -> set[str]:
    return {f"sha256:{path.name}" for path in (site.root / "blobs" / "sha256").iterdir()}


def sweep(site: Any, **options: Any) -> Any:
    store = Store(site.root)
    try:
        # Links keep what was just asked for: let them be old.
        with store.db.write() as connection:
            connection.execute("UPDATE links SET seen = 0")
        return collect(store, **{"grace": -1, **options})
    finally:
        store.close()


def test_what_is_referred_to_stays(site: Any) -> None:
    put_image(site, "v1", b"layer one")
    before = blobs(site)
    stray = put_blob(site, b"stray")
    done = sweep(site)
    assert (done.blobs, done.space) == (1, 5)
    assert blobs(site) == before
    assert site("GET", f"/v2/team/app/blobs/{stray}").status == 404
    assert site("GET", "/v2/team/app/manifests/v1").status == 200


def test_what_is_young_stays(site: Any) -> None:
    put_blob(site, b"stray")
    assert sweep(site, grace=3600).blobs == 0


def test_untagged_manifests_go_when_asked(site: Any) -> None:
    digest = put_image(site, "v1", b"layer one")
    put_image(site, "v1", b"layer two")
    assert sweep(site).manifests == 0
    assert sweep(site, untagged=True).manifests == 1
    assert site("GET", f"/v2/team/app/manifests/{digest}").status == 404
    assert site("GET", f"/v2/team/app/blobs/{oci.digest_of(b'layer one')}").status == 404
    assert site("GET", f"/v2/team/app/blobs/{oci.digest_of(b'layer two')}").status == 200


def test_what_an_index_or_a_referrer_needs_stays(site: Any) -> None:
    digest = put_image(site, "once", b"layer one")
    row = {"mediaType": oci.MANIFEST, "digest": digest, "size": 1}
    index = json.dumps({"schemaVersion": 2, "manifests": [row]}).encode()
    site("PUT", "/v2/team/app/manifests/all", index, Content_Type=oci.INDEX)
    site("DELETE", "/v2/team/app/manifests/once")
    config = {"mediaType": oci.CONFIG, "digest": put_blob(site, b"{}"), "size": 2}
    about = {"schemaVersion": 2, "config": config, "layers": [], "subject": row}
    body = json.dumps(about).encode()
    path = f"/v2/team/app/manifests/{oci.digest_of(body)}"
    site("PUT", path, body, Content_Type=oci.MANIFEST)
    assert sweep(site, untagged=True).manifests == 0
    assert site("GET", path).status == 200


def test_chains_of_2014(site: Any) -> None:
    site("PUT", "/v1/repositories/team/old/", [{"id": BASE}])
    site("PUT", f"/v1/images/{BASE}/json", {"id": BASE})
    site("PUT", f"/v1/images/{BASE}/layer", b"")
    site("PUT", "/v1/repositories/team/old/tags/v1", BASE)
    assert sweep(site).images == 0
    site("DELETE", "/v1/repositories/team/old/tags/v1")
    assert sweep(site).images == 1
    assert site("GET", "/v1/repositories/team/old/images").json == []
    assert blobs(site) == set()


# -- as commands


def command(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lading_registry_server", *arguments],
        input=input, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_gc_command(site: Any) -> None:
    put_blob(site, b"stray")
    done = command("gc", "--root", str(site.root))
    assert (done.returncode, done.stdout) == (
        0,
        "removed 0 manifests, 0 images of v1, 0 blobs of 0 bytes\n",
    )
    missing = command("gc", "--root", str(site.root / "nothing"))
    assert missing.returncode == 1
    assert "is no directory of a registry" in missing.stderr


def test_user_commands(tmp_path: Path) -> None:
    file = ["--auth", str(tmp_path / "users")]
    done = command("user", "add", *file, "--password-stdin", "me", input="long enough\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (
        command(
            "user", "add", *file, "--admin", "--password-stdin", "boss", input="long\nx"
        ).returncode
        == 1
    )
    command("user", "add", *file, "--admin", "--password-stdin", "boss", input="long enough")
    assert command("user", "ls", *file).stdout == "boss (admin)\nme\n"
    assert command("user", "rm", *file, "me").returncode == 0
    gone = command("user", "rm", *file, "me")
    assert (gone.returncode, gone.stderr) == (1, 'registry: no user "me"\n')


def test_grant_command(site: Any) -> None:
    put_image(site, "v1", b"one")
    root = ["--root", str(site.root)]
    assert command("grant", *root, "--push", "team/app", "you").returncode == 0
    store = Store(site.root)
    assert store.repositories.grants("team/app") == {"you": True}
    store.close()
    assert command("grant", *root, "--revoke", "team/app", "you").returncode == 0
    assert "does not exist" in command("grant", *root, "no/such", "you").stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listen", "nonsense"], "no port"),
        (["--tls-cert", "x"], "both or neither"),
        (["--tls-cert", "/none", "--tls-key", "/none"], "No such file"),
    ],
)
def test_serve_says_what_is_wrong(tmp_path: Path, flags: list[str], said: str) -> None:
    done = command("serve", "--root", str(tmp_path / "r"), *flags)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
