"""Volumes: directories that outlive containers, made and mounted by the ``local`` driver."""

from lading.volumes.volumes import ANONYMOUS, DRIVER, SCHEMA, Pruned, Volume, Volumes

__all__ = ["ANONYMOUS", "DRIVER", "SCHEMA", "Pruned", "Volume", "Volumes"]
