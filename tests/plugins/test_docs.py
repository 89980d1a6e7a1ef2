"""The guides for authors agree with the contracts and the examples.

``python tests/plugins/test_docs.py`` writes the generated part anew.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from lading.hooks.extension import hook_names, main_protocol

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "plugins"
ROLES = ("isolation", "filesystem", "network", "registry", "extension")
BEGIN = "<!-- generated from lading.hooks.{role} by tests/plugins/test_docs.py -->\n"
END = "<!-- end -->\n"


def contract(role: str) -> str:
    """The reference of a role: capabilities, then each hook with signature and docstring."""
    module: Any = importlib.import_module(f"lading.hooks.{role}")
    lines = [f"Version {module.SPEC_VERSION}; the whole text is the module `lading.hooks.{role}`."]
    if module.CAPABILITIES:
        lines += ["", "| capability | promise |", "|---|---|"]
        lines += [f"| `{name}` | {promise} |" for name, promise in module.CAPABILITIES.items()]
    lines += hooks_of(main_protocol(role))
    for capability, protocol in module.OPTIONAL.items():
        lines += ["", f"With the capability `{capability}` also:", *hooks_of(protocol)]
    return "\n".join(lines) + "\n"


def hooks_of(protocol: type) -> list[str]:
    lines = []
    names = [n for n in vars(protocol) if n in hook_names(protocol)]
    for name in names:
        spec = getattr(protocol, name)
        lines += ["", f"### `{name}{inspect.signature(spec)}`", ""]
        lines += (inspect.getdoc(spec) or "").replace("``", "`").splitlines()
    return lines


def guide(role: str) -> str:
    return (GUIDES / f"{role}.md").read_text()


def with_contract(role: str, text: str) -> str:
    begin = BEGIN.format(role=role)
    head, rest = text.split(begin)
    return f"{head}{begin}{contract(role)}{rest[rest.index(END) :]}"


def blocks(text: str, language: str = "python") -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.M | re.S)
    return [textwrap.dedent(block) for _, block in found]


@pytest.mark.parametrize("role", ROLES)
def test_the_contract_is_the_specs(role: str) -> None:
    """Run this file as a program if it is not."""
    assert guide(role) == with_contract(role, guide(role))


@pytest.mark.parametrize("role", ROLES)
def test_every_hook_is_spoken_of(role: str) -> None:
    prose = guide(role).split(BEGIN.format(role=role))[0]
    table = prose[prose.index("## When hooks are called") :]
    missing = {n for n in hook_names(main_protocol(role)) if f"`{n}`" not in table}
    assert missing <= {"probe", "unpublish", "manifest"}


@pytest.mark.parametrize("path", sorted(GUIDES.glob("*.md")), ids=lambda p: p.name)
def test_code_is_code(path: Path) -> None:
    for block in blocks(path.read_text()):
        ast.parse(f"def f():\n{textwrap.indent(block, '    ')}")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_filesystem_guide_shows_the_example() -> None:
    (package,) = (ROOT / "examples").glob("*/lading_filesystem_hardlink")
    source = flat("".join(p.read_text() for p in package.glob("*.py")))
    shown = blocks(guide("filesystem"))
    assert len(shown) >= 3
    for block in shown:
        assert flat(block) in source, block


@pytest.mark.parametrize("role", ["isolation", "network", "registry", "extension"])
def test_the_other_guides_show_what_is_generated(role: str) -> None:
    template = ROOT / f"core/lading/cli/scaffold/templates/{role}/backend.py.template"
    source = flat(template.read_text())
    worked = guide(role)
    worked = worked[worked.index("## Worked example") : worked.index("## How to")]
    for block in blocks(worked):
        # A docstring between a signature and its body is left out here.
        assert all(flat(line) in source for line in block.splitlines()), block


def test_links_lead_somewhere() -> None:
    for path in GUIDES.glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


if __name__ == "__main__":
    for each in ROLES:
        file = GUIDES / f"{each}.md"
        file.write_text(with_contract(each, file.read_text()))
