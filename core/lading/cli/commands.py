"""The table of all commands: where each one lives, and its line in the help.

A module is imported when its command is called, and for nothing else. Extensions add to the table
through :class:`Table`, the ``commands`` of ``register_commands``.
"""

from __future__ import annotations

from lading.errors import Conflict

Entry = tuple[str, str]

CONTAINERS: dict[str, Entry] = {
    "attach": ("lading.cli.containers.attach:attach", "Connect to the streams of a container"),
    "commit": ("lading.cli.containers.changes:commit", "Make an image of a container's changes"),
    "cp": ("lading.cli.containers.copy:cp", "Copy files between a container and the host"),
    "create": ("lading.cli.containers.run:create", "Make a container without starting it"),
    "diff": ("lading.cli.containers.changes:diff", "Show what a container changed on its disk"),
    "exec": ("lading.cli.containers.execute:execute", "Run a command in a running container"),
    "export": ("lading.cli.containers.changes:export", "Write a container's files as a tar"),
    "kill": ("lading.cli.containers.lifecycle:kill", "Send a signal to containers"),
    "logs": ("lading.cli.containers.logs:logs", "Show what a container has written"),
    "mount": ("lading.cli.host_mounts:mount", "Show a container's files at a host's directory"),
    "pause": ("lading.cli.containers.lifecycle:pause", "Freeze all processes of containers"),
    "port": ("lading.cli.containers.details:port", "Show the published ports of a container"),
    "ps": ("lading.cli.containers.listing:ps", "List containers"),
    "rename": ("lading.cli.containers.lifecycle:rename", "Give a container another name"),
    "restart": ("lading.cli.containers.lifecycle:restart", "Stop and start containers"),
    "rm": ("lading.cli.containers.lifecycle:rm", "Remove containers"),
    "run": ("lading.cli.containers.run:run", "Make a container of an image and start it"),
    "start": ("lading.cli.containers.start:start", "Start stopped containers"),
    "stats": ("lading.cli.containers.stats:stats", "Watch the resources that containers use"),
    "stop": ("lading.cli.containers.lifecycle:stop", "Stop running containers"),
    "top": ("lading.cli.containers.details:top", "Show the processes of a container"),
    "unmount": ("lading.cli.host_mounts:unmount", "End what mount has begun"),
    "unpause": ("lading.cli.containers.lifecycle:unpause", "Thaw frozen containers"),
    "update": ("lading.cli.containers.update:update", "Change the limits of containers"),
    "wait": ("lading.cli.containers.lifecycle:wait", "Wait for containers; print exit codes"),
}
IMAGES: dict[str, Entry] = {
    "build": ("lading.cli.images.build:build", "Build an image from a Dockerfile"),
    "history": ("lading.cli.images.history:history", "Show the layers of an image"),
    "images": ("lading.cli.images.listing:images", "List images"),
    "import": ("lading.cli.images.transfer:import_", "Make an image of a root file system"),
    "load": ("lading.cli.images.transfer:load", "Load images from a tar archive"),
    "pull": ("lading.cli.images.registry:pull", "Get an image from a registry"),
    "push": ("lading.cli.images.registry:push", "Send an image to a registry"),
    "rmi": ("lading.cli.images.removal:rmi", "Remove images"),
    "save": ("lading.cli.images.transfer:save", "Write images as a tar archive"),
    "search": ("lading.cli.images.search:search", "Search a registry for images"),
    "tag": ("lading.cli.images.removal:tag", "Give an image another name"),
}
GENERAL: dict[str, Entry] = {
    "completion": ("lading.cli.completion:completion", "Print a completion script for a shell"),
    "doctor": ("lading.cli.system.doctor:doctor", "Tell what works on this host, and why not"),
    "events": ("lading.cli.system.events:events", "Watch what happens in the daemon"),
    "info": ("lading.cli.system.info:info", "Show the daemon's state and its host"),
    "inspect": ("lading.cli.inspection:inspect", "Show all about any object"),
    "login": ("lading.cli.system.login:login", "Log in to a registry"),
    "logout": ("lading.cli.system.login:logout", "Forget a registry's credentials"),
    "version": ("lading.cli.system.version:version", "Show versions of client and daemon"),
}
BUILDER: dict[str, Entry] = {
    "build": IMAGES["build"],
    "prune": ("lading.cli.system.prune:builder_prune", "Remove build cache"),
}
CONTAINER: dict[str, Entry] = {
    **CONTAINERS,
    "inspect": ("lading.cli.inspection:container_inspect", "Show all about containers"),
    "ls": CONTAINERS["ps"],
    "prune": ("lading.cli.system.prune:container_prune", "Remove all stopped containers"),
}
IMAGE: dict[str, Entry] = {
    **{name: entry for name, entry in IMAGES.items() if name not in ("images", "rmi", "search")},
    "inspect": ("lading.cli.inspection:image_inspect", "Show all about images"),
    "ls": IMAGES["images"],
    "mount": ("lading.cli.host_mounts:image_mount", "Show an image's files at a host's directory"),
    "prune": ("lading.cli.system.prune:image_prune", "Remove unused images"),
    "rm": IMAGES["rmi"],
    "unmount": ("lading.cli.host_mounts:image_unmount", "End what image mount has begun"),
}
MANIFEST: dict[str, Entry] = {
    "inspect": ("lading.cli.images.manifest:inspect", "Show a manifest as a registry has it"),
}
NETWORK: dict[str, Entry] = {
    "connect": ("lading.cli.networks:connect", "Connect a container to a network"),
    "create": ("lading.cli.networks:create", "Make a network"),
    "disconnect": ("lading.cli.networks:disconnect", "Take a container off a network"),
    "inspect": ("lading.cli.inspection:network_inspect", "Show all about networks"),
    "ls": ("lading.cli.networks:ls", "List networks"),
    "prune": ("lading.cli.system.prune:network_prune", "Remove unused networks"),
    "rm": ("lading.cli.networks:rm", "Remove networks"),
}
CONFIG: dict[str, Entry] = {
    "show": ("lading.cli.system.config:show", "Show the daemon's configuration and its sources"),
}
PLUGIN: dict[str, Entry] = {
    "inspect": ("lading.cli.system.plugins:inspect", "Show all about backends and extensions"),
    "ls": ("lading.cli.system.plugins:ls", "List backends and extensions"),
    "new": ("lading.cli.system.new_plugin:new", "Write a new plugin, with its tests"),
    "reload": ("lading.cli.system.plugins:reload", "Take over new versions of backends"),
}
STORAGE: dict[str, Entry] = {
    "migrate": ("lading.cli.storage:migrate", "Move images and containers to another backend"),
}
SYSTEM: dict[str, Entry] = {
    "df": ("lading.cli.system.disk:df", "Show the disk space in use"),
    "events": GENERAL["events"],
    "info": GENERAL["info"],
    "prune": ("lading.cli.system.prune:system_prune", "Remove all that is unused"),
}
VOLUME: dict[str, Entry] = {
    "create": ("lading.cli.volumes:create", "Make a volume"),
    "inspect": ("lading.cli.inspection:volume_inspect", "Show all about volumes"),
    "ls": ("lading.cli.volumes:ls", "List volumes"),
    "prune": ("lading.cli.system.prune:volume_prune", "Remove unused volumes"),
    "rm": ("lading.cli.volumes:rm", "Remove volumes"),
}
GROUPS: dict[str, tuple[str, dict[str, Entry]]] = {
    "builder": ("Manage builds", BUILDER),
    "config": ("Look at the daemon's configuration", CONFIG),
    "container": ("Manage containers", CONTAINER),
    "image": ("Manage images", IMAGE),
    "manifest": ("Manage manifests", MANIFEST),
    "network": ("Manage networks", NETWORK),
    "plugin": ("Manage backends and extensions", PLUGIN),
    "storage": ("Manage what file system backends hold", STORAGE),
    "system": ("Manage the daemon", SYSTEM),
    "volume": ("Manage volumes", VOLUME),
}
ALIASES = {"list": "ls", "remove": "rm", "ps": "ls"}


class Table:
    """The top-level commands, open to extensions."""

    def __init__(self) -> None:
        self.commands: dict[str, Entry] = {**CONTAINERS, **IMAGES, **GENERAL}
        self.groups = dict(GROUPS)

    def add(self, name: str, target: str, help: str) -> None:
        """Add ``lading NAME``: ``target`` is ``module:attribute`` of a click command.

        A group is added as a click group. Raises Conflict when the name is taken.
        """
        if name in self.commands or name in self.groups:
            raise Conflict(f'command "{name}": the name is taken')
        self.commands[name] = (target, help)
