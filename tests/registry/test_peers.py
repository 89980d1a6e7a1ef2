"""Images there and back over real registries, seen by real peers."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lading.testing.daemon import (
    Daemon,
    busybox_image,
    docker_clients,
    find_client,
    nothing_left,
)
from lading.testing.registries import PASSWORD, USER, Site, needs, own_registry

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture(scope="module")
def client(scratch: Path) -> Iterator[Daemon]:
    """A daemon that trusts the authorities of all sites."""
    config = scratch / "lading.toml"
    config.write_text(f'registry-certificates = ["{scratch}/certs.d"]\nregistry-timeout = 20\n')
    with nothing_left(), Daemon(f"--config-file={config}") as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


def lading(client: Daemon, *arguments: str, **options: object) -> str:
    return client.client("lading", *arguments, **options).stdout.decode()  # type: ignore[arg-type]


@pytest.fixture
def reach(client: Daemon, site: Site, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, trusted and logged in to."""
    monkeypatch.setenv("DOCKER_CONFIG", str(site.root / "client"))
    if site.certificates:
        trusted = scratch / "certs.d" / site.host
        if not trusted.exists():
            trusted.mkdir(parents=True)
            (trusted / "ca.crt").write_bytes(site.certificates.ca.read_bytes())
    if site.user:
        lading(client, "login", "-u", USER, "--password-stdin", site.host, input=PASSWORD.encode())
    return site


def image_id(client: Daemon, name: str) -> str:
    return str(json.loads(lading(client, "inspect", name))[0]["Id"])


def build(client: Daemon, name: str, *, marker: str) -> str:
    """An image of two layers and some settings; returns its id."""
    lading(client, "rm", "-f", "maker", check=False)
    lading(client, "run", "--name", "maker", "busybox", "sh", "-c", f"echo {marker} > /marker")
    lading(client, "commit", "-c", 'CMD ["cat","/marker"]', "-c", "ENV A=ä", "maker", name)
    lading(client, "rm", "-f", "maker")
    return image_id(client, name)


def test_there_and_back(client: Daemon, reach: Site) -> None:
    name = f"{reach.host}/{USER}/app:1"
    before = build(client, name, marker="there and back")
    history = lading(client, "history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}", name)
    pushed = lading(client, "push", name)
    digest = pushed.rpartition("digest: ")[2].split()[0]
    seen = json.loads(reach.skopeo("inspect", f"@{USER}/app:1"))
    assert (seen["Digest"], seen["RepoTags"]) == (digest, ["1"])
    lading(client, "rmi", name)
    assert digest in lading(client, "pull", name)
    assert image_id(client, name) == before
    assert lading(client, "run", "--rm", name) == "there and back\n"
    assert history == lading(
        client, "history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}", name
    )
    assert "Layer already exists" in lading(client, "push", name)
    lading(client, "rmi", name)


def test_pull_by_digest_and_all_tags(client: Daemon, reach: Site) -> None:
    name = f"{reach.host}/{USER}/tags"
    ids = {}
    for tag in ("one", "two"):
        ids[tag] = build(client, f"{name}:{tag}", marker=tag)
    pushed = lading(client, "push", "-a", name)
    digest = next(
        line.split()[2] for line in pushed.splitlines() if line.startswith("one: digest:")
    )
    lading(client, "rmi", f"{name}:one", f"{name}:two")
    lading(client, "pull", f"{name}@{digest}")
    assert image_id(client, f"{name}@{digest}") == ids["one"]
    lading(client, "pull", "-a", name)
    assert {tag: image_id(client, f"{name}:{tag}") for tag in ids} == ids
    lading(client, "rmi", f"{name}:one", f"{name}:two")


