"""Letting our traffic through a FORWARD chain whose policy is to drop.

dockerd, firewalls and admins set that policy, and a packet must be accepted by every table. Where
it holds, our bridges are accepted there; what our own table refuses stays refused.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Collection, Sequence
from functools import cached_property

from lading_network_bridge import iptables

_SECONDS = 30

log = logging.getLogger(__name__)


class Passage:
    """The rules of one daemon in FORWARD, found again by their comment, ``lading_<tag>``."""

    def __init__(self, tag: str) -> None:
        self._comment = f"lading_{tag}"

    @cached_property
    def _program(self) -> str:
        return iptables.usable()[0].get(4, "")

    def open(self, bridge: str) -> None:
        """Accept a bridge's traffic, if the policy is to drop it."""
        rows = self._rows()
        if "-P FORWARD DROP" not in rows:
            return
        for rule in self._rules(bridge):
            if not any(_same(row, rule) for row in rows):
                self._run("-I", "FORWARD", *rule)

    def close(self, bridge: str) -> None:
        """Take that back; silent when it was never done."""
        rows = self._rows()
        for rule in self._rules(bridge):
            if any(_same(row, rule) for row in rows):
                self._run("-D", "FORWARD", *rule)

    def keep(self, bridges: Collection[str]) -> None:
        """Accept these bridges' traffic and no other's."""
        for row in self._rows():
            words = row.split()
            if self._comment in row and words[:2] == ["-A", "FORWARD"] and words[3] not in bridges:
                self._run("-D", "FORWARD", *_words(words[2:]))
        for bridge in bridges:
            self.open(bridge)

    def _rules(self, bridge: str) -> list[list[str]]:
        end = ["-m", "comment", "--comment", self._comment, "-j", "ACCEPT"]
        return [["-i", bridge, *end], ["-o", bridge, *end]]

    def _rows(self) -> list[str]:
        if not self._program:
            return []
        return self._run("-S", "FORWARD").splitlines()

    def _run(self, *arguments: str) -> str:
        command = [self._program, "-w", "10", *arguments]
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, check=False, text=True
        )
        if done.returncode:
            log.warning("%s: %s", " ".join(command), done.stderr.strip())
        return done.stdout


def _same(row: str, rule: Sequence[str]) -> bool:
    return _words(row.split()[2:]) == list(rule)


def _words(words: Sequence[str]) -> list[str]:
    """A rule as it is listed, in the form in which it is given."""
    return [word.strip('"') for word in words]
