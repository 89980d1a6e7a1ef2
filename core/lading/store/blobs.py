"""Content-addressed blobs in OCI layout: ``blobs/sha256/<hex>``.

A blob is written under a temporary name in ``ingest/``, hashed on the way, synced, compared with
the digest that was expected, and renamed: what has a digest for a name has that content. A writer
with a name can be taken up again where it ended, also after a crash.

What can be made again, the layers of a build, may be synced *later*: nobody waits for the disk.
Until then its digest stands in ``unsynced/``, and what a start finds there is read and compared.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lading.errors import Invalid, NotFound

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
CHUNK = 1 << 20
#: Unfinished writes older than this are swept at start.
FORGOTTEN_SECONDS = 7 * 24 * 3600


class Blobs:
    """All blobs of one data root; thread safe."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._unsynced = root / "unsynced"
        for directory in (self._blobs, self._ingest, self._unsynced):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Raises Invalid for what is no sha256 digest."""
        if not _DIGEST.fullmatch(digest):
            raise Invalid(f'unsupported digest "{digest}": sha256:<64 hex digits> is expected')
        return self._blobs / digest[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Its length in bytes. Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise NotFound(f"no blob {digest}") from error

    def age(self, digest: str) -> float:
        """Seconds since it was written; endless for one that is gone."""
        try:
            return time.time() - self.path(digest).stat().st_mtime
        except FileNotFoundError:
            return math.inf

    def open(self, digest: str) -> BinaryIO:
        """Open it for reading, unbuffered. Raises NotFound."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFound(f"no blob {digest}") from error

    def read(self, digest: str) -> bytes:
        """All of a small one. Raises NotFound."""
        with self.open(digest) as file:
            return file.read()

    def write(self, data: bytes) -> str:
        """Store some bytes and return their digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def writer(self, expected: str = "", name: str = "") -> BlobWriter:
        """Begin a blob. With ``name`` it goes on where a writer of that name ended.

        ``expected`` is the digest that :meth:`BlobWriter.commit` insists on.
        """
        return BlobWriter(self, self._ingest / (name or f"t-{uuid4().hex}"), expected)

    def unfinished(self, name: str) -> bool:
        """Whether a writer of that name has left something to take up."""
        return (self._ingest / name).exists()

    def remove(self, digest: str) -> None:
        """Remove it; what is gone already is fine."""
        self.path(digest).unlink(missing_ok=True)

    def walk(self) -> Iterator[str]:
        """The digests of all blobs."""
        for entry in os.scandir(self._blobs):
            yield f"sha256:{entry.name}"

    def sweep(self) -> list[str]:
        """Remove unfinished writes that nobody will take up; at start, before any writer.

        Returns the digests of blobs that a failure of power has damaged; they are gone.
        """
        for path in self._ingest.iterdir():
            old = path.stat().st_mtime < time.time() - FORGOTTEN_SECONDS
            if path.name.startswith("t-") or old:
                path.unlink(missing_ok=True)
        lost = []
        for mark in self._unsynced.iterdir():
            digest = f"sha256:{mark.name}"
            if self._is_whole(digest):
                self._settle(digest)
            else:
                self.remove(digest)
                mark.unlink()
                lost.append(digest)
        return lost

    def _is_whole(self, digest: str) -> bool:
        total = hashlib.sha256()
        try:
            with self.open(digest) as file:
                while piece := file.read(CHUNK):
                    total.update(piece)
        except NotFound:
            return False
        return f"sha256:{total.hexdigest()}" == digest

    def mark_unsynced(self, digest: str) -> None:
        """Note that a blob of this digest is about to be there without being on disk for sure."""
        (self._unsynced / self.path(digest).name).touch()

    def settle(self, digest: str) -> None:
        """Sync a blob that was marked, on a thread of its own."""
        threading.Thread(target=self._settle, args=(digest,), name="blob-sync", daemon=True).start()

    def _settle(self, digest: str) -> None:
        try:
            with self.open(digest) as file:
                os.fsync(file.fileno())
            _sync_directory(self._blobs)
        except NotFound:
            # Collected meanwhile.
            pass
        except OSError as error:
            log.warning("sync of blob %s: %s", digest, error)
            return
        (self._unsynced / self.path(digest).name).unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes free on the blobs' filesystem."""
        return shutil.disk_usage(self._blobs).free


class BlobWriter:
    """A blob being written; a context manager that drops a nameless one that was not committed."""

    def __init__(self, blobs: Blobs, path: Path, expected: str) -> None:
        self._blobs, self._path, self._expected = blobs, path, expected
        self._resumable = not path.name.startswith("t-")
        self._file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        self._hash = hashlib.sha256()
        self.offset = 0
        self._file.seek(0)
        while piece := self._file.read(CHUNK):
            self._hash.update(piece)
            self.offset += len(piece)

    def write(self, data: bytes | memoryview) -> None:
        """Append some bytes. Raises OSError, such as ENOSPC."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)
        self.offset += len(data)

    def fileno(self) -> int:
        """The descriptor, for a task that writes; tell :meth:`commit_written` what it wrote."""
        return self._file.fileno()

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self) -> str:
        """Make it a blob and return its digest.

        Raises Invalid when that is not the expected one; the content is dropped then.
        """
        return self.commit_written(self.digest)

    def commit_written(self, digest: str, *, later: bool = False) -> str:
        """As :meth:`commit`, when somebody else wrote and hashed the content.

        ``later``: it is synced in the background, see above.
        """
        if self._expected and digest != self._expected:
            self.drop()
            raise Invalid(f"digest is {digest} where {self._expected} was expected")
        final = self._blobs.path(digest)
        if later and not final.exists():
            self._blobs.mark_unsynced(digest)
            self._file.close()
            os.rename(self._path, final)
            self._blobs.settle(digest)
            return digest
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self._path, final)
        _sync_directory(final.parent)
        return digest

    def restart(self) -> None:
        """Drop what was written and begin anew."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def drop(self) -> None:
        """Give it up. A second call does nothing."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go: a named one can be taken up later, another is dropped."""
        if self._resumable:
            self._file.close()
        else:
            self.drop()

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
