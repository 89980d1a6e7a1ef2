"""Between here and registries: what ``pull``, ``push``, ``search`` and ``login`` do."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lading.backends import Backends, Loaded
from lading.config import Settings
from lading.errors import Denied, Invalid, LadingError, NotFound
from lading.hooks.registry import Credentials, Registry, Remote, RemoteManifest, SearchResult
from lading.images.downloads import Emit
from lading.images.images import Images
from lading.images.pulling import Pulling, is_transient
from lading.images.pushing import Pushing
from lading.images.remotes import Remotes
from lading.model import oci, platforms, reference
from lading.model.docker import AuthConfig
from lading.model.reference import DEFAULT_DOMAIN, Reference

SEARCH_LIMIT = 25

#: Asked before ``pull`` and ``push``; raises Denied to veto.
Veto = Callable[[str, str], None]


class Transfers:
    """Moves images; thread safe. Names are as the user wrote them."""

    def __init__(
        self,
        images: Images,
        registries: Backends[Registry],
        settings: Settings,
        veto: Veto = lambda action, name: None,
    ) -> None:
        self._images, self._veto = images, veto
        self._remotes = Remotes(registries, settings)
        self._pulling = Pulling(images, settings.max_concurrent_downloads)
        self._pushing = Pushing(images, settings.max_concurrent_uploads)

    def pull(
        self,
        name: str,
        emit: Emit,
        *,
        auth: AuthConfig | None,
        platform: str,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Pull an image; without tag and digest, all tags of the repository.

        ``gone`` is asked now and then whether to give up. Raises NotFound, Unauthorized,
        Unavailable, Invalid, Cancelled.
        """
        wanted = reference.parse(name)
        self._veto("pull", wanted.familiar)
        candidates = self._remotes.candidates(wanted, _credentials(auth))
        for remote in candidates:
            try:
                backend = self._remotes.transport(remote)
                try:
                    for one in self._each(backend, remote, wanted):
                        self._pull_one(backend, remote, one, platform, emit, gone)
                finally:
                    backend.hook.close(remote=remote)
                return
            except (LadingError, OSError) as error:
                if remote is candidates[-1] or not is_transient(error):
                    raise _as_seen(error, wanted) from error
                emit({"status": f"{remote.host}: {error}"})

    def _each(
        self, backend: Loaded[Registry], remote: Remote, wanted: Reference
    ) -> list[Reference]:
        if wanted.tag or wanted.digest:
            return [wanted]
        tags = list(backend.hook.tags(remote=remote))
        if not tags:
            raise NotFound(f"{wanted.familiar} has no tags")
        return [wanted.with_tag(tag) for tag in tags]

    def _pull_one(
        self,
        backend: Loaded[Registry],
        remote: Remote,
        wanted: Reference,
        platform: str,
        emit: Emit,
        gone: Callable[[], bool],
    ) -> None:
        found = backend.hook.resolve(
            remote=remote, reference=wanted.digest or wanted.tag, platform=platform
        )
        if found.manifest is None or found.manifest.digest == found.digest:
            # Of an index the transport has chosen by what that says of its images.
            _check_platform(found.config, platform, wanted)
        # Only now: an error before the first message is an HTTP error.
        emit({"status": f"Pulling from {_shown(wanted)}", "id": wanted.tag or wanted.digest})
        names = [wanted.canonical] if wanted.tag and not wanted.digest else []
        if found.digest:
            names.append(f"{wanted.name}@{found.digest}")
        done = self._pulling.fetch(backend, remote, found, names, emit, gone)
        if done.digest:
            emit({"status": f"Digest: {done.digest}"})
        said = "Downloaded newer image for" if done.fresh else "Image is up to date for"
        emit({"status": f"Status: {said} {wanted.familiar}"})
        self._images.tell("pull", wanted.familiar, wanted.familiar_name)

    def push(
        self,
        name: str,
        emit: Emit,
        *,
        auth: AuthConfig | None,
        platform: str = "",
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Push an image; without a tag, all tags of its repository.

        Raises NotFound, also for an image that is for another ``platform``, and Denied.
        """
        wanted = reference.parse(name)
        if wanted.digest:
            raise Invalid("cannot push a digest reference")
        self._veto("push", wanted.familiar)
        by_image: dict[str, list[str]] = {}
        for tag, image_id in self._local_tags(wanted):
            by_image.setdefault(image_id, []).append(tag)
        images = [self._images.get(image_id) for image_id in by_image]
        for image in images:
            _check_platform(image.config_bytes, platform, wanted)
        emit({"status": f"The push refers to repository [{wanted.name}]"})
        remote = self._remotes.only(wanted, _credentials(auth))
        backend = self._remotes.transport(remote)
        try:
            for image, tags in zip(images, by_image.values(), strict=True):
                manifest = self._pushing.push(backend, remote, image, tags, emit, gone)
                if manifest.digest:
                    self._images.blobs.write(manifest.content)
                    self._images.catalog.point(f"{wanted.name}@{manifest.digest}", image.id)
        finally:
            backend.hook.close(remote=remote)
        self._images.tell("push", wanted.familiar, wanted.familiar_name)

    def _local_tags(self, wanted: Reference) -> list[tuple[str, str]]:
        found = [
            (named.tag, image_id)
            for name, image_id in self._images.catalog.names()
            if (named := reference.unfamiliar(name)).name == wanted.name
            and wanted.tag in ("", named.tag)
        ]
        if not found:
            raise NotFound(
                f"An image does not exist locally with the tag: {wanted.familiar_name}"
                if not wanted.tag
                else f"tag does not exist: {wanted.familiar}"
            )
        return found

    def search(
        self,
        term: str,
        *,
        limit: int,
        filters: Mapping[str, Sequence[str]],
        auth: AuthConfig | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Search ``[HOST/]TERM``; rows in Docker's JSON. Raises Invalid for a bad filter."""
        if not 0 <= limit <= 100:
            raise Invalid(f"Limit {limit} is outside the range of [1, 100]")
        first, slash, rest = term.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        wanted = Reference(first if is_host else DEFAULT_DOMAIN, "")
        keep = _search_filter(filters)
        remote = self._remotes.only(wanted, _credentials(auth))
        backend = self._remotes.transport(remote)
        rows = backend.hook.search(
            remote=remote, term=rest if is_host else term, limit=limit or SEARCH_LIMIT
        )
        return [
            {
                "name": row.name,
                "description": row.description,
                "star_count": row.stars,
                "is_official": row.official,
                "is_automated": row.automated,
            }
            for row in rows
            if keep(row)
        ]

    def distribution(self, name: str, *, auth: AuthConfig | None) -> Mapping[str, Any]:
        """What a registry has under a name, in Docker's JSON."""
        wanted = reference.parse(name).with_default_tag()
        remote = self._remotes.only(wanted, _credentials(auth))
        backend = self._remotes.transport(remote)
        found = backend.hook.manifest(remote=remote, reference=wanted.digest or wanted.tag)
        if found.media_type in (oci.INDEX, oci.DOCKER_INDEX):
            rows = oci.decode_index(found.content).manifests
            shown = [_platform(row.platform) for row in rows if row.platform]
        else:
            shown = [{"architecture": platforms.architecture(), "os": "linux"}]
        descriptor = {
            "mediaType": found.media_type,
            "digest": found.digest,
            "size": len(found.content),
        }
        return {"Descriptor": descriptor, "Platforms": shown}

    def manifests(
        self, name: str, *, auth: AuthConfig | None, every: bool, insecure: bool
    ) -> Sequence[Mapping[str, Any]]:
        """A manifest as a registry has it, and with ``every`` those that an index leads to.

        Rows have ``Ref``, ``Descriptor`` and ``Raw``, in base64. ``insecure`` allows plain HTTP and
        unverified TLS this once. Raises NotFound, Unsupported.
        """
        wanted = reference.parse(name).with_default_tag()
        remote = self._remotes.only(wanted, _credentials(auth))
        remote = replace(remote, insecure=remote.insecure or insecure)
        backend = self._remotes.transport(remote)
        hook = backend.hook
        try:
            found = hook.manifest(remote=remote, reference=wanted.digest or wanted.tag)
            if found.media_type not in (oci.INDEX, oci.DOCKER_INDEX):
                return [_shown_manifest(wanted.canonical, found, _platform_of(hook, remote, found))]
            rows = [_shown_manifest(wanted.canonical, found, None)]
            for entry in oci.decode_index(found.content).manifests if every else ():
                ref = f"{wanted.canonical}@{entry.digest}"
                manifest = hook.manifest(remote=remote, reference=entry.digest)
                rows.append(_shown_manifest(ref, manifest, entry.platform))
            return rows
        finally:
            hook.close(remote=remote)

    def login(self, auth: AuthConfig) -> str:
        """Check credentials; returns an identity token or "". Raises Unauthorized."""
        address = auth.server_address.partition("://")[2] or auth.server_address
        host_name = address.partition("/")[0] or DEFAULT_DOMAIN
        if host_name in ("index.docker.io", DEFAULT_DOMAIN):
            host_name = DEFAULT_DOMAIN
        remote = self._remotes.only(Reference(host_name, ""), _credentials(auth))
        return self._remotes.transport(remote).hook.login(remote=remote)


def _as_seen(error: Exception, wanted: Reference) -> Exception:
    """The error in the words that users of Docker know."""
    if isinstance(error, Denied):
        return type(error)(
            f"pull access denied for {wanted.familiar_name}, repository does not exist or may "
            f"require a login: {error.message}",
            hint=error.hint,
        )
    if isinstance(error, NotFound):
        return NotFound(f"manifest for {wanted.familiar} not found: {error.message}")
    return error


def _check_platform(config_bytes: bytes, platform: str, wanted: Reference) -> None:
    """Raise NotFound when an image is for another platform than the one that was asked for."""
    config = oci.decode_config(config_bytes)
    if not platform or not config.architecture:
        return
    asked = platforms.parse(platform)
    if not asked.accepts(config.os, config.architecture, config.variant):
        raise NotFound(
            f"{wanted.familiar} is for {config.os}/{config.architecture} "
            f"and does not match the specified platform {asked}"
        )


def _shown(wanted: Reference) -> str:
    return wanted.path if wanted.domain == DEFAULT_DOMAIN else wanted.name.partition("/")[2]


def _credentials(auth: AuthConfig | None) -> Credentials | None:
    if auth is None or not (auth.username or auth.identity_token or auth.auth):
        return None
    if auth.auth and not auth.username:
        user, _, password = base64.b64decode(auth.auth).decode().partition(":")
        return Credentials(user, password)
    return Credentials(auth.username, auth.password, auth.identity_token)


def _platform_of(hook: Any, remote: Remote, found: RemoteManifest) -> oci.Platform | None:
    """What a manifest of an image is for, as its config says; None for other things."""
    try:
        image = hook.resolve(remote=remote, reference=found.digest, platform="")
        config = oci.decode_config(image.config)
    except (LadingError, OSError):
        return None
    return oci.Platform(config.architecture, config.os, config.variant)


def _shown_manifest(
    ref: str, manifest: RemoteManifest, platform: oci.Platform | None
) -> Mapping[str, Any]:
    descriptor: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.content),
    }
    if platform is not None:
        descriptor["platform"] = _platform(platform)
    return {
        "Ref": ref,
        "Descriptor": descriptor,
        "Raw": base64.b64encode(manifest.content).decode(),
    }


def _platform(platform: oci.Platform) -> dict[str, str]:
    rows = {
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
    }
    return {name: value for name, value in rows.items() if value}


def _search_filter(filters: Mapping[str, Sequence[str]]) -> Callable[[SearchResult], bool]:
    known = {"stars", "is-official", "is-automated"}
    if unknown := set(filters) - known:
        raise Invalid(f"invalid filter '{sorted(unknown)[0]}'")
    stars = 0
    for value in filters.get("stars", ()):
        if not value.isdigit():
            raise Invalid(f"invalid filter 'stars={value}'")
        stars = max(stars, int(value))
    official = [v.lower() in ("true", "1") for v in filters.get("is-official", ())]
    automated = [v.lower() in ("true", "1") for v in filters.get("is-automated", ())]

    def keep(row: SearchResult) -> bool:
        return (
            row.stars >= stars
            and (not official or row.official in official)
            and (not automated or row.automated in automated)
        )

    return keep
