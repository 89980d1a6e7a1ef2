"""Images from Dockerfiles: parser, plan, execution with a cache."""

from __future__ import annotations

from lading.build.builder import Builder
from lading.build.options import BuildOptions

__all__ = ["BuildOptions", "Builder"]
