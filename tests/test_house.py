"""The house rules that tools can hold: style, types, import directions, names, sizes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = sorted(p.parent for p in ROOT.glob("plugins/*/pyproject.toml"))
CORE = ROOT / "core" / "lading"
SOURCES = [
    path
    for top in ("core", "plugins", "bench")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "tests" not in path.relative_to(ROOT).parts
]


def tool(*command: str, **environment: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    tool("ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    tool("ruff", "format", "--check", ".")


def test_types_hold_strictly() -> None:
    """Of tests as well: what they call must still be there."""
    code = (str(p / f"lading_{p.name}") for p in PLUGINS)
    roots = ":".join(map(str, (ROOT / "core", *PLUGINS)))
    tool("mypy", "core/lading", *code, "tests", MYPYPATH=roots)


def test_imports_point_one_way() -> None:
    tool("lint-imports")


def backend_names() -> list[str]:
    """The short names of all backends in this checkout, from their entry points."""
    names = set()
    for plugin in PLUGINS:
        text = (plugin / "pyproject.toml").read_text()
        table = re.search(r'entry-points\."lading\.(\w+)"\]\n((?:\w[^\n]*\n)+)', text)
        if table:
            names |= set(re.findall(r"^([\w-]+) *=", table.group(2), re.M))
    return sorted(names)


def test_core_names_no_backend_outside_default_config() -> None:
    """String constants and identifiers only: prose may explain."""
    wanted = {n for n in backend_names() if n not in COMMON_WORDS}
    found = []
    for path in sorted((ROOT / "core").rglob("*.py")):
        # Default config may; lading.linux speaks of the kernel's filesystems, not of backends.
        if path in (CORE / "config.py",) or path.is_relative_to(CORE / "linux"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in wanted:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.value!r}")
    assert found == []


# Names of backends that are words of Docker's own API as well (a network's driver, a host mode).
# A "trace" is also what an error in another process leaves.
COMMON_WORDS = {"bridge", "trace", "v1", "v2"}


def test_plugins_import_only_public_modules_of_the_core() -> None:
    found = []
    for plugin in PLUGINS:
        for path in sorted((plugin / f"lading_{plugin.name}").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    modules = [node.module or ""]
                elif isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                else:
                    continue
                found += [
                    f"{path.relative_to(ROOT)}:{node.lineno} {m}"
                    for m in modules
                    if m.startswith("lading.") and any(p.startswith("_") for p in m.split("."))
                ]
    assert found == []


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_no_function_is_longer_than_100_lines_and_no_module_than_800() -> None:
    found = []
    for path in SOURCES:
        text = path.read_text()
        if text.count("\n") > 800:
            found.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        found += [
            f"{path.relative_to(ROOT)}:{f.lineno} {f.name}"
            for f in functions(ast.parse(text))
            if (f.end_lineno or 0) - f.lineno >= 100
        ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    assert [
        p for p in SOURCES if p.stat().st_size and not ast.get_docstring(ast.parse(p.read_text()))
    ] == []


def test_every_hook_says_what_it_does() -> None:
    for path in (ROOT / "core/lading/hooks").glob("*.py"):
        for function in functions(ast.parse(path.read_text())):
            assert ast.get_docstring(function), f"{path.name}: {function.name}"


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_shell_scripts_parse(script: str) -> None:
    shell = shutil.which("sh")
    assert shell
    assert subprocess.run([shell, "-n", str(ROOT / script)]).returncode == 0
