"""``ladingd``: the place where the parts are put together, listen, and end.

Order matters: the spawner is started before this process has any thread; the data root is locked
before anything of it is read; clients are answered only when what an earlier daemon left has been
taken up. On SIGTERM and SIGINT the daemon ends and leaves the containers running; on SIGHUP it
reads its configuration again.
"""

from __future__ import annotations

import grp
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from lading import config
from lading.api import make_app, observed, server_headers
from lading.config import Settings
from lading.daemon import flags, host
from lading.daemon.engine import Engine, opened
from lading.errors import Invalid, LadingError, Unavailable
from lading.http.listeners import Listener, listen
from lading.http.server import Server
from lading.http.tls import server_context

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to end; returns the exit status."""
    given = flags.parse(arguments)
    try:
        settings = config.load(given.values, given.config_file).settings
        flags.check_hosts(
            settings.hosts,
            tls=settings.tls or settings.tlsverify,
            insecure_tcp=settings.insecure_tcp,
        )
        host.set_up_logging(settings.log_level, debug=settings.debug)
        if os.geteuid() != 0:
            raise Unavailable("start: the daemon needs root")
        # Roots of containers are for their users, whatever the umask of who starts the daemon.
        os.umask(0o022)
        _run(settings, given)
    except LadingError as error:
        print(f"ladingd: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        log.debug("start", exc_info=True)
        print(f"ladingd: {error}", file=sys.stderr)
        return 1
    return 0


def _run(settings: Settings, given: flags.Flags) -> None:
    data_root, exec_root = Path(settings.data_root), Path(settings.exec_root)
    for place in (data_root, exec_root):
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
    (data_root / "tmp").mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(host.locked(data_root))
        stack.enter_context(host.pid_file(Path(settings.pidfile)))
        signals = _Signals()
        engine = stack.enter_context(opened(settings))
        server = _listen(settings, engine)
        stack.callback(server.stop, float(settings.shutdown_timeout))
        server.start()
        host.notify("READY=1")
        log.info("listening on %s", ", ".join(settings.hosts))
        while signals.next() == signal.SIGHUP:
            _reload(engine, given)
        host.notify("STOPPING=1")


class _Signals:
    """Signals that the main thread waits for."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._numbers: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        # A client or a monitor that has gone shows as an error of the write.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._numbers.append(number)
        self._arrived.set()

    def next(self) -> int:
        """Wait for one; those that ask for the end come first."""
        while not self._numbers:
            self._arrived.wait()
            self._arrived.clear()
        self._numbers.sort(key=lambda n: n == signal.SIGHUP)
        return self._numbers.pop(0)


def _listen(settings: Settings, engine: Engine) -> Server:
    tls = _tls(settings)
    listeners: list[Listener] = []
    try:
        for address in settings.hosts:
            group = _group(settings) if address.startswith("unix:") else None
            listeners += listen(address, tls=tls, group=group)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    api = make_app(engine)
    engine.register_routes(api)
    app = observed(api, engine.operations) if engine.operations else api
    return Server(app, listeners, headers=server_headers())


def _group(settings: Settings) -> str | None:
    """The group of the socket; where the default one does not exist, root's alone."""
    try:
        grp.getgrnam(settings.group)
    except KeyError:
        if settings.group != Settings().group:
            raise Invalid(f'group "{settings.group}" does not exist') from None
        return None
    return settings.group


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.tls or settings.tlsverify):
        return None
    if not (settings.tlscert and settings.tlskey):
        raise Invalid("TLS needs --tlscert and --tlskey")
    if settings.tlsverify and not settings.tlscacert:
        raise Invalid("--tlsverify needs --tlscacert, the authority of the clients' certificates")
    authority = Path(settings.tlscacert) if settings.tlsverify else None
    certificate, key = Path(settings.tlscert), Path(settings.tlskey)
    try:
        return server_context(certificate, key, client_authorities=authority)
    except OSError as error:
        raise Invalid(f'TLS certificate "{certificate}", key "{key}": {error}') from error


def _reload(engine: Engine, given: flags.Flags) -> None:
    """SIGHUP: take over what can change while the daemon runs; a mistake changes nothing."""
    try:
        fresh = config.load(given.values, given.config_file).settings
    except LadingError as error:
        log.error("reload the configuration: %s", error)
        return
    host.set_up_logging(fresh.log_level, debug=fresh.debug)
    engine.reload(fresh)
    log.info("configuration reloaded")
