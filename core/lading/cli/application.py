"""The root of the command line: global flags, groups of lazily imported commands, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lading.cli.command import completions, option_lines
from lading.cli.commands import ALIASES, Entry, Table
from lading.cli.errors import Failure, UsageError
from lading.cli.flags import Flag, Parsed, Parser, switch, text, texts
from lading.cli.session import Session
from lading.errors import LadingError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "lading"
COMPLETION_VARIABLE = "_LADING_COMPLETE"
COMMON = ("run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search")

GLOBAL_FLAGS = (
    text("config", "", "Folder of the client's configuration"),
    text("context", "c", "Name of the context that tells where the daemon is"),
    switch("debug", "D", "Show more about errors"),
    texts("host", "H", "Where the daemon listens: unix://PATH or tcp://HOST:PORT"),
    text("log-level", "l", "Level of the client's messages", default="info"),
    switch("tls", "", "Use TLS; implied by --tlsverify"),
    text("tlscacert", "", "Authorities that the daemon's certificate is checked against"),
    text("tlscert", "", "Certificate of this client"),
    text("tlskey", "", "Key of this client's certificate"),
    switch("tlsverify", "", "Use TLS and verify the daemon"),
    switch("version", "v", "Print the version and quit"),
)


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time, when they are called."""

    def __init__(self, name: str, help: str, entries: dict[str, Entry]) -> None:
        super().__init__(name=name, help=help, add_help_option=False)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names for help and completion."""
        return sorted(self.entries)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command; None for a name that is not known."""
        entry = self.entries.get(name) or self.entries.get(ALIASES.get(name, ""))
        return None if entry is None else load(entry[0])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the subcommand; without one print the help."""
        if ctx.resilient_parsing:
            ctx.args = args
            ctx._protected_args = args[:1]
            ctx.args = args[1:]
            return args[1:]
        if not args or args[0] in ("--help", "-h"):
            sys.stdout.write(self.get_help(ctx) + "\n")
            ctx.exit()
        if args[0].startswith("-"):
            raise UsageError(f"unknown flag: {args[0]}", path=ctx.command_path)
        ctx._protected_args, ctx.args = args[:1], args[1:]
        return ctx.args

    def invoke(self, ctx: click.Context) -> int:
        """Call the subcommand; the exit code is its result."""
        name = ctx._protected_args[0]
        found = self.get_command(ctx, name)
        if found is None:
            message = f"unknown command: {ctx.command_path} {name}"
            raise UsageError(f"{PROGRAM}: {message}", path=ctx.command_path, code=1)
        with found.make_context(name, list(ctx.args), parent=ctx) as inner:
            result = found.invoke(inner)
        return result if isinstance(result, int) else 0

    def get_help(self, ctx: click.Context) -> str:
        """The list of commands."""
        lines = [f"Usage:  {ctx.command_path} COMMAND", "", self.help or "", "", "Commands:"]
        lines += command_lines({name: self.entries[name][1] for name in sorted(self.entries)})
        lines += ["", f"Run '{ctx.command_path} COMMAND --help' for more information on a command."]
        return "\n".join(lines)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Complete the names of commands without importing them."""
        rows = ((name, help) for name, (_, help) in sorted(self.entries.items()))
        return completions(rows, incomplete)


