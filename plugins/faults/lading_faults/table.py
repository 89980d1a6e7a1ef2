"""The rules in force, shared by the daemon and the processes of monitors through files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lading.bundle.state import start_time
from lading.errors import NotFound
from lading_faults.rules import Rule

#: Ids of rules from the configuration begin with this.
CONFIGURED = "config-"


class Table:
    """Rules under a directory on tmpfs. Only the daemon changes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / "rules.json"
        self._counts = directory / "counts"
        self._lock = threading.Lock()
        self._seen = 0, 0
        self._rules: Sequence[Rule] = ()

    def begin(self, configured: Sequence[Rule]) -> None:
        """The daemon has started: its configured rules begin anew, others go on."""
        self._counts.mkdir(mode=0o700, exist_ok=True)
        pid = os.getpid()
        (self.directory / "daemon").write_text(f"{pid} {start_time(pid)}")
        kept = [rule for rule in self.rules() if not rule.id.startswith(CONFIGURED)]
        for rule in configured:
            (self._counts / rule.id).unlink(missing_ok=True)
        self._write([*configured, *kept])

    def rules(self) -> Sequence[Rule]:
        """The rules in force; read again when the file is another one."""
        try:
            status = os.stat(self._file)
        except FileNotFoundError:
            return ()
        seen = status.st_ino, status.st_mtime_ns
        if seen != self._seen:
            self._rules = [Rule(**members) for members in json.loads(self._file.read_text())]
            self._seen = seen
        return self._rules

    def add(self, rule: Rule) -> Rule:
        """Put a rule into force, under an id of its own."""
        with self._lock:
            rule = replace(rule, id=os.urandom(4).hex())
            self._write([*self.rules(), rule])
        return rule

    def remove(self, rule_id: str) -> None:
        """Take a rule out of force. Raises NotFound."""
        with self._lock:
            left = [rule for rule in self.rules() if rule.id != rule_id]
            if len(left) == len(self.rules()):
                raise NotFound(f'no rule "{rule_id}" is in force')
            self._write(left)
            (self._counts / rule_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Take all out of force."""
        with self._lock:
            gone = self.rules()
            self._write([])
            for rule in gone:
                (self._counts / rule.id).unlink(missing_ok=True)

    def count(self, rule: Rule) -> int:
        """Count one more call that the rule fits; returns its number, from 1.

        With O_APPEND the write and the move of the file's offset are one step (write(2)), so that
        processes which count at the same time get different numbers.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._counts / rule.id, flags, 0o600)
        try:
            os.write(file, b".")
            return os.lseek(file, 0, os.SEEK_CUR)
        finally:
            os.close(file)

    def counted(self, rule: Rule) -> int:
        """How many calls the rule has fitted."""
        try:
            return (self._counts / rule.id).stat().st_size
        except FileNotFoundError:
            return 0

    def _write(self, rules: Sequence[Rule]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(rule) for rule in rules]))
        fresh.rename(self._file)