def test_skopeo_copies_what_we_pushed(client: Daemon, reach: Site, tmp_path: Path) -> None:
    name = f"{reach.host}/{USER}/copied:1"
    before = build(client, name, marker="copied")
    lading(client, "push", name)
    reach.skopeo("copy", f"@{USER}/copied:1", f"dir:{tmp_path}/dir")
    manifest = json.loads((tmp_path / "dir" / "manifest.json").read_text())
    assert manifest["config"]["digest"] == before


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_we_pull_what_skopeo_pushed(
    client: Daemon, reach: Site, tmp_path: Path, compression: str
) -> None:
    name = f"{reach.host}/{USER}/skopeo:{compression}"
    before = build(client, "local:1", marker=compression)
    lading(client, "save", "-o", str(tmp_path / "image.tar"), "local:1")
    how = {
        "gzip": ["--dest-compress-format=gzip"],
        "zstd": ["--dest-compress-format=zstd", "--format=oci"],
        "none": ["--dest-decompress"],
    }[compression]
    source = f"docker-archive:{tmp_path}/image.tar"
    if compression == "none":
        reach.skopeo("copy", source, f"@{USER}/skopeo:{compression}")
    else:
        reach.skopeo("copy", *how, source, f"@{USER}/skopeo:{compression}")
    lading(client, "rmi", "local:1")
    lading(client, "pull", name)
    if compression != "zstd":
        assert image_id(client, name) == before
    assert lading(client, "run", "--rm", name) == f"{compression}\n"
    lading(client, "push", name)
    lading(client, "rmi", name)


@pytest.mark.parametrize(
    "site",
    [(maker, tls, True) for maker in ("own", "debian") for tls in (False, True)],
    ids=str,
    indirect=True,
    scope="module",
)
def test_wrong_password_and_no_password(client: Daemon, reach: Site) -> None:
    name = f"{reach.host}/{USER}/private-word:1"
    done = client.client(
        "lading", "login", "-u", USER, "--password-stdin", reach.host, input=b"wrong", check=False
    )
    assert done.returncode == 1
    assert b"incorrect username or password" in done.stderr
    lading(client, "tag", "busybox", name)
    lading(client, "logout", reach.host)
    done = client.client("lading", "push", name, check=False)
    assert done.returncode == 1
    assert b"authentication required" in done.stdout + done.stderr
    lading(client, "rmi", name)


# -- peers against the embedded registry


def test_dockerd_pushes_and_pulls(client: Daemon, own: Site, dockerd: Callable[..., str]) -> None:
    name = f"{own.host}/docker/app:1"
    dockerd("import", "-", name, input=busybox_image())
    dockerd("push", name)
    theirs = dockerd("image", "inspect", "--format", "{{.Id}}", name).strip()
    lading(client, "pull", name)
    assert image_id(client, name) == theirs
    assert lading(client, "run", "--rm", name, "echo", "works") == "works\n"
    ours = build(client, f"{own.host}/docker/app:2", marker="for dockerd")
    lading(client, "push", f"{own.host}/docker/app:2")
    dockerd("pull", f"{own.host}/docker/app:2")
    assert (
        dockerd("image", "inspect", "--format", "{{.Id}}", f"{own.host}/docker/app:2").strip()
        == ours
    )


def test_dockerd_logs_in(dockerd: Callable[..., str], scratch: Path) -> None:
    """dockerd asks for a token that stands for the password, and comes back with it."""
    with own_registry(scratch / "guarded", users=True) as guarded:
        name = f"{guarded.host}/{USER}/app:1"
        dockerd("import", "-", name, input=busybox_image())
        with pytest.raises(AssertionError, match=r"denied|unauthorized|authentication"):
            dockerd("push", name)
        assert "Login Succeeded" in dockerd("login", "-u", USER, "-p", PASSWORD, guarded.host)
        dockerd("push", name)
        dockerd("rmi", name)
        dockerd("logout", guarded.host)
        dockerd("pull", name)


