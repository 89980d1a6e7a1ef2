"""``python -m lading_registry_server``: the commands without ``lading``."""

from lading_registry_server.commands import registry

if __name__ == "__main__":
    registry(prog_name="lading registry")