class Root(LazyGroup):
    """``lading`` itself: its flags come before the command."""

    def __init__(self, table: Table) -> None:
        super().__init__(PROGRAM, "Run containers", table.commands)
        self.table = table
        self.flags = {flag.long: flag for flag in GLOBAL_FLAGS}

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A management group, or an imported command."""
        group = self.table.groups.get(name)
        if group is not None:
            return LazyGroup(name, group[0], group[1])
        if name not in self.entries:
            from lading.cli.extensions import add_commands  # late: looks at what is installed

            add_commands(self.table)
        entry = self.entries.get(name)
        return None if entry is None else load(entry[0])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the global flags and make the session."""
        parsed = Parser(self.flags, PROGRAM, interspersed=False).parse(args)
        ctx.obj = session_of(self.flags, parsed)
        if ctx.resilient_parsing:
            ctx._protected_args, ctx.args = parsed.args[:1], parsed.args[1:]
            return ctx.args
        if parsed.values.get("version"):
            from lading.cli.system.version import one_line

            sys.stdout.write(one_line() + "\n")
            ctx.exit()
        if parsed.help or not parsed.args or parsed.args == ["help"]:
            sys.stdout.write(self.get_help(ctx) + "\n")
            ctx.exit()
        if parsed.args[0] == "help":
            parsed.args = [*parsed.args[1:], "--help"]
        return super().parse_args(ctx, parsed.args)

    def get_help(self, ctx: click.Context) -> str:
        """The commands by kind, and the global flags."""
        from lading.cli.extensions import add_commands  # late: looks at what is installed

        add_commands(self.table)
        rows = {name: help for name, (_, help) in self.entries.items()}
        groups = {name: help for name, (help, _) in sorted(self.table.groups.items())}
        rest = {name: rows[name] for name in sorted(rows) if name not in COMMON}
        lines = [f"Usage:  {PROGRAM} [OPTIONS] COMMAND", "", self.help or ""]
        lines += ["", "Common Commands:", *command_lines({n: rows[n] for n in COMMON})]
        lines += ["", "Management Commands:", *command_lines(groups)]
        lines += ["", "Commands:", *command_lines(rest)]
        lines += ["", "Global Options:", *option_lines(GLOBAL_FLAGS)]
        lines += ["", f"Run '{PROGRAM} COMMAND --help' for more information on a command."]
        return "\n".join(lines)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Complete groups too."""
        rows = {name: help for name, (_, help) in self.entries.items()}
        rows.update({name: help for name, (help, _) in self.table.groups.items()})
        return completions(sorted(rows.items()), incomplete)


def command_lines(rows: dict[str, str]) -> list[str]:
    """Names and their help, aligned."""
    left = max(len(name) for name in rows) + 3
    return [f"  {name.ljust(left)}{help}" for name, help in rows.items()]


def load(target: str) -> click.Command:
    """Import ``module:attribute``."""
    from importlib import import_module

    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, click.Command):
        raise Failure(f"{PROGRAM}: {target} is no click command")
    return found


def session_of(flags: dict[str, Flag], parsed: Parsed) -> Session:
    """The session that the global flags ask for."""
    hosts: list[str] = parsed.values.get("host", [])
    if len(hosts) > 1:
        raise Failure("specify only one -H")
    return Session(
        host=hosts[0] if hosts else "",
        flags={name: parsed.values[name] for name in flags if name in parsed.values},
    )


def run() -> int:
    """Run the command line of this process; returns the exit code."""
    if COMPLETION_VARIABLE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(
            Root(Table()), {}, PROGRAM, COMPLETION_VARIABLE, os.environ[COMPLETION_VARIABLE]
        )
    return guarded(lambda: call(sys.argv[1:]))


def call(words: list[str]) -> int:
    """Run one command line; errors are raised."""
    root = Root(Table())
    try:
        with root.make_context(PROGRAM, words) as ctx:
            return root.invoke(ctx)
    except click.exceptions.Exit as done:
        return done.exit_code


def guarded(body: Callable[[], int]) -> int:
    """Run ``body``; say what went wrong in one line and turn it into an exit code."""
    try:
        code = body()
        sys.stdout.flush()
        return code
    except UsageError as error:
        hint = f"\nSee '{error.path} --help'." if error.path else ""
        return _complain(error.message + hint, error.code)
    except Failure as error:
        return _complain(error.message, error.code)
    except LadingError as error:
        return _complain(str(error), 1)
    except click.ClickException as error:
        return _complain(f"{PROGRAM}: {error.format_message()}", error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; a shell reports this as it does for other programs.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        return _complain(_os_message(error), 1)


def _os_message(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{PROGRAM}: {error.filename}: {reason}" if error.filename else f"{PROGRAM}: {reason}"


def _complain(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        pass
    if message:
        sys.stderr.write(message + "\n")
    return code
