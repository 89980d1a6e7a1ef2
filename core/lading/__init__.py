"""Lading: a container engine with a small core and swappable backends."""

__version__ = "0.1.0"
