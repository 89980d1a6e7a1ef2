"""Lading filesystem backend hardlink: plain copies that share equal files."""

from lading_filesystem_hardlink.backend import Hardlink

__all__ = ["Hardlink"]
