"""Uploads of the distribution API: sessions to which a client appends, until it names the digest.

A session is a named writer of the blob store. It stays open between requests, so that nothing is
hashed twice; after a restart of the server it goes on from what is on disk.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from lading.errors import Conflict, NotFound
from lading.store.blobs import Blobs, BlobWriter

#: Sessions without a request for so many seconds are closed; their content waits on disk.
IDLE_SECONDS = 600
_ID = re.compile(r"[0-9a-f]{32}")


class Upload:
    """One session; used by one request at a time."""

    def __init__(self, session: str, repository: str, writer: BlobWriter) -> None:
        self.session, self.repository, self.writer = session, repository, writer
        self.lock = threading.Lock()
        self.used = time.monotonic()

    @property
    def offset(self) -> int:
        """Bytes that are here."""
        return self.writer.offset


class Uploads:
    """All sessions; thread safe."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}

    def begin(self, repository: str) -> Upload:
        """A new session."""
        upload = self._opened(uuid4().hex, repository)
        with self._lock:
            self._close_idle()
            self._open[upload.session] = upload
        return upload

    def _opened(self, session: str, repository: str) -> Upload:
        return Upload(session, repository, self._blobs.writer(name=_file_name(session, repository)))

    @contextmanager
    def use(self, session: str, repository: str) -> Iterator[Upload]:
        """The session for one request. Raises NotFound; Conflict while another request has it."""
        upload = self._find(session, repository)
        if not upload.lock.acquire(timeout=1):
            raise Conflict(f"upload {session} is busy with another request")
        try:
            with self._lock:
                if self._open.get(session) is not upload:
                    raise NotFound(f"no upload {session}")
            yield upload
        finally:
            upload.used = time.monotonic()
            upload.lock.release()

    def _find(self, session: str, repository: str) -> Upload:
        with self._lock:
            upload = self._open.get(session)
            if upload is None:
                known = _ID.fullmatch(session) is not None
                if not known or not self._blobs.unfinished(_file_name(session, repository)):
                    raise NotFound(f"no upload {session}")
                upload = self._open[session] = self._opened(session, repository)
        if upload.repository != repository:
            raise NotFound(f"no upload {session}")
        return upload

    def commit(self, upload: Upload) -> str:
        """Make the content a blob and end the session; returns the digest."""
        self._forget(upload)
        return upload.writer.commit()

    def cancel(self, upload: Upload) -> None:
        """End the session and drop its content."""
        self._forget(upload)
        upload.writer.drop()

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._open.pop(upload.session, None)

    def _close_idle(self) -> None:
        for session, upload in list(self._open.items()):
            if time.monotonic() - upload.used > IDLE_SECONDS and upload.lock.acquire(False):
                upload.writer.close()
                del self._open[session]
                upload.lock.release()

    def close(self) -> None:
        """Close all; what is incomplete can be taken up by the next server."""
        with self._lock:
            for upload in self._open.values():
                upload.writer.close()
            self._open.clear()


def _file_name(session: str, repository: str) -> str:
    """Names the repository too, so that a session found on disk stays with its own."""
    return f"upload-{session}-{hashlib.sha256(repository.encode()).hexdigest()[:16]}"
