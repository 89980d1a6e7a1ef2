"""The parts of the engine, put together in the order in which they need each other."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lading import backends, doctor
from lading.archive import Archives
from lading.backends import Backends
from lading.build.builder import Builder
from lading.choice import contexts, default_of, policy_of
from lading.config import Settings
from lading.containers import Container, Containers, security
from lading.containers.parts import Parts
from lading.daemon import reloading, remap
from lading.errors import LadingError
from lading.hooks.filesystem import Filesystem
from lading.hooks.isolation import Isolation
from lading.hooks.network import NetworkBackend
from lading.images import Images, Transfers, User
from lading.linux.cgroups import Cgroup
from lading.load_policy import Policy
from lading.monitor import Spawner
from lading.networks import Networks
from lading.operations import Operations
from lading.store.blobs import Blobs
from lading.store.db import Database
from lading.store.events import Events, Subscription
from lading.store.intents import Intents
from lading.volumes import Volumes

log = logging.getLogger(__name__)

#: What tasks run; the spawner imports it before it forks anything.
PRELOAD = (
    "lading.build.copying",
    "lading.roots.databases",
    "lading.roots.exposed",
    "lading.roots.fill",
)


@contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    """A running engine. To be entered before this process has any thread."""
    spawner = launch_spawner(settings)
    try:
        engine = Engine(settings, spawner)
    except BaseException:
        spawner.close()
        raise
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


def launch_spawner(settings: Settings) -> Spawner:
    """Start the spawner. To be called before this process has any thread."""
    return Spawner.launch(
        backends=reloading.specs(settings, "isolation"),
        extensions=reloading.specs(settings, "extension"),
        preload=PRELOAD,
        exec_root=Path(settings.exec_root),
    )


class Engine:
    """All parts of one daemon; what :class:`lading.api.Engine` asks for, and more."""

    def __init__(self, settings: Settings, spawner: Spawner) -> None:
        self.settings = settings
        self.spawner = spawner
        data_root, exec_root = Path(settings.data_root), Path(settings.exec_root)
        policy = policy_of(settings)
        self.extensions = self._load("extension", policy, only=settings.extensions or ("",))
        self._watchers = [b.hook for b in self.extensions.usable()]
        self.operations = Operations(self._watchers)
        self.isolations: Backends[Isolation] = self._load(
            "isolation", policy, failed=spawner.failed
        )
        self.filesystems: Backends[Filesystem] = self._load(
            "filesystem", policy, trial=lambda backend: list(backend.hook.walk())
        )
        self.network_backends: Backends[NetworkBackend] = self._load("network", policy)
        self.registries: Backends[Any] = self._load("registry", policy)
        self._reloader = reloading.Reloader(self.roles, spawner, self._watchers)
        self.db = Database(data_root / "metadata.db")
        self.intents = Intents(self.db)
        self.events = Events()
        self.blobs = Blobs(data_root)
        self.archives = Archives(spawner)
        self.images = Images(self.db, self.blobs, self.filesystems, self.archives, self.events)
        self.networks = Networks(
            self.db, self.network_backends, exec_root / "netns", self.events, settings
        )
        self.volumes = Volumes(self.db, self.events, data_root / "volumes")
        uid_map, gid_map = remap.maps(settings.userns_remap)
        self.containers = Containers(
            Parts(
                db=self.db,
                intents=self.intents,
                events=self.events,
                spawner=spawner,
                archives=self.archives,
                images=self.images,
                networks=self.networks,
                volumes=self.volumes,
                filesystems=self.filesystems,
                isolations=self.isolations,
                settings=settings,
                data_root=data_root,
                exec_root=exec_root,
                uid_map=uid_map,
                gid_map=gid_map,
                veto=self.veto,
                operations=self.operations,
            )
        )

        self._builder = Builder(
            self.images,
            self.containers,
            self.archives,
            spawner,
            self.db,
            self.intents,
            data_root,
            exec_root,
        )
        self.images.users = self._users_of_image
        self.images.shown = lambda image_id: [
            made.target for made in self.containers.host_mounts.of(image_id)
        ]
        self.transfers = Transfers(self.images, self.registries, settings, self.veto_image)

    def builder(self) -> Builder:
        """What builds images."""
        return self._builder

    def _users_of_image(self, image_id: str) -> list[User]:
        users = [
            User(container.id, container.state.running)
            for container in self.containers.users_of_image(image_id)
        ]
        if self._builder.cache.holds(image_id):
            users.append(User("build", True))
        return users

    @property
    def roles(self) -> Sequence[Backends[Any]]:
        """The backends of every role, and the extensions."""
        return (
            self.isolations,
            self.filesystems,
            self.network_backends,
            self.registries,
            self.extensions,
        )

    def _load(
        self,
        role: str,
        policy: Policy,
        *,
        only: Any = (),
        failed: Mapping[str, str] = {},
        trial: Callable[[Any], object] | None = None,
    ) -> Backends[Any]:
        wrappers = [] if role == "extension" else self._watchers
        return backends.load(
            role,
            contexts(self.settings, role),
            default=default_of(self.settings, role),
            only=only,
            policy=policy,
            wrappers=wrappers,
            failed=failed,
            trial=trial,
        )

    def veto(self, action: str, container: Mapping[str, Any]) -> None:
        """Ask the extensions; raises Denied when one objects."""
        for extension in self._watchers:
            extension.before_container(action=action, container=container)

    def veto_image(self, action: str, reference: str) -> None:
        """As :meth:`veto`, for what is done to an image."""
        for extension in self._watchers:
            extension.before_image(action=action, reference=reference)

    def _tell_extensions(self, seen: Subscription) -> None:
        """Show each event to the extensions, in order; runs in a thread of its own."""
        for event in seen:
            for extension in self._watchers:
                try:
                    extension.event(event=event.as_json())
                except Exception:
                    log.exception('an extension failed on the event "%s"', event.action)

    def register_routes(self, routes: Any) -> None:
        """Let extensions add routes to the API; one that fails is logged and left out."""
        for extension in self._watchers:
            try:
                extension.register_routes(routes=routes)
            except Exception:
                log.exception("an extension failed to add its routes")

    def start(self) -> None:
        """Take up what an earlier daemon left, then let the networks stand."""
        if self._watchers:
            seen = self.events.subscribe()
            threading.Thread(
                target=self._tell_extensions, args=(seen,), name="extensions", daemon=True
            ).start()
        # Kept for the daemon's life: made and removed with each lone container it would cost more
        # than the container's own groups.
        Cgroup.at(self.settings.cgroup_parent or "/lading").create()
        with self.operations.of("start of the daemon", {}):
            self.containers.reconcile()
            self.images.start()
            self.networks.start()
            self.intents.resume({**self.containers.intents, **self._builder.finishers})
            self.containers.restart_wanted()

    def reload(self, settings: Settings) -> None:
        """Take over what of a new configuration can change while the daemon runs."""
        names = ("labels", "debug", "log_level", "registry_mirrors", "insecure_registries")
        changes = {name: getattr(settings, name) for name in names}
        self.settings = msgspec.structs.replace(self.settings, **changes)
        self._reloader.upgraded(self.settings)
        self.events.publish("daemon", "reload", self._identity(), {"name": os.uname().nodename})

    def reload_plugin(self, name: str) -> None:
        """Take over a new version of a backend; see :class:`~lading.daemon.reloading.Reloader`."""
        self._reloader.reload(name, self.settings)

    def close(self) -> None:
        """Let go of everything; containers live on."""
        self.containers.close()
        self.networks.close()
        self.spawner.close()
        remove_empty_cgroups(self.settings.cgroup_parent or "/lading")
        self.db.close()

    def graph(self, container: Container) -> Mapping[str, str]:
        """Rows about the root of a container, for ``inspect``."""
        rows = {"RootDir": container.rootfs} if container.rootfs else {}
        try:
            recipe = self.filesystems.get(container.filesystem).hook.mounts(key=container.id)
        except LadingError:
            return rows
        for mount in recipe:
            for option in mount.options:
                key, equals, value = option.partition("=")
                if equals and key in _GRAPH_ROWS:
                    rows[_GRAPH_ROWS[key]] = value
        return rows

    def info(self) -> dict[str, Any]:
        """What ``GET /info`` shows of this daemon's choice and configuration."""
        settings = self.settings
        storage = self.filesystems.loaded.get(settings.storage_driver)
        details = dict(storage.probe.details) if storage else {}
        return {
            "ID": self._identity(),
            "Driver": settings.storage_driver,
            "DriverStatus": [[k, v] for k, v in details.items()],
            "Plugins": {
                "Volume": ["local"],
                "Network": sorted({*self.network_backends.loaded, "host", "null"}),
                "Authorization": [],
                "Log": ["json-file", "local", "none"],
            },
            "Debug": settings.debug,
            "LoggingDriver": settings.log_driver,
            "DockerRootDir": settings.data_root,
            "Labels": list(settings.labels),
            "Runtimes": {b.name: {"path": b.name} for b in self.isolations.usable()},
            "DefaultRuntime": settings.default_runtime,
            "LiveRestoreEnabled": True,
            "SecurityOptions": security_options(settings),
            "Warnings": self._warnings(),
            "RegistryConfig": self._registry_config(),
            # Lading's own; Docker's clients pass over members that they do not know.
            "Lading": {"Plugins": msgspec.to_builtins(doctor.plugin_reports(self.roles))},
        }

    def _identity(self) -> str:
        path = Path(self.settings.data_root) / "engine-id"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            path.write_text(f"{uuid.uuid4()}\n")
            return path.read_text().strip()

    def _registry_config(self) -> dict[str, Any]:
        settings = self.settings
        mirrors = list(settings.registry_mirrors)
        index = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
        others = {
            name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
            for name in settings.insecure_registries
            if "/" not in name
        }
        ranges = [name for name in settings.insecure_registries if "/" in name]
        return {
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128", *ranges],
            "IndexConfigs": {"docker.io": index, **others},
            "Mirrors": mirrors,
        }

    def _warnings(self) -> list[str]:
        """Broken backends, and what the defaults lack; ``lading doctor`` tells of all."""
        rows = []
        for role in self.roles:
            for _, failed in sorted(role.failed.items()):
                name = failed.origin.name
                rows.append(f'WARNING: {role.role} backend "{name}" failed: {failed.reason}')
            for name, loaded in sorted(role.loaded.items()):
                if role.default not in ("", name):
                    continue
                if not loaded.probe.usable:
                    rows.append(
                        f'WARNING: {role.role} backend "{name}" is not usable: '
                        f"{loaded.probe.reason}"
                    )
                rows += [f"WARNING: {name}: {warning}" for warning in loaded.probe.warnings]
        return rows


_GRAPH_ROWS = {"lowerdir": "LowerDir", "upperdir": "UpperDir", "workdir": "WorkDir"}


def security_options(settings: Settings) -> list[str]:
    """What confines containers here, as ``info`` lists it."""
    found = []
    if security.apparmor_enabled():
        found.append("name=apparmor")
    profile = settings.seccomp_profile or "builtin"
    found.append(f"name=seccomp,profile={profile}")
    if security.selinux_enabled():
        found.append("name=selinux")
    if settings.userns_remap:
        found.append("name=userns")
    if settings.default_cgroupns_mode == "private":
        found.append("name=cgroupns")
    return found


def remove_empty_cgroups(parent: str) -> None:
    """Remove the cgroup that containers lie below, in every hierarchy where none does."""
    top = Path("/sys/fs/cgroup")
    for place in (top, *(p for p in top.iterdir() if p.is_dir() and not p.is_symlink())):
        path = place / parent.strip("/")
        if path.is_dir() and path != place:
            try:
                os.rmdir(path)
            except OSError:
                # Not empty: somebody's containers, which may be another daemon's.
                continue
