"""A running registry: listeners, TLS, collection now and then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lading.errors import Invalid
from lading.http.listeners import listen
from lading.http.server import Limits, Server
from lading.http.tls import server_context
from lading_registry_server.address import Address
from lading_registry_server.app import App
from lading_registry_server.collection import collect
from lading_registry_server.store import Store

log = logging.getLogger(__name__)

COLLECT_SECONDS = 3600.0
STOP_SECONDS = 10.0
#: How long a client's connection may wait for its next request.
IDLE_SECONDS = 120.0


@contextmanager
def running(
    root: Path,
    addresses: Sequence[str],
    *,
    users: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    signup: bool = False,
    url: str = "",
    proxies: Sequence[str] = (),
) -> Iterator[Server]:
    """A registry that answers at ``addresses`` (``HOST:PORT``) inside the block.

    ``url`` and ``proxies``: see :class:`lading_registry_server.address.Address`.
    Raises Invalid, InUse, OSError and ssl.SSLError for what cannot be used.
    """
    if (certificate is None) != (key is None):
        raise Invalid("a certificate and its key are needed, both or neither")
    tls = server_context(certificate, key) if certificate is not None and key is not None else None
    address = Address("https" if tls else "http", url=url, proxies=proxies)
    store = Store(root, users)
    try:
        store.blobs.sweep()
        app = App(store, address, signup=signup)
        listeners = [row for a in addresses for row in listen(f"tcp://{a}", tls=tls)]
        server = Server(app, listeners, limits=Limits(idle_seconds=IDLE_SECONDS))
        server.start()
        stopping = threading.Event()
        collecting = threading.Thread(
            target=_collect_now_and_then, args=(store, stopping), name="collect"
        )
        collecting.start()
        try:
            yield server
        finally:
            stopping.set()
            server.stop(STOP_SECONDS)
            collecting.join()
    finally:
        store.close()


def _collect_now_and_then(store: Store, stopping: threading.Event) -> None:
    while not stopping.wait(COLLECT_SECONDS):
        try:
            done = collect(store)
            log.info("collected %d blobs, %d bytes", done.blobs, done.space)
        except Exception:
            log.exception("collection")
