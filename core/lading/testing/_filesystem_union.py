"""Kit, part two: what a snapshot shows after changes on top of its parents."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lading.testing._filesystem_case import Case, KitBase, describe, note, put, xattrs

OLD = 1_000_000_000
ODD = (OLD * 10**9 + 123456789,) * 2


def dated(path: Path) -> int:
    """Give a file an odd time; returns what the filesystem takes down of it (AUFS: seconds)."""
    os.utime(path, ns=ODD)
    taken = path.stat().st_mtime_ns
    assert taken in (ODD[1], OLD * 10**9)
    return taken


class UnionTraps(KitBase):
    """A snapshot behaves as the plain directory tree that it shows."""

    def test_writing_keeps_metadata_of_what_was_below(self, case: Case) -> None:
        """A file from below keeps owner, mode and extended attributes when it is written to."""

        def base(top: Path) -> None:
            file = put(top / "f", "old", 0o640)
            os.chown(file, 12, 34)
            file.chmod(0o2750)
            wanted.update(note(file))

        wanted: dict[str, bytes] = {}
        case.commit("base", "", base)
        with case.active("a", "base") as top:
            with open(top / "f", "a") as file:
                file.write(" new")
            status = (top / "f").stat()
            case.expect("old new", (top / "f").read_text())
            case.expect((12, 34), (status.st_uid, status.st_gid))
            case.expect(wanted, xattrs(top / "f"))

    def test_a_child_shows_exactly_its_parent(self, case: Case) -> None:
        """A snapshot shows its parent's tree: content, owners, modes, times, attributes, links."""

        def base(top: Path) -> None:
            file = put(top / "d/sub/f", "text", 0o640)
            os.chown(file, 12, 34)
            note(file)
            os.link(file, top / "d/linked")
            (top / "d/link").symlink_to("sub/f")
            os.chown(top / "d/link", 56, 78, follow_symlinks=False)
            note(top / "d/sub")
            with open(top / "holes", "wb") as holes:
                holes.truncate(1 << 20)
                holes.seek(1 << 19)
                holes.write(b"data")
            taken.extend(dated(top / path) for path in ("holes", "d/sub/f", "d/sub", "d"))

        taken: list[int] = []
        case.commit("base", "", base)
        before = case.tree("base")
        with case.active("a", "base") as top:
            case.expect(before, describe(top))
            case.expect(taken[1], (top / "d/sub/f").stat().st_mtime_ns)
            case.expect(True, os.path.samefile(top / "d/sub/f", top / "d/linked"))
        case.commit("c", "base", lambda top: None)
        case.expect(before, case.tree("c"))

    def test_changing_the_mode_keeps_content_and_time(self, case: Case) -> None:
        """A change of metadata keeps the content and its time to the nanosecond."""

        def base(top: Path) -> None:
            taken.append(dated(put(top / "f", "text")))

        taken: list[int] = []
        case.commit("base", "", base)
        with case.active("a", "base") as top:
            (top / "f").chmod(0o400)
            case.expect("text", (top / "f").read_text())
            case.expect(taken[0], (top / "f").stat().st_mtime_ns)

    def test_making_a_file_keeps_metadata_of_the_directory_from_below(self, case: Case) -> None:
        """A directory from below keeps owner, mode and attributes when it gets a new entry."""

        def base(top: Path) -> None:
            (top / "d/sub").mkdir(parents=True)
            for path in (top / "d", top / "d/sub"):
                os.chown(path, 12, 34)
                path.chmod(0o2711)
                note(path)

        case.commit("base", "", base)
        wanted = {path: entry[:2] + entry[4:] for path, entry in case.tree("base").items()}
        case.commit("above", "base", lambda top: put(top / "d/sub/new"))
        found = {path: entry[:2] + entry[4:] for path, entry in case.tree("above").items()}
        case.expect(wanted, {path: found[path] for path in wanted})

    def test_changing_metadata_of_a_link_leaves_its_target(self, case: Case) -> None:
        """The owner of a symbolic link from below can be changed; what it leads to stays."""

        def base(top: Path) -> None:
            put(top / "f")
            (top / "link").symlink_to("f")

        case.commit("base", "", base)

        def change(top: Path) -> None:
            os.chown(top / "link", 12, 34, follow_symlinks=False)

        case.commit("above", "base", change)
        found = case.tree("above")
        case.expect([(0, 0), (12, 34)], [found["f"][1], found["link"][1]])
        case.expect(b"f", found["link"][3])

    def test_special_modes_and_owners_are_kept(self, case: Case) -> None:
        """Set-user-ID, set-group-ID, sticky and the owner are kept in committed snapshots."""

        def base(top: Path) -> None:
            for name, mode in (("suid", 0o4755), ("sgid", 0o2755)):
                file = put(top / name)
                os.chown(file, 1000, 1001)
                file.chmod(mode)
            (top / "tmp").mkdir()
            (top / "tmp").chmod(0o1777)

        case.commit("base", "", base)
        found = case.tree("base")
        case.expect("-rwsr-xr-x", found["suid"][0])
        case.expect("-rwxr-sr-x", found["sgid"][0])
        case.expect("drwxrwxrwt", found["tmp"][0])
        case.expect((1000, 1001), found["suid"][1])

    def test_capabilities_of_files_are_kept(self, case: Case) -> None:
        """Extended attributes, security.capability among them, are kept."""
        wanted = bytes.fromhex("0100000200040000000000000000000000000000")

        def base(top: Path) -> None:
            os.setxattr(put(top / "ping", "x", 0o755), "security.capability", wanted)

        case.commit("base", "", base)
        case.expect(wanted, case.tree("base")["ping"][4].get("security.capability"))

    def test_the_roots_own_metadata_are_inherited(self, case: Case) -> None:
        """The root directory of a snapshot has the mode and owner of its parent's."""

        def base(top: Path) -> None:
            os.chown(top, 5, 6)
            top.chmod(0o711)

        case.commit("base", "", base)
        with case.active("a", "base") as top:
            status = top.stat()
            case.expect((0o711, 5, 6), (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid))

    def test_the_root_of_an_empty_snapshot_is_open_to_all(self, case: Case) -> None:
        """The root directory of an empty snapshot has mode 0755 and belongs to root."""
        with case.active("a") as top:
            status = top.stat()
            case.expect((0o755, 0), (stat.S_IMODE(status.st_mode), status.st_uid))

    def test_hard_links_stay_one_file(self, case: Case) -> None:
        """Names of one file made in one snapshot stay names of one file."""

        def base(top: Path) -> None:
            os.link(put(top / "one", "text"), top / "two")

        case.commit("base", "", base)
        with case.seen("base") as top:
            case.expect(True, os.path.samefile(top / "one", top / "two"))

    def test_a_new_hard_link_to_a_file_from_below(self, case: Case) -> None:
        """A new name of a file from below is a name of the same file."""
        case.commit("base", "", lambda top: put(top / "one", "text"))

        def link(top: Path) -> None:
            os.link(top / "one", top / "two")

        case.commit("above", "base", link)
        with case.seen("above") as top:
            case.expect(True, os.path.samefile(top / "one", top / "two"))
            case.expect("text", (top / "two").read_text())

    def test_writing_to_one_of_two_names_of_a_file_from_below(self, case: Case) -> None:
        """Of a file with two names from below, both change or the other stays as it was.

        The first is POSIX, the second what stacked layers can do; either way a committed snapshot
        shows what the active one showed.
        """

        def base(top: Path) -> None:
            os.link(put(top / "one", "old"), top / "two")

        case.commit("base", "", base)
        with case.active("a", "base") as top:
            (top / "one").write_text("new")
            case.expect("new", (top / "one").read_text())
            shown = (top / "two").read_text()
        assert shown in ("old", "new"), f"the other name shows {shown!r}; rule: {case.rule}"
        case.backend.commit(key="a", name="above")
        with case.seen("above") as top:
            texts = [(top / name).read_text() for name in ("one", "two")]
        case.expect(["new", shown], texts)

    def test_a_deleted_file_is_gone_and_can_come_again(self, case: Case) -> None:
        """A deletion hides what is below; a file made anew in its place is just that."""
        case.commit("base", "", lambda top: put(top / "d/f", "old", 0o600))
        case.commit("gone", "base", lambda top: (top / "d/f").unlink())
        case.expect(["d"], list(case.tree("gone")))
        case.commit("again", "gone", lambda top: put(top / "d/f", "new"))
        with case.seen("again") as top:
            case.expect("new", (top / "d/f").read_text())

    def test_a_directory_made_anew_is_empty(self, case: Case) -> None:
        """What was in a deleted directory does not show through one made in its place."""
        case.commit("base", "", lambda top: put(top / "d/sub/f"))

        def change(top: Path) -> None:
            shutil.rmtree(top / "d")
            put(top / "d/other")

        case.commit("above", "base", change)
        case.expect(["d", "d/other"], sorted(case.tree("above")))

    def test_directory_becomes_file_becomes_link_becomes_directory(self, case: Case) -> None:
        """A name may change its kind from snapshot to snapshot."""
        case.commit("1", "", lambda top: put(top / "x/inside"))

        def to_file(top: Path) -> None:
            shutil.rmtree(top / "x")
            put(top / "x", "file")

        def to_link(top: Path) -> None:
            (top / "x").unlink()
            (top / "x").symlink_to("/nowhere")

        def to_directory(top: Path) -> None:
            (top / "x").unlink()
            (top / "x").mkdir()

        case.commit("2", "1", to_file)
        case.commit("3", "2", to_link)
        case.commit("4", "3", to_directory)
        with case.seen("2") as top:
            case.expect("file", (top / "x").read_text())
        with case.seen("3") as top:
            case.expect("/nowhere", os.readlink(top / "x"))
        case.expect(["x"], list(case.tree("4")))

    def test_renaming_what_is_below(self, case: Case) -> None:
        """A file from below can be renamed; the old name is gone."""
        case.commit("base", "", lambda top: put(top / "d/f", "text"))
        case.commit("above", "base", lambda top: os.rename(top / "d/f", top / "g"))
        with case.seen("above") as top:
            case.expect(["d", "g"], sorted(describe(top)))
            case.expect("text", (top / "g").read_text())

    def test_renaming_over_what_is_below(self, case: Case) -> None:
        """A rename replaces a file from below at once."""
        case.commit("base", "", lambda top: put(top / "f", "old"))
        case.commit("above", "base", lambda top: os.rename(put(top / "new", "new"), top / "f"))
        with case.seen("above") as top:
            case.expect(["f"], os.listdir(top))
            case.expect("new", (top / "f").read_text())

    def test_moving_a_directory_from_below(self, case: Case) -> None:
        """A directory from below can be moved, by rename or, where that says EXDEV, by copying."""
        case.commit("base", "", lambda top: put(top / "d/sub/f", "text"))

        def move(top: Path) -> None:
            try:
                os.rename(top / "d", top / "e")
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.move(top / "d", top / "e")

        case.commit("above", "base", move)
        case.expect(["e", "e/sub", "e/sub/f"], sorted(case.tree("above")))

    def test_an_open_file_outlives_its_name(self, case: Case) -> None:
        """A file from below that is deleted while open stays readable."""
        case.commit("base", "", lambda top: put(top / "f", "text"))
        with case.active("a", "base") as top, open(top / "f") as file:
            (top / "f").unlink()
            case.expect("text", file.read())

    def test_renames_in_one_snapshot_after_the_other(self, case: Case) -> None:
        """What one snapshot has renamed, or put in place, the next one can rename again."""
        case.commit("1", "", lambda top: put(top / "a/f", "text"))
        case.commit("2", "1", lambda top: os.rename(top / "a/f", top / "g"))
        case.commit("3", "2", lambda top: os.rename(top / "g", top / "a/f"))

        def swap(top: Path) -> None:
            put(top / "a/other", "other")
            os.rename(top / "a/f", top / "a/kept")
            os.rename(top / "a/other", top / "a/f")

        case.commit("4", "3", swap)
        case.expect(["a", "g"], sorted(case.tree("2")))
        case.expect(["a", "a/f"], sorted(case.tree("3")))
        with case.seen("4") as top:
            case.expect(["f", "kept"], sorted(os.listdir(top / "a")))
            case.expect(["other", "text"], [(top / "a" / n).read_text() for n in ("f", "kept")])

    def test_a_file_written_while_it_is_open_below_and_deleted(self, case: Case) -> None:
        """A file from below that is opened for writing, then deleted, takes what is written."""
        case.commit("base", "", lambda top: put(top / "f", "text"))
        with case.active("a", "base") as top:
            with open(top / "f", "r+") as file:
                (top / "f").unlink()
                file.write("TEXT and more")
                file.flush()
                file.seek(0)
                case.expect("TEXT and more", file.read())
            case.expect([], os.listdir(top))
        with case.seen("base") as top:
            case.expect("text", (top / "f").read_text())

    def test_every_kind_of_file(self, case: Case) -> None:
        """Files, directories, links, pipes, devices and sockets may be in a snapshot."""

        def base(top: Path) -> None:
            (top / "link").symlink_to("../../f")
            os.mkfifo(top / "pipe", 0o600)
            os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(top / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 9))
            with socket.socket(socket.AF_UNIX) as listening:
                here = os.open(top, os.O_PATH)
                listening.bind(f"/proc/self/fd/{here}/socket")
                os.close(here)

        case.commit("base", "", base)
        found = case.tree("base")
        case.expect(
            {"link": "l", "pipe": "p", "null": "c", "disk": "b", "socket": "s"},
            {name: entry[0][0] for name, entry in found.items()},
        )
        case.expect(os.makedev(7, 9), found["disk"][3])

    def test_names_are_bytes(self, case: Case) -> None:
        """Names are any bytes but slash and NUL, as many as the filesystem says that it takes."""
        names = [b"\xff\xfe bad utf-8", b"new\nline", b" ", b"\xc3\xa4"]

        def base(top: Path) -> None:
            # 255 on most; AUFS keeps some of them for its own.
            longest = os.statvfs(top).f_namemax
            case.expect(True, longest >= 240)
            names.append(b"x" * longest)
            for name in names:
                os.close(os.open(os.fsencode(top) + b"/" + name, os.O_CREAT | os.O_WRONLY))

        case.commit("base", "", base)
        case.commit("above", "base", lambda top: os.unlink(os.fsencode(top) + b"/" + names[0]))
        with case.seen("above") as top:
            case.expect(sorted(names[1:]), sorted(os.listdir(os.fsencode(top))))

    def test_times_of_files_and_directories_are_kept(self, case: Case) -> None:
        """Times of modification are kept to the nanosecond."""

        def base(top: Path) -> None:
            put(top / "d/written")
            taken.append((top / "d/written").stat().st_mtime_ns)
            taken.append(dated(put(top / "d/f")))
            taken.append(dated(top / "d"))

        taken: list[int] = []
        case.commit("base", "", base)
        with case.seen("base") as top:
            found = [(top / name).stat().st_mtime_ns for name in ("d/written", "d/f", "d")]
            case.expect(taken, found)

    def test_listing_shows_each_name_once(self, case: Case) -> None:
        """A directory that several snapshots share lists each name once, and no marks."""
        case.commit("1", "", lambda top: [put(top / f"d/{n}") for n in "abc"])
        case.commit("2", "1", lambda top: [put(top / f"d/{n}", "2") for n in "bcd"])

        def delete(top: Path) -> None:
            (top / "d/a").unlink()
            (top / "d/d").unlink()

        case.commit("3", "2", delete)
        with case.seen("3") as top:
            case.expect(["b", "c"], sorted(os.listdir(top / "d")))

    def test_writing_through_a_link_from_below(self, case: Case) -> None:
        """A symbolic link from below leads to the file as this snapshot has it."""

        def base(top: Path) -> None:
            put(top / "f", "old")
            (top / "link").symlink_to("f")

        case.commit("base", "", base)
        with case.active("a", "base") as top:
            (top / "link").write_text("new")
            case.expect("new", (top / "f").read_text())
            case.expect(True, (top / "link").is_symlink())

    @pytest.mark.parametrize("depth", [2, 130])
    def test_many_layers(self, case: Case, depth: int) -> None:
        """A snapshot may have more than 128 ancestors."""
        parent = ""
        for number in range(depth):
            parent = case.commit(f"sha256:{number:064}", parent, _file(number))
        with case.active("a", parent) as top:
            case.expect(depth, len(os.listdir(top)))
            case.expect("0", (top / "f0").read_text())
            (top / "f0").unlink()
            case.expect(depth - 1, len(os.listdir(top)))


def _file(number: int) -> Callable[[Path], object]:
    return lambda top: put(top / f"f{number}", str(number))
