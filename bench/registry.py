"""Debian's ``docker-registry`` on loopback, over a directory that goes away."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


class Registry:
    """One registry, started at the first need; both engines use it by repository."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def host(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None:
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.root = Path(tempfile.mkdtemp(prefix="bench-registry-"))
        self._serve()

    def _serve(self) -> None:
        assert self.root is not None
        config = self.root / "config.yml"
        config.write_text(CONFIG.format(root=self.root, port=self.port))
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def empty(self) -> None:
        """Begin anew without content."""
        self._end()
        assert self.root is not None
        shutil.rmtree(self.root / "data", ignore_errors=True)
        self._serve()

    def _end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def stop(self) -> None:
        """End it and remove its directory."""
        self._end()
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)
            self.root = None
