"""``POST /build``, the classic builder's API, and ``POST /build/prune``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from lading.api.engine import Engine
from lading.api.failures import error_response
from lading.api.parameters import filters
from lading.api.progress import Emit, progress
from lading.api.routes import Routes
from lading.api.version import version_of
from lading.build.builder import Builder
from lading.build.options import BuildOptions
from lading.build.running import CommandFailed
from lading.errors import Invalid, Unsupported
from lading.http.messages import Connection, Hijack, Query, Request, Response
from lading.model.body import decode
from lading.model.docker import AuthConfig, HostConfig, Ulimit

#: What clients of different ages call the bytes that may stay.
_KEEP = ("reserved-space", "keep-storage", "max-used-space")
_INDEX = "https://index.docker.io/v1/"


class BuildRoutes:
    """``/build``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, routes: Routes) -> None:
        """Add the routes."""
        routes.add("POST", "/build", self.build)
        routes.add("POST", "/build/prune", self.prune)
        routes.add("POST", "/build/session", self.session)

    def _builder(self) -> Builder:
        return self._engine.builder()

    def build(self, request: Request) -> Response:
        """``POST /build``."""
        if request.query.get("version") == "2":
            raise Unsupported(
                "BuildKit's builds are not supported", hint="set DOCKER_BUILDKIT=0 and try again"
            )
        if request.query.get("outputs") not in ("", "null", "[]"):
            raise Unsupported("build: outputs other than an image are not supported")
        options = _options(request)

        def work(emit: Emit) -> None:
            def pull(name: str, platform: str, tell: Emit) -> None:
                self._engine.transfers.pull(
                    name, tell, auth=_credentials(options.credentials, name),
                    platform=platform, gone=request.gone,
                )  # fmt: skip

            try:
                self._builder().build(request.body, options, emit, pull, request.when_gone)
            except CommandFailed as error:
                text = str(error)
                emit({"errorDetail": {"code": error.code, "message": text}, "error": text})

        return progress(request, work)

    def session(self, request: Request) -> Response:
        """``POST /build/session``, not Docker's: see :mod:`lading.build.sessions`."""
        identity = request.query.get("id")
        sessions = self._builder().sessions

        def run(client: Connection) -> None:
            waiting = sessions.offer(identity, client)
            with client.when_closed(lambda: sessions.withdraw(identity, waiting)):
                waiting.done.wait()

        return Hijack(
            200,
            {"Content-Type": "application/vnd.lading.build-session"},
            prepare=lambda: run,
            failed=lambda error: error_response(error, version_of(request)),
        )

    def prune(self, request: Request) -> Response:
        """``POST /build/prune``."""
        query = request.query
        keep = next((n for k in _KEEP if (n := query.integer(k))), 0)
        deleted, space = self._builder().prune(filters(request), all=query.flag("all"), keep=keep)
        return Response.json({"CachesDeleted": deleted, "SpaceReclaimed": space})


def _options(request: Request) -> BuildOptions:
    query = request.query
    return BuildOptions(
        tags=[tag for tag in query.all("t") if tag],
        dockerfile=query.get("dockerfile"),
        remote="" if query.get("remote") in ("", "client-session") else query.get("remote"),
        quiet=query.flag("q"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        remove=query.flag("rm", True),
        force_remove=query.flag("forcerm"),
        squash=query.flag("squash"),
        target=query.get("target"),
        cache_from=_strings(query, "cachefrom"),
        # dockerd's ways, for all clients but those that ask for Lading's own.
        cache_own=query.flag("cacheown") or not query.get("cachefrom"),
        classic=not query.get("progress"),
        prefixes=query.get("progress") == "plain",
        marked=query.get("progress") == "stages",
        session=query.get("session"),
        allowed=query.all("allow"),
        platform=query.get("platform"),
        arguments=_map(query, "buildargs"),
        labels={k: v or "" for k, v in _map(query, "labels").items()},
        host=_host(query),
        credentials=_all_credentials(request),
    )


def _map(query: Query, name: str) -> dict[str, str | None]:
    given = query.json(name)
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(
        v is None or isinstance(v, str) for v in given.values()
    ):
        raise Invalid(f'query parameter "{name}": not a JSON object of strings')
    return given


def _strings(query: Query, name: str) -> list[str]:
    given = query.json(name)
    try:
        return msgspec.convert(given or [], list[str])
    except msgspec.ValidationError as error:
        raise Invalid(f'query parameter "{name}": {error}') from error


def _host(query: Query) -> HostConfig:
    try:
        ulimits = msgspec.convert(query.json("ulimits") or [], list[Ulimit])
    except msgspec.ValidationError as error:
        raise Invalid(f"build: ulimits: {error}") from error
    network = query.get("networkmode")
    return HostConfig(
        isolation=query.get("isolation"),
        network_mode="" if network == "default" else network,
        memory=query.integer("memory"),
        memory_swap=query.integer("memswap"),
        cpu_shares=query.integer("cpushares"),
        cpu_period=query.integer("cpuperiod"),
        cpu_quota=query.integer("cpuquota"),
        cpuset_cpus=query.get("cpusetcpus"),
        cpuset_mems=query.get("cpusetmems"),
        cgroup_parent=query.get("cgroupparent"),
        shm_size=query.integer("shmsize"),
        extra_hosts=[row for row in query.all("extrahosts") if row],
        ulimits=ulimits,
        security_opt=[row for row in query.all("securityopt") if row],
    )


def _all_credentials(request: Request) -> Mapping[str, AuthConfig]:
    """The header ``X-Registry-Config``; what cannot be decoded counts as none, as in Docker."""
    text = request.headers.get("x-registry-config", "")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        rows: Any = msgspec.json.decode(raw) if raw else {}
        return {str(k): decode(msgspec.json.encode(v), AuthConfig) for k, v in rows.items()}
    except (binascii.Error, ValueError, AttributeError, msgspec.MsgspecError, Invalid):
        return {}


def _credentials(known: Mapping[str, AuthConfig], name: str) -> AuthConfig | None:
    host, slash, _ = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host = _INDEX
    return known.get(host) or known.get(f"https://{host}")
