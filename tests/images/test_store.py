"""Names, ids, removal, what survives a restart."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest

from lading.errors import Conflict, Invalid, NotFound
from lading.images.removal import User

from .conftest import Store, archive, tar

pytestmark = pytest.mark.root


def test_an_image_is_found_by_each_of_its_names(store: Store) -> None:
    image = store.make("app:1", "f")
    hexadecimal = image.id.removeprefix("sha256:")
    for ref in ("app:1", "docker.io/library/app:1", image.id, hexadecimal, hexadecimal[:12]):
        assert store.images.get(ref).id == image.id
    with pytest.raises(NotFound, match="No such image: app:latest"):
        store.images.get("app")


def test_a_tag_moves(store: Store) -> None:
    first, second = store.make("app", "1"), store.make("other", "2")
    store.images.tag("other", "app")
    assert store.images.get("app").id == second.id
    assert store.images.get(first.id).repo_tags == ()
    assert store.images.get("app").repo_tags == ("app:latest", "other:latest")
    with pytest.raises(Invalid):
        store.images.tag("app", "app@sha256:" + "0" * 64)


def test_import_applies_changes(store: Store) -> None:
    changes = ["CMD echo hi", 'ENV a=1 b="2 3"', "EXPOSE 80", "LABEL x=y", "USER me", "WORKDIR w"]
    config = store.make("app", "f", changes=changes).config.config
    assert config == {
        "Cmd": ["/bin/sh", "-c", "echo hi"],
        "Env": ["a=1", "b=2 3"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"x": "y"},
        "User": "me",
        "WorkingDir": "/w",
    }
    with pytest.raises(Invalid, match="RUN is not a valid change command"):
        store.make("bad", "f", changes=["RUN x"])


def test_a_damaged_import_leaves_nothing(store: Store) -> None:
    with pytest.raises(Invalid):
        store.images.import_(io.BytesIO(b"no tar" * 200), repo="bad")
    store.reopen()
    assert store.images.list(all=True) == []
    assert list(store.blobs.walk()) == []
    assert store.snapshots() == set()


def test_commit_adds_a_layer(store: Store) -> None:
    base = store.make("base", "kept", "gone", "d/")

    def change(top):  # type: ignore[no-untyped-def]
        (top / "gone").unlink()
        (top / "d/new").write_text("new")

    image = store.commit(base, change, "app", comment="why", changes=["ENV x=1"])
    assert store.files(image) == {"kept": "kept", "d/new": "new"}
    assert len(image.layers) == 2
    assert image.config.config == {"Env": ["x=1"]}
    assert [h.comment for h in store.images.history("app")] == ["why", ""]
    assert [h.id for h in store.images.history("app")] == [image.id, base.id]


def test_commit_without_change_adds_no_layer(store: Store) -> None:
    base = store.make("base", "f")
    image = store.commit(base, lambda top: None)
    assert [la.diff_id for la in image.layers] == [la.diff_id for la in base.layers]
    assert image.id != base.id


def test_commit_knows_nothing_of_mount_points(store: Store) -> None:
    """What an engine puts into every root is below the container's own layer."""
    base = store.make("base", "f")
    backend = store.filesystems.get()
    recipe = backend.hook.view(key="v", parent=store.images.snapshot_for(base), labels={})
    with store.mounted(recipe) as top:
        assert (top / "proc").is_dir()
        assert (top / "etc/resolv.conf").is_file()
    backend.hook.remove(key="v")
    image = store.commit(base, lambda top: (top / "new").touch())
    assert store.save(image.id).count(b"resolv.conf") == 0


def test_every_backend_shows_the_same_image(store: Store) -> None:
    base = store.make("base", "a", "d/", "d/f")
    image = store.commit(base, lambda top: (top / "d/f").unlink())
    usable = [b.name for b in store.filesystems.usable()]
    assert len(usable) > 1
    for name in usable:
        assert store.files(image, name) == {"a": "a"}


def test_removing_a_name_then_the_image(store: Store) -> None:
    image = store.make("app", "f")
    store.images.tag("app", "app:2")
    assert [d.untagged for d in store.images.remove("app:2")] == ["app:2"]
    done = store.images.remove("app")
    assert [d.untagged for d in done if d.untagged] == ["app:latest"]
    assert [d.deleted for d in done if d.deleted] == [image.id, image.layers[0].chain_id]
    assert list(store.blobs.walk()) == []
    assert store.snapshots() == set()
    actions = [action for action, _ in store.seen()]
    assert actions == ["import", "tag", "untag", "untag", "delete"]


def test_images_in_use_stay(store: Store) -> None:
    image = store.make("app", "f")
    store.users[image.id] = [User("c" * 64, running=False)]
    with pytest.raises(Conflict, match="must force"):
        store.images.remove("app")
    with pytest.raises(Conflict, match=r"must be forced.*stopped container cccccccccccc"):
        store.images.remove(image.id)
    store.users[image.id] = [User("c" * 64, running=True)]
    with pytest.raises(Conflict, match="cannot be forced"):
        store.images.remove(image.id, force=True)
    assert store.images.get("app").id == image.id


def test_an_image_of_several_repositories_needs_force(store: Store) -> None:
    image = store.make("app", "f")
    store.images.tag("app", "other")
    with pytest.raises(Conflict, match="multiple repositories"):
        store.images.remove(image.id)
    store.images.remove(image.id, force=True)
    with pytest.raises(NotFound):
        store.images.get(image.id)


