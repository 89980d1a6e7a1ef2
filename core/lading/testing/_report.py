"""The report of ``pytest --lading-plugin NAME``: by part of the kit, by capability, by rule."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from lading.testing._chosen import Chosen

_NEEDS = re.compile(r"""\.(?:can\(|need\(loaded, )["']([a-z0-9-]+)["']\)""")
_OUTCOMES = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Rule:
    """One test of the kit: the part that it belongs to, its rule, the capabilities it needs."""

    part: str
    text: str
    needs: frozenset[str]


class Report:
    """A pytest plugin of its own: it watches the kit's tests and prints at the end."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._rules: dict[str, Rule] = {}
        self._outcomes: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._skips: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note the rule of each test."""
        for item in items:
            function = getattr(item, "function", None)
            if function is not None and item.nodeid.split("::")[-2:-1] == ["TestPlugin"]:
                self._rules[item.nodeid] = _rule(function)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome; a failure or skip of a fixture is the test's."""
        node = report.nodeid
        if node not in self._rules or (report.when != "call" and report.passed):
            return
        if self._outcomes.get(node) != "failed":
            self._outcomes[node] = report.outcome
        if report.failed:
            self._failures.setdefault(node, _message(report))
        if report.skipped and isinstance(report.longrepr, tuple):
            self._skips[report.longrepr[2].removeprefix("Skipped: ")] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the report."""
        origin = self._chosen.origin
        terminalreporter.section(f"conformance of {origin.role} plugin {origin.name}", sep="=")
        for line in self._lines():
            terminalreporter.write_line(line)

    def _lines(self) -> Iterator[str]:
        origin = self._chosen.origin
        yield f"{origin.distribution} {origin.version}, {origin.target}"
        yield ""
        yield from self._table()
        yield ""
        yield from self._capabilities()
        for reason, count in self._skips.most_common():
            yield f"skipped {count}: {reason}"
        for node, message in self._failures.items():
            yield ""
            yield f"BROKEN {self._rules[node].part}: {node.rpartition('::')[2]}"
            yield f"  rule: {self._rules[node].text}"
            yield f"  {message}"
        yield ""
        yield self._verdict()

    def _table(self) -> Iterator[str]:
        parts: dict[str, Counter[str]] = {}
        for node, outcome in self._outcomes.items():
            parts.setdefault(self._rules[node].part, Counter())[outcome] += 1
        total = sum(parts.values(), Counter())
        width = max([len(part) for part in parts] + [5]) + 2
        yield "part".ljust(width) + "".join(name.rjust(9) for name in _OUTCOMES)
        for part, counts in [*parts.items(), ("total", total)]:
            yield part.ljust(width) + "".join(f"{counts[name]:9}" for name in _OUTCOMES)

    def _capabilities(self) -> Iterator[str]:
        contract = import_module(f"lading.hooks.{self._chosen.origin.role}")
        declared: frozenset[str] = getattr(self._chosen.maker, "capabilities", frozenset())
        for name, promise in contract.CAPABILITIES.items():
            rows = [n for n, rule in self._rules.items() if name in rule.needs]
            counts = Counter(self._outcomes.get(n, "skipped") for n in rows)
            if name not in declared:
                level = "not declared"
            elif counts["failed"]:
                level = f"BROKEN ({counts['failed']} of {len(rows)} rules)"
            elif counts["passed"]:
                level = f"held ({counts['passed']} of {len(rows)} rules)"
            else:
                level = "declared, not tested" if rows else "declared, no rule in the kit"
            yield f"{name:16} {level:26} {promise}"
        if contract.CAPABILITIES:
            yield ""

    def _verdict(self) -> str:
        counts = Counter(self._outcomes.values())
        name = self._chosen.origin.name
        if counts["failed"]:
            return f"{name} breaks {counts['failed']} of {sum(counts.values())} rules."
        if not counts["passed"]:
            return f"Nothing is proved about {name}: every rule was skipped."
        return f"{name} keeps all {counts['passed']} rules that this host could test."


def _rule(function: Any) -> Rule:
    """What a test holds: the first of its class names is the part of the kit."""
    part = function.__qualname__.split(".")[0]
    text = " ".join((function.__doc__ or function.__name__).split())
    return Rule(part, text, frozenset(_NEEDS.findall(inspect.getsource(function))))


def _message(report: pytest.TestReport) -> str:
    """Expected and got, without the rule, which stands beside it; else the last line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else "no message"
    told = next((line for line in lines if "expected" in line), first)
    return told.removeprefix("AssertionError: ").partition("; rule: ")[0]