def test_podman_pushes_and_pulls(
    client: Daemon, own: Site, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    needs("podman")
    # Podman takes no runroot longer than 50 characters.
    short = Path(tempfile.mkdtemp(prefix="pod-"))
    request.addfinalizer(lambda: shutil.rmtree(short, ignore_errors=True))
    base = [
        "podman", f"--root={tmp_path}/root", f"--runroot={short}", "--storage-driver=vfs",
    ]  # fmt: skip

    def podman(*arguments: str, input: bytes | None = None) -> str:
        done = subprocess.run(
            [*base, *arguments], input=input, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    name = f"{own.host}/podman/app:1"
    (tmp_path / "root.tar").write_bytes(busybox_image())
    podman("import", str(tmp_path / "root.tar"), name)
    podman("push", "--tls-verify=false", name)
    lading(client, "pull", name)
    theirs = podman("image", "inspect", "--format", "{{.Id}}", name)
    assert image_id(client, name) == f"sha256:{theirs}"
    ours = build(client, f"{own.host}/podman/app:2", marker="for podman")
    lading(client, "push", f"{own.host}/podman/app:2")
    podman("pull", "--tls-verify=false", f"{own.host}/podman/app:2")
    seen = podman("image", "inspect", "--format", "{{.Id}}", f"{own.host}/podman/app:2")
    assert f"sha256:{seen}" == ours


def test_search_and_mount_between_repositories(client: Daemon, own: Site) -> None:
    first, second = f"{own.host}/mounts/first:1", f"{own.host}/mounts/second:1"
    build(client, first, marker="mounted")
    lading(client, "push", first)
    lading(client, "tag", first, second)
    assert "Mounted" in lading(client, "push", second)
    rows = lading(client, "search", "--format", "{{.Name}}", f"{own.host}/mounts").split()
    assert sorted(rows) == ["mounts/first", "mounts/second"]


def test_a_platform_is_chosen_from_an_index(client: Daemon, own: Site, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    rows = []
    for machine in ("arm64", "amd64"):
        build(client, f"index:{machine}", marker=machine)
        lading(client, "save", "-o", str(tmp_path / f"{machine}.tar"), f"index:{machine}")
        own.skopeo("copy", f"docker-archive:{tmp_path}/{machine}.tar", f"oci:{layout}:{machine}")
    index = json.loads((layout / "index.json").read_text())
    for row in index["manifests"]:
        machine = row.pop("annotations")["org.opencontainers.image.ref.name"]
        rows.append({**row, "platform": {"os": "linux", "architecture": machine}})
    body = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": rows,
    }
    (layout / "index.json").write_text(json.dumps(put_index(layout, body)))
    own.skopeo("copy", "--all", f"oci:{layout}:all", "@index/app:1")
    name = f"{own.host}/index/app:1"
    lading(client, "pull", name)
    assert lading(client, "run", "--rm", name) == "amd64\n"
    lading(client, "pull", "--platform", "linux/arm64", name)
    assert lading(client, "run", "--rm", name) == "arm64\n"
    done = client.client("lading", "pull", "--platform", "linux/s390x", name, check=False)
    assert b"no matching manifest for linux/s390x" in done.stderr
    found = json.loads(lading(client, "manifest", "inspect", name))
    digests = {row["platform"]["architecture"]: row["digest"] for row in found["manifests"]}
    assert digests.keys() == {"amd64", "arm64"}
    each = json.loads(lading(client, "manifest", "inspect", "-v", name))
    assert {row["Descriptor"]["platform"]["architecture"]: row["Descriptor"]["digest"]
            for row in each} == digests  # fmt: skip
    assert all(row["OCIManifest"]["layers"] for row in each)
    assert {row["Ref"] for row in each} == {f"{name}@{digest}" for digest in digests.values()}
    single = f"{own.host}/index/single:1"
    lading(client, "tag", name, single)
    lading(client, "push", single)
    done = client.client("lading", "pull", "--platform", "linux/s390x", single, check=False)
    assert b"does not match the specified platform linux/s390x" in done.stderr


def put_index(layout: Path, body: dict[str, object]) -> dict[str, object]:
    import hashlib

    content = json.dumps(body).encode()
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    row = {
        "mediaType": body["mediaType"],
        "digest": f"sha256:{digest}",
        "size": len(content),
        "annotations": {"org.opencontainers.image.ref.name": "all"},
    }
    return {"schemaVersion": 2, "manifests": [row]}


@pytest.fixture
def by_v1(own: Site, scratch: Path) -> Iterator[Daemon]:
    """A daemon that speaks the protocol of 2014 with the registry."""
    config = scratch / "v1.toml"
    config.write_text(f'[registry."{own.host}"]\ntransport = "v1"\n')
    with Daemon(f"--config-file={config}") as running:
        running.client("lading", "import", "-", "busybox", input=busybox_image())
        yield running


def test_both_protocols_show_the_same_image(client: Daemon, own: Site, by_v1: Daemon) -> None:
    old, new = f"{own.host}/both/old:1", f"{own.host}/both/new:1"
    ids = {old: build(by_v1, old, marker="pushed by v1"), new: build(client, new, marker="by v2")}
    lading(by_v1, "push", old)
    lading(client, "push", new)
    for daemon in (client, by_v1):
        for name, wanted in ids.items():
            lading(daemon, "rmi", "-f", name, check=False)
            lading(daemon, "pull", name)
            assert image_id(daemon, name) == wanted
    assert lading(by_v1, "run", "--rm", new) == "by v2\n"
    assert lading(client, "run", "--rm", old) == "pushed by v1\n"
    assert "Already exists" not in lading(by_v1, "search", f"{own.host}/both")


def test_layers_of_2014_are_not_fetched_twice(own: Site, by_v1: Daemon) -> None:
    name = f"{own.host}/twice/app:1"
    build(by_v1, name, marker="twice")
    lading(by_v1, "push", name)
    assert "Layer already exists" in lading(by_v1, "push", name)
    lading(by_v1, "rmi", name)
    lading(by_v1, "pull", name)
    again = lading(by_v1, "pull", name)
    assert "Already exists" in again
    assert "Image is up to date" in again


def test_a_mirror_stands_for_the_public_registry(client: Daemon, own: Site, scratch: Path) -> None:
    wanted = build(client, f"{own.host}/library/mirrored:1", marker="from the mirror")
    lading(client, "push", f"{own.host}/library/mirrored:1")
    with Daemon(f"--registry-mirror=http://{own.host}") as other:
        other.client("lading", "pull", "mirrored:1")
        assert image_id(other, "mirrored:1") == wanted
        done = other.client("lading", "run", "--rm", "docker.io/library/mirrored:1")
        assert done.stdout == b"from the mirror\n"


def test_mirrors_that_fail_are_passed_over(client: Daemon, own: Site, scratch: Path) -> None:
    wanted = build(client, f"{own.host}/passed/over:1", marker="origin")
    lading(client, "push", f"{own.host}/passed/over:1")
    config = scratch / "mirrors.toml"
    config.write_text(f'[registry."{own.host}"]\nmirrors = ["http://127.0.0.1:1"]\n')
    with Daemon(f"--config-file={config}") as other:
        said = other.client("lading", "pull", f"{own.host}/passed/over:1").stdout.decode()
        assert "127.0.0.1:1: " in said
        assert image_id(other, f"{own.host}/passed/over:1") == wanted


def test_manifest_inspect(client: Daemon, own: Site) -> None:
    name = f"{own.host}/manifests/app:1"
    before = build(client, name, marker="inspected")
    lading(client, "push", name)
    found = json.loads(lading(client, "manifest", "inspect", name))
    assert found["config"]["digest"] == before
    assert found == json.loads(own.skopeo("inspect", "--raw", "@manifests/app:1"))
    told = json.loads(lading(client, "manifest", "inspect", "--verbose", name))
    assert told["Ref"] == name
    assert told["SchemaV2Manifest"] == found
    assert told["Descriptor"]["platform"] == {"architecture": "amd64", "os": "linux"}
    done = client.client("lading", "manifest", "inspect", f"{name}0", check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_manifest_inspect_of_a_registry_with_an_unknown_authority(
    client: Daemon, tmp_path: Path
) -> None:
    """A host that is not of loopback: such need no flag."""
    with own_registry(tmp_path / "tls", tls=True) as site:
        port = site.host.rpartition(":")[2]
        own = f"127.0.0.1:{port}/x:1"
        config = tmp_path / "strict.toml"
        config.write_text(f'[registry."127.0.0.1:{port}"]\ninsecure = false\n')
        build(client, "local:1", marker="tls")
        lading(client, "save", "-o", str(tmp_path / "x.tar"), "local:1")
        site.skopeo("copy", f"docker-archive:{tmp_path}/x.tar", "@x:1")
        with Daemon(f"--config-file={config}") as strict:
            done = strict.client("lading", "manifest", "inspect", own, check=False)
            assert done.returncode == 1
            assert b"certificate" in done.stderr
            done = strict.client("lading", "manifest", "inspect", "--insecure", own)
            assert json.loads(done.stdout)["layers"]


@pytest.mark.parametrize("client_name", ["lading", *docker_clients()])
def test_a_token_is_kept_instead_of_the_password(
    client: Daemon, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_name: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    with own_registry(tmp_path / "guarded", users=True) as guarded:
        name = f"{guarded.host}/{USER}/app:1"

        def run(*arguments: str, **options: object) -> str:
            done = client.client(client_name, *arguments, **options)  # type: ignore[arg-type]
            return (done.stdout + done.stderr).decode()

        password = PASSWORD.encode()
        run("login", "-u", USER, "--password-stdin", guarded.host, input=password)
        kept = (tmp_path / "config/config.json").read_text()
        entry = json.loads(kept)["auths"][guarded.host]
        assert entry["identitytoken"]
        assert base64.b64decode(entry["auth"]).decode() in (f"{USER}:", f"{USER}")
        run("tag", "busybox", name)
        run("push", name)
        if client_name == "lading":
            # Docker's of 20.10 asks for the password again.
            assert "Login Succeeded" in run("login", guarded.host)
        run("rmi", name)
        run("pull", name)
        run("rmi", name)
        # A new password ends what the old one has given.
        subprocess.run(
            [find_client("lading"), "registry", "user", "add", "--auth",
             str(guarded.root / "users"), "--password-stdin", USER],
            input="another-word", text=True, check=True,
        )  # fmt: skip
        lading(client, "tag", "busybox", name)
        assert client.client(client_name, "push", name, check=False).returncode == 1
        lading(client, "rmi", name)


def test_a_helper_keeps_tokens(
    client: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper knows from the name ``<token>`` what the secret is."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.json").write_text('{"credsStore": "shelf"}')
    helper = tmp_path / "docker-credential-shelf"
    helper.write_text(
        f"#!/bin/sh\ncd {tmp_path}\ncase $1 in store) cat > kept;; list) echo '{{}}';;\n"
        "erase) rm -f kept;; get) cat kept || { echo credentials not found; exit 1; };; esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with own_registry(tmp_path / "guarded", users=True) as guarded:
        password = PASSWORD.encode()
        lading(client, "login", "-u", USER, "--password-stdin", guarded.host, input=password)
        kept = json.loads((tmp_path / "kept").read_text())
        assert (kept["ServerURL"], kept["Username"]) == (guarded.host, "<token>")
        assert PASSWORD not in kept["Secret"]
        name = f"{guarded.host}/{USER}/shelf:1"
        lading(client, "tag", "busybox", name)
        lading(client, "push", name)
        lading(client, "rmi", name)
        lading(client, "logout", guarded.host)
        assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("client_name", ["lading", *docker_clients()[1:]])
def test_a_push_of_another_platform_is_refused(client: Daemon, own: Site, client_name: str) -> None:
    name = f"{own.host}/platform/app:1"
    lading(client, "tag", "busybox", name)
    done = client.client(client_name, "push", "--platform", "linux/s390x", name, check=False)
    assert done.returncode == 1
    assert b"does not match the specified platform linux/s390x" in done.stderr
    client.client(client_name, "push", "--platform", "linux/amd64", name)
    lading(client, "rmi", name)


@pytest.mark.parametrize("client_name", ["lading", *docker_clients()])
def test_digests_and_pruning(client: Daemon, own: Site, client_name: str) -> None:
    def run(*arguments: str) -> str:
        return client.client(client_name, *arguments).stdout.decode()

    name = f"{own.host}/pruned/app:1"
    build(client, name, marker="pruned")
    digest = run("push", name).rpartition("digest: ")[2].split()[0]
    shown = run("images", "--digests", "--format", "{{.Tag}} {{.Digest}}", name[:-2])
    assert shown == f"1 {digest}\n"
    run("pull", f"{name[:-2]}@{digest}")
    for filters, left in (
        (["--filter", "until=1h"], True),
        (["--filter", "label!=missing", "--filter", "label=missing"], True),
        ([], True),
        (["-a", "--filter", "until=1h"], True),
        (["-a", "--filter", "until=1ms", "--filter", "label!=missing"], False),
    ):
        run("image", "prune", "-f", *filters)
        assert (run("images", "-q", name) != "") == left
    lading(client, "import", "-", "busybox", input=busybox_image())
