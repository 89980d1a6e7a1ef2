"""One run of the client: which daemon it talks to, in which version of the API, and how."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from lading.cli.errors import DaemonError, Failure
from lading.cli.settings import DEFAULT_HOST, Settings
from lading.errors import LadingError, Unavailable
from lading.http.client import Client, RequestBody, Response, Upgraded

if TYPE_CHECKING:
    import ssl

NEWEST_API = (1, 51)
OLDEST_API = (1, 24)


class Session:
    """The daemon's connection, and the settings and streams of this process.

    ``flags`` are the global flags that were given. The connection is made, and the version of
    the API agreed on, with the first request.
    """

    def __init__(self, *, host: str = "", flags: Mapping[str, Any] | None = None) -> None:
        self._flags = dict(flags or {})
        self.settings = Settings(str(self._flags.get("config", "")))
        self._wanted_host = host
        self._client: Client | None = None
        self._api: tuple[int, int] | None = None
        self.debug = bool(self._flags.get("debug"))

    @property
    def client(self) -> Client:
        """The HTTP client."""
        if self._client is None:
            host, certificates = self._endpoint()
            tls = self._tls(host, certificates)
            headers = {"User-Agent": "Docker-Client/lading (linux)"}
            headers |= {str(k): str(v) for k, v in self.settings.table("HttpHeaders").items()}
            if trace := os.environ.get("TRACEPARENT"):
                headers["traceparent"] = trace  # W3C Trace Context, as other programs take it
            if tls is not None and host.startswith("tcp://"):
                host = "https" + host[3:]
            self._client = Client(host, tls=tls, headers=headers)
        return self._client

    @property
    def host(self) -> str:
        """The daemon's address as the user would write it."""
        return self._endpoint()[0]

    @property
    def host_given(self) -> bool:
        """Whether the user named a daemon, by flag or environment."""
        names = ("LADING_HOST", "DOCKER_HOST", "DOCKER_CONTEXT")
        given = self._wanted_host or self._flags.get("context")
        return bool(given or any(os.environ.get(name) for name in names))

    def _endpoint(self) -> tuple[str, str]:
        context = str(self._flags.get("context", ""))
        if self._wanted_host and context:
            raise Failure("conflicting options: cannot specify both --host and --context")
        host = self._wanted_host
        if not host and not context:
            host = os.environ.get("LADING_HOST") or os.environ.get("DOCKER_HOST", "")
        if host:
            return host if "://" in host else f"tcp://{host}", ""
        # `currentContext` of Docker's own configuration is left alone: it names Docker's daemon.
        name = context or os.environ.get("DOCKER_CONTEXT")
        if name and name != "default":
            return self.settings.context(name)
        return DEFAULT_HOST, ""

    def _tls(self, host: str, certificates: str) -> ssl.SSLContext | None:
        verify = self._flags.get("tlsverify", bool(os.environ.get("DOCKER_TLS_VERIFY")))
        wanted = verify or self._flags.get("tls") or bool(certificates)
        if not wanted or host.startswith("unix://"):
            return None
        from pathlib import Path  # late, with ssl: TLS is the rare case

        from lading.http.tls import client_context

        folder = certificates or os.environ.get("DOCKER_CERT_PATH") or self.settings.folder
        paths = {}
        for name in ("ca", "cert", "key"):
            given = self._flags.get("tlscacert" if name == "ca" else f"tls{name}")
            path = given if given is not None else os.path.join(folder, f"{name}.pem")
            usable = path and (given is not None or os.path.exists(path))
            paths[name] = Path(path) if usable else None
        try:
            return client_context(
                authorities=paths["ca"] if verify or certificates else None,
                certificate=paths["cert"],
                key=paths["key"],
                verify=bool(verify or certificates),
            )
        except OSError as error:
            raise Failure(f"unable to use the TLS files: {error}") from error

    @property
    def api(self) -> tuple[int, int]:
        """The version of the API that both sides speak."""
        if self._api is None:
            pinned = os.environ.get("DOCKER_API_VERSION", "").lstrip("v")
            self._api = _version(pinned) if pinned else self._negotiated()
        return self._api

    def _negotiated(self) -> tuple[int, int]:
        with self._send("HEAD", "/_ping") as response:
            spoken = response.headers.get("api-version", "")
        if not spoken:
            with self._send("GET", "/_ping") as response:
                spoken = response.headers.get("api-version", "")
        return min(NEWEST_API, _version(spoken)) if spoken else OLDEST_API

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json_body: object = None,
        body: RequestBody = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request below the version's prefix; raises DaemonError for an error status."""
        major, minor = self.api
        merged = dict(headers or {})
        if json_body is not None:
            body = json.dumps(json_body).encode()
            merged.setdefault("Content-Type", "application/json")
        response = self._send(
            method, f"/v{major}.{minor}{path}", query=query, body=body, headers=merged
        )
        if response.status >= 400:
            raise _daemon_error(response)
        return response

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer to a GET."""
        with self.request("GET", path, query=_given(query)) as response:
            return response.json()

    def post(self, path: str, body: object = None, **query: Any) -> Any:
        """The JSON answer to a POST, None for an empty one."""
        with self.request("POST", path, query=_given(query), json_body=body) as response:
            return response.json()

    def delete(self, path: str, **query: Any) -> Any:
        """The JSON answer to a DELETE, None for an empty one."""
        with self.request("DELETE", path, query=_given(query)) as response:
            return response.json()

    def stream(self, method: str, path: str, **options: Any) -> Iterator[Any]:
        """The JSON objects of an answer that is a stream of them, as they come."""
        with self.request(method, path, **options) as response:
            yield from json_stream(response)

    def upgrade(self, path: str, *, query: Mapping[str, Any], body: object = None) -> Upgraded:
        """POST and take the connection over; raises DaemonError when the daemon declines."""
        major, minor = self.api
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data else {}
        try:
            raw = self.client.upgrade(
                "POST", f"/v{major}.{minor}{path}", query=_given(query), headers=headers, body=data
            )
        except Unavailable as error:
            raise self._unreachable(error) from error
        if not raw.accepted:
            error_of = _daemon_error(raw.response)
            raw.close()
            raise error_of
        return raw

    def _send(self, method: str, path: str, **options: Any) -> Response:
        try:
            return self.client.request(method, path, **options)
        except Unavailable as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: LadingError) -> Failure:
        message = error.message
        if not message.startswith("connect to"):
            return Failure(f"error during connect: {message}")
        if "ermission denied" in message:
            return Failure(
                f"permission denied while trying to connect to the Docker daemon socket at "
                f"{self.host}: {message}"
            )
        return Failure(
            f"Cannot connect to the Docker daemon at {self.host}. Is ladingd running? ({message})"
        )

    @property
    def out(self) -> TextIO:
        """Standard output."""
        return sys.stdout

    @property
    def err(self) -> TextIO:
        """Standard error."""
        return sys.stderr

    def print(self, line: str) -> None:
        """Write a line to standard output."""
        sys.stdout.write(line + "\n")

    def warn(self, line: str) -> None:
        """Write a line to standard error."""
        sys.stdout.flush()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def json_stream(response: Response) -> Iterator[Any]:
    """JSON objects that follow each other with or without line ends, each as soon as it is whole.

    Docker ends them with CRLF, LF or nothing, depending on the route and its age.
    """
    decoder, rest = json.JSONDecoder(), ""
    pending = b""
    for data in response:
        pending += data
        try:
            rest += pending.decode()
            pending = b""
        except UnicodeDecodeError:
            continue  # a character is cut in two
        rest = rest.lstrip()
        while rest:
            try:
                value, end = decoder.raw_decode(rest)
            except ValueError:
                break  # not whole yet
            rest = rest[end:].lstrip()
            yield value
    if rest.strip():
        raise Failure(f"unexpected answer of the daemon: {rest[:200]!r}")


def _daemon_error(response: Response) -> DaemonError:
    text = response.read().decode("utf-8", "replace").strip()
    status = response.status
    response.close()
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text or f"{status} {response.reason}"
    return DaemonError(str(message).strip(), status=status)


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    """The query without what is not set."""
    return {name: value for name, value in query.items() if value not in (None, "", False, {})}


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    try:
        return int(major), int(minor or 0)
    except ValueError as error:
        raise Failure(f'API version "{text}": not of the form 1.NN') from error