def test_parents_without_a_name_go_with_their_child(store: Store) -> None:
    base = store.make("base", "f")
    middle = store.commit(base, lambda top: (top / "m").touch())
    top = store.commit(middle, lambda top: (top / "t").touch(), "app")
    with pytest.raises(Conflict, match="dependent child images"):
        store.images.remove(middle.id)
    assert [i.id for i in store.images.list()] == [top.id, base.id]
    assert len(store.images.list(all=True)) == 3
    done = [d.deleted for d in store.images.remove("app") if d.deleted]
    assert done[0] == top.id
    assert middle.id in done
    assert [i.id for i in store.images.list(all=True)] == [base.id]


def test_noprune_keeps_parents(store: Store) -> None:
    base = store.make("base", "f")
    middle = store.commit(base, lambda top: (top / "m").touch())
    store.commit(middle, lambda top: (top / "t").touch(), "app")
    store.images.remove("app", noprune=True)
    assert middle.id in [i.id for i in store.images.list(all=True)]


def test_prune(store: Store) -> None:
    store.make("kept", "1")
    first = store.make("app", "2")
    used = store.make("used", "3")
    store.make("app", "4")
    store.users[used.id] = [User("c" * 64, running=False)]
    report = store.images.prune({})
    assert [d.deleted for d in report.deleted if d.deleted][:1] == [first.id]
    assert report.space > 0
    store.images.prune({"dangling": ["false"]})
    assert [i.id for i in store.images.list()] == [used.id]


def test_filters(store: Store) -> None:
    first = store.make("one", "1", changes=["LABEL kind=a"])
    second = store.make("reg.example/team/two:v1", "2", changes=["LABEL kind=b"])

    def found(**filters: str) -> list[str]:
        rows = store.images.list({k: [v] for k, v in filters.items()})
        return [image.id for image in rows]

    assert found(label="kind") == [second.id, first.id]
    assert found(label="kind=a") == [first.id]
    assert found(reference="one") == [first.id]
    assert found(reference="*/team/*") == [second.id]
    assert found(reference="*") == [first.id]
    assert found(before="reg.example/team/two:v1") == [first.id]
    assert found(since="one") == [second.id]
    assert found(dangling="true") == []
    assert found(until="1h") == found(until="2014-01-01") == []
    assert found(until="0s") == found(until=str(2**32)) == [second.id, first.id]
    with pytest.raises(Invalid, match="time or duration"):
        found(until="yesterday")
    with pytest.raises(Invalid, match="invalid filter 'nonsense'"):
        found(nonsense="x")


def test_a_restart_changes_nothing_and_sweeps_debris(store: Store) -> None:
    image = store.make("app", "f")
    before = store.files(image)
    orphans = [store.blobs.path("sha256:" + digit * 64) for digit in "01"]
    for orphan in orphans:
        orphan.write_bytes(b"orphan")
    os.utime(orphans[0], (0, 0))
    store.blobs.writer().write(b"half")
    store.filesystems.get().hook.prepare(key="unpack-dead", parent="", labels={})
    store.reopen()
    assert store.files(store.images.get("app")) == before
    # A recent one may be of a pull that is taken up again.
    assert [orphan.exists() for orphan in orphans] == [False, True]
    assert "unpack-dead" not in store.snapshots()


def test_sizes_count_each_layer_once(store: Store) -> None:
    base = store.make("base", "x" * 90)
    image = store.commit(base, lambda top: (top / "more").write_bytes(b"y" * 1000), "app")
    assert base.size == 90
    assert image.size == 1090
    assert store.images.layers_size() == 1090


def test_directories_that_a_layer_leaves_out_are_the_parents(store: Store) -> None:
    """Also where layers are unpacked side by side."""
    base = archive_of(("d", 0o2750, 7), ("d/e", 0o1777, 9))
    layers = [base, tar("d/e/new", "fresh/f"), tar("d/.wh.e")]
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    for count, modes in ((2, [0o2750, 0o1777, 0o755]), (3, [0o2750, 0o755])):
        rootfs = {"type": "layers", "diff_ids": digests[:count]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        names = [f"{n}/layer.tar" for n in range(count)]
        manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": names}]
        members = dict(zip(names, layers, strict=False))
        data = archive(
            {"manifest.json": json.dumps(manifest).encode(), "c.json": config, **members}
        )
        assert store.load(data) == ["app:1"]
        backend = store.filesystems.get()
        recipe = backend.hook.view(
            key="v", parent=store.images.snapshot_for(store.images.get("app:1")), labels={}
        )
        try:
            with store.mounted(recipe) as top:
                found = [top / "d", top / "d/e", top / "fresh"]
                assert [p.stat().st_mode & 0o7777 for p in found if p.exists()] == modes
                assert (top / "d").stat().st_uid == 7
                assert (top / "fresh/f").read_bytes() == b"fresh/f"
        finally:
            backend.hook.remove(key="v")


def archive_of(*directories: tuple[str, int, int]) -> bytes:
    """A layer of directories with mode and owner."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, mode, owner in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid = tarfile.DIRTYPE, mode, owner
            made.addfile(entry)
    return buffer.getvalue()
