"""The mounts of a RUN made ready: trees, caches, secrets and the client's SSH agent."""

from __future__ import annotations

import os
import posixpath
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from lading.archive import Archives, Root
from lading.build import context
from lading.build.cache_mounts import CacheMounts
from lading.build.context import Context
from lading.build.instruction import Copying
from lading.build.layers import Layers
from lading.build.run_mounts import RunMount
from lading.build.sessions import Sessions
from lading.containers import Containers
from lading.errors import Invalid, LadingError, Unavailable
from lading.hooks.common import Mount as Recipe
from lading.http.pump import pump
from lading.images import Image
from lading.linux import paths
from lading.model.docker import BindOptions, ImageOptions, Mount

_SECRET_MODE = 0o400
_SOCKET_MODE = 0o600


@dataclass
class Given:
    """What a container gets for a RUN beside its command.

    ``hidden`` are variables that no record of the container may hold.
    """

    mounts: list[Mount] = field(default_factory=list)
    tmpfs: dict[str, str] = field(default_factory=dict)
    environment: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    @property
    def mount_points(self) -> list[str]:
        """Where something is mounted, which must not stay in the layer as an empty file."""
        return [*(mount.target for mount in self.mounts), *self.tmpfs]


class Hosting:
    """Makes the mounts of one build's RUNs ready."""

    def __init__(
        self,
        containers: Containers,
        archives: Archives,
        layers: Layers,
        caches: CacheMounts,
        sessions: Sessions,
        session: str,
        files: Context,
        run: Path,
    ) -> None:
        self._containers, self._archives, self._layers = containers, archives, layers
        self._caches, self._sessions, self._session = caches, sessions, session
        self._context, self._run = files, run

    def key(
        self, mounts: Sequence[RunMount], source: Callable[[str], Image], *, exactly: bool
    ) -> str:
        """What a RUN's result depends on: the content of what it sees, not of caches.

        Images count by their layers, without a look into them; ``exactly``: by the content of what
        is mounted.
        """
        parts = []
        for mount in mounts:
            what = repr(mount)
            if mount.kind == "bind":
                image = source(mount.origin) if mount.origin else None
                work = Copying("COPY", (mount.source or "/",), "/mounted/")
                with self._layers.prepared(image, work) as ready:
                    what += ready.content() if exactly or image is None else ready.origin()
            parts.append(what)
        return "\0".join(parts)

    @contextmanager
    def ready(
        self,
        mounts: Sequence[RunMount],
        script: str,
        source: Callable[[str], Image],
        gone: threading.Event,
    ) -> Iterator[Given]:
        """All mounts, and ``script`` (if any) as a program at ``SCRIPT``, until the RUN is over."""
        with ExitStack() as stack:
            given = Given()
            for mount in mounts:
                if mount.kind == "tmpfs":
                    size = f",size={mount.size}" if mount.size else ""
                    given.tmpfs[mount.target] = f"exec{size}"
                elif mount.kind == "cache":
                    given.mounts.append(self._cache(mount, source, gone, stack))
                elif mount.kind == "bind":
                    given.mounts.append(self._bind(mount, source, stack))
                elif mount.kind == "secret":
                    self._secret(mount, given, stack)
                else:
                    self._agent(mount, given, stack)
            if script:
                # Not below the run directory, which often is mounted noexec.
                path = self._layers.temporary(stack) / "script"
                path.write_text(script)
                path.chmod(0o755)
                given.mounts.append(_bound(path, SCRIPT))
            yield given

    def _bind(self, mount: RunMount, source: Callable[[str], Image], stack: ExitStack) -> Mount:
        image = source(mount.origin) if mount.origin else None
        path = posixpath.normpath("/" + mount.source)
        remapped = self._containers.on_host(0, 0) != (0, 0)
        if mount.writable or (image is not None and remapped):
            # What is written there goes with the RUN. And an overlay cannot be shown with other
            # owners than it has.
            copied = self._copied(image, path, stack)
            return _bound(copied, mount.target, writable=mount.writable, mapped=True)
        if image is not None:
            options = ImageOptions(subpath=path.lstrip("/"))
            return Mount(
                type="image", source=image.id, target=mount.target, read_only=True,
                image_options=options,
            )  # fmt: skip
        with paths.opened_root(self._context.directory) as root:
            try:
                found = paths.open_in_root(root, path, os.O_PATH)
            except OSError as error:
                raise Invalid(
                    f"mount of {mount.source}: not found in build context or excluded by "
                    f".dockerignore: {error.strerror}"
                ) from error
        try:
            # The name without links: the container's mounts follow none out of the context.
            place = Path(os.readlink(f"/proc/self/fd/{found}"))
            return _bound(place, mount.target, mapped=True)
        finally:
            os.close(found)

    def _copied(self, image: Image | None, path: str, stack: ExitStack) -> Path:
        place = self._layers.temporary(stack)
        place.chmod(0o755)
        recipe: Sequence[Recipe] = context.recipe(self._context.directory)
        if image is not None:
            recipe = self._layers.view(image, stack, exactly=True).recipe
        copy_tree(self._archives, Root(recipe), path, place)
        return place / path.lstrip("/").rpartition("/")[2]

    def _cache(
        self,
        mount: RunMount,
        source: Callable[[str], Image],
        gone: threading.Event,
        stack: ExitStack,
    ) -> Mount:
        def fill(new: Path) -> None:
            if not mount.origin:
                return
            with ExitStack() as own:
                path = posixpath.normpath("/" + mount.source)
                whole = self._copied(source(mount.origin), path, own)
                if not whole.is_dir():
                    raise Invalid(f"cache mount: {mount.source} is no directory")
                for entry in os.listdir(whole):
                    os.rename(whole / entry, new / entry)
                self._give(new)

        owner = self._containers.on_host(mount.uid, mount.gid)
        place = stack.enter_context(self._caches.used(mount, owner, fill, gone))
        return _bound(place, mount.target, writable=mount.writable)

    def _give(self, place: Path) -> None:
        """Let files in a directory belong to whom a container will see that they do."""
        if self._containers.on_host(0, 0) == (0, 0):
            return
        for above, directories, files in os.walk(place):
            for name in (*directories, *files):
                path = os.path.join(above, name)
                status = os.lstat(path)
                os.lchown(path, *self._containers.on_host(status.st_uid, status.st_gid))
                if not stat.S_ISLNK(status.st_mode):
                    # The kernel has taken the set-id bits away.
                    os.chmod(path, stat.S_IMODE(status.st_mode))

    # -- what only the client has

    def _secret(self, mount: RunMount, given: Given, stack: ExitStack) -> None:
        value = self._sessions.secret(self._session, mount.id)
        if value is None:
            if mount.required:
                raise Invalid(f"secret {mount.id}: not found (give it: --secret id={mount.id},...)")
            return
        if mount.environment:
            if b"\0" in value:
                raise Invalid(f"secret {mount.id}: a variable cannot hold a NUL")
            given.hidden.append(f"{mount.environment}={os.fsdecode(value)}")
        if mount.target:
            path = self._private(stack) / "secret"
            mode = _SECRET_MODE if mount.mode < 0 else mount.mode
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(value)
                os.fchown(descriptor, *self._containers.on_host(mount.uid, mount.gid))
                os.fchmod(descriptor, mode)
            given.mounts.append(_bound(path, mount.target))

    def _agent(self, mount: RunMount, given: Given, stack: ExitStack) -> None:
        if not self._session or not self._sessions.has_agent(self._session, mount.id):
            if mount.required:
                raise Invalid(f"no SSH key {mount.id} forwarded (give it: --ssh {mount.id})")
            return
        place = self._private(stack)
        listener = socket.socket(socket.AF_UNIX)
        above = os.open(place, os.O_PATH | os.O_DIRECTORY)
        try:
            # By the descriptor, since an address has 107 bytes only.
            listener.bind(f"/proc/self/fd/{above}/agent")
        finally:
            os.close(above)
        path = place / "agent"
        os.chown(path, *self._containers.on_host(mount.uid, mount.gid))
        path.chmod(_SOCKET_MODE if mount.mode < 0 else mount.mode)
        listener.listen()
        stack.callback(listener.close)
        # A close alone does not wake a thread that waits in accept.
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(
            target=self._serve_agent, args=(listener, mount.id), name="build-ssh", daemon=True
        ).start()
        given.mounts.append(_bound(path, mount.target))
        if not any(row.startswith("SSH_AUTH_SOCK=") for row in given.environment):
            given.environment.append(f"SSH_AUTH_SOCK={mount.target}")

    def _serve_agent(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._forward, args=(connected, name), name="build-ssh", daemon=True
            ).start()

    def _forward(self, connected: socket.socket, name: str) -> None:
        with connected:
            try:
                taken, answer, _ = self._sessions.ask(self._session, "ssh", name)
            except LadingError:
                # ssh in the container sees an agent that hangs up.
                return
            try:
                if answer.get("ok"):
                    pump(taken.channel, connected)
            finally:
                taken.done.set()

    def _private(self, stack: ExitStack) -> Path:
        """A directory on tmpfs, where secrets are never written to a disk."""
        place = self._run / uuid4().hex
        place.mkdir(mode=0o711, parents=True)
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        return place


#: Where the container sees a document that names its own interpreter.
SCRIPT = "/dev/pipes/script"


def _bound(path: Path, target: str, *, writable: bool = False, mapped: bool = False) -> Mount:
    options = BindOptions(owners_mapped=mapped)
    return Mount(
        type="bind", source=str(path), target=target, read_only=not writable, bind_options=options
    )


def copy_tree(archives: Archives, root: Root, path: str, place: Path) -> None:
    """Copy what is at ``path`` in a root into a directory, under its own name. Raises Invalid."""
    out, into = os.pipe2(os.O_CLOEXEC)
    failure: list[Exception] = []

    def read() -> None:
        try:
            archives.copy_out(root, path, into)
        except (LadingError, OSError) as error:
            failure.append(error)
        finally:
            os.close(into)

    reader = threading.Thread(target=read, name="build-copy", daemon=True)
    reader.start()
    try:
        archives.copy_in(Root(context.recipe(place)), "/", out)
    finally:
        os.close(out)
        reader.join()
    if failure:
        raise Unavailable(f"copy {path}: {failure[0]}") from failure[0]
