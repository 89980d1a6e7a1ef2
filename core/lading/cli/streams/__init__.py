"""Streams between a terminal and a container: attach, detach keys, window size, signals."""
