"""``~/.docker/config.json`` as Docker's clients share it, and the contexts beside it."""

from __future__ import annotations

import json
import os
from typing import Any

from lading.cli.errors import Failure

DEFAULT_HOST = "unix:///run/lading.sock"


class Settings:
    """The client's configuration folder; nothing is read before it is asked for."""

    def __init__(self, folder: str) -> None:
        self.folder = folder or os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        self._values: dict[str, Any] | None = None

    @property
    def path(self) -> str:
        """Where ``config.json`` is."""
        return os.path.join(self.folder, "config.json")

    @property
    def values(self) -> dict[str, Any]:
        """The content of ``config.json``; empty when there is none."""
        if self._values is None:
            self._values = self._read()
        return self._values

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, encoding="utf-8") as file:
                values = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Failure(f'read "{self.path}": {error}') from error
        if not isinstance(values, dict):
            raise Failure(f'read "{self.path}": not a JSON object')
        return values

    def text(self, name: str) -> str:
        """A member that is a text, else nothing."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def table(self, name: str) -> dict[str, Any]:
        """A member that is an object, else an empty one."""
        value = self.values.get(name)
        return value if isinstance(value, dict) else {}

    def save(self) -> None:
        """Write the values back: aside first, then renamed, readable by the owner only."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        target = os.path.realpath(self.path)
        aside = f"{target}.{os.getpid()}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(self.values, file, indent="\t")
        os.replace(aside, target)

    def context(self, name: str) -> tuple[str, str]:
        """The host that a context names, and the folder of its certificates ("" for none)."""
        import hashlib  # late: few users have contexts

        key = hashlib.sha256(name.encode()).hexdigest()
        path = os.path.join(self.folder, "contexts", "meta", key, "meta.json")
        try:
            with open(path, encoding="utf-8") as file:
                endpoint = json.load(file)["Endpoints"]["docker"]
        except FileNotFoundError as error:
            raise Failure(f'context "{name}" does not exist') from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failure(f'context "{name}": cannot read "{path}": {error}') from error
        certificates = os.path.join(self.folder, "contexts", "tls", key, "docker")
        return endpoint.get("Host", ""), certificates if os.path.isdir(certificates) else ""
