"""Rules: which calls they fit, and what happens then."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from lading.bundle.state import start_time
from lading.errors import Invalid, LadingError, from_wire

ACTIONS = ("fail", "delay", "kill")
ROLES = ("isolation", "filesystem", "network", "registry")
WHEN = ("before", "after")
VICTIMS = ("daemon", "caller")
#: What a rule that fails raises when it does not say.
USUAL_ERROR = "unavailable"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. It fits calls by role, backend and hook (shell patterns).

    Of the calls that it fits it acts on all from the ``nth`` on (counted from 1), at most ``times``
    of them (0 = no end), each with ``probability``: a function of ``seed`` and the call's number.
    ``when`` is before the hook is called, or after it has returned (its result is lost then when
    the rule fails). ``error`` is a kind of lading.errors or the name of an errno (ENOSPC).
    ``victim`` of a kill is the daemon, or the process that makes the call.
    """

    action: str
    id: str = ""
    role: str = "*"
    backend: str = "*"
    hook: str = "*"
    when: str = "before"
    nth: int = 1
    times: int = 0
    probability: float = 1.0
    seed: int = 0
    error: str = ""
    message: str = ""
    seconds: float = 0.0
    victim: str = "daemon"

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Rule:
        """A rule from TOML or JSON. Raises Invalid, naming the member and what would be right."""
        known = {field.name: field for field in fields(cls)}
        for name, value in members.items():
            if name not in known:
                raise Invalid(f'rule: no member "{name}"', hint=f"members: {', '.join(known)}")
            wanted = str(known[name].type)
            kinds = {"str": (str,), "int": (int,), "float": (int, float)}[wanted]
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise Invalid(f'rule: "{name}" is to be of type {wanted}')
        if "action" not in members:
            raise Invalid("rule: it has no action", hint=f"actions: {', '.join(ACTIONS)}")
        rule = cls(**members)
        rule._check()
        return rule

    def _check(self) -> None:
        for name, choices in (("action", ACTIONS), ("when", WHEN), ("victim", VICTIMS)):
            if (given := getattr(self, name)) not in choices:
                raise Invalid(f'rule: {name} "{given}"', hint=f"one of: {', '.join(choices)}")
        if not any(fnmatchcase(role, self.role) for role in ROLES):
            raise Invalid(f'rule: role "{self.role}" fits none', hint=", ".join(ROLES))
        if self.nth < 1 or self.times < 0 or self.seconds < 0 or not 0 <= self.probability <= 1:
            raise Invalid("rule: nth from 1, times and seconds from 0, probability from 0 to 1")
        if self.action == "delay" and not self.seconds:
            raise Invalid("rule: a delay needs seconds")
        self.failure()

    def fits(self, role: str, backend: str, hook: str, when: str) -> bool:
        """Whether a call is one that this rule is about; ``probe`` only when named in full."""
        return (
            self.when == when
            and (fnmatchcase(hook, self.hook) if hook != "probe" else self.hook == "probe")
            and fnmatchcase(role, self.role)
            and fnmatchcase(backend, self.backend)
        )

    def acts(self, number: int) -> bool:
        """Whether it acts on the ``number``-th call that it fits, counted from 1."""
        if number < self.nth or (self.times and number >= self.nth + self.times):
            return False
        if self.probability >= 1:
            return True
        from random import Random  # only for these rules: monitors do without it

        return Random(f"{self.seed}:{number}").random() < self.probability

    def failure(self) -> Exception:
        """What a rule that fails raises. Raises Invalid for an error that does not exist."""
        kind = self.error or USUAL_ERROR
        if kind.startswith("E") and hasattr(errno, kind):
            number = getattr(errno, kind)
            return OSError(number, self.message or os.strerror(number))
        found = from_wire({"kind": kind, "message": self.message or f"injected by rule {self.id}"})
        if cast(LadingError, found).kind != kind:
            raise Invalid(f'rule: no error "{kind}"', hint="a kind of lading.errors, or an errno")
        return found


def act(rule: Rule, directory: Path) -> None:
    """Do what the rule says; ``directory`` names the daemon."""
    if rule.action == "delay":
        time.sleep(rule.seconds)
    elif rule.action == "fail":
        raise rule.failure()
    elif rule.victim == "caller":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        pid, since = map(int, (directory / "daemon").read_text().split())
        # Containers outlive daemons: the pid may be another process's by now.
        if start_time(pid) == since:
            os.kill(pid, signal.SIGKILL)
