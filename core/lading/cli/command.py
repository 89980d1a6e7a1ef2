"""The click command that every module of this package makes, and its help."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from lading.cli.errors import UsageError
from lading.cli.flags import Call, Flag, Parsed, Parser

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from lading.cli.session import Session

Body = Callable[[Call], "int | None"]
WIDTH = 80


class Arguments:
    """How many arguments a command takes."""

    def __init__(self, least: int, most: int | None) -> None:
        self.least = least
        self.most = most

    def check(self, args: Sequence[str], path: str) -> None:
        """Raise UsageError, exit code 1, for a wrong number."""
        count = len(args)
        if count >= self.least and (self.most is None or count <= self.most):
            return
        raise UsageError(f"'{path}' {self._rule()}", path=path, code=1)

    def _rule(self) -> str:
        if self.most == 0:
            return "accepts no arguments"
        if self.least == self.most:
            return f"requires {_plural(self.least)}"
        if self.most is None:
            return f"requires at least {_plural(self.least)}"
        if self.least == 0:
            return f"accepts at most {_plural(self.most)}"
        return f"requires at least {self.least} and at most {_plural(self.most)}"


def _plural(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"


NONE = Arguments(0, 0)


def exactly(count: int) -> Arguments:
    """A fixed number of arguments."""
    return Arguments(count, count)


def at_least(count: int) -> Arguments:
    """That many arguments or more."""
    return Arguments(count, None)


def between(least: int, most: int) -> Arguments:
    """From ``least`` to ``most`` arguments."""
    return Arguments(least, most)


class Command(click.Command):
    """A click command with Docker's grammar; its body gets a :class:`Call`."""

    def __init__(
        self,
        body: Body,
        help: str,
        *,
        usage: str,
        arguments: Arguments,
        flags: Sequence[Flag],
        interspersed: bool,
        completes: str,
    ) -> None:
        super().__init__(
            name=body.__name__, callback=None, help=help, params=list(flags), add_help_option=False
        )
        self.body = body
        self.usage = usage
        self.flags = {flag.long: flag for flag in flags}
        self.arguments = arguments
        self.interspersed = interspersed
        self.completes = completes

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line as Docker does, into ``ctx.params``."""
        parser = Parser(self.flags, ctx.command_path, interspersed=self.interspersed)
        try:
            parsed = parser.parse(args)
            if parsed.help and not ctx.resilient_parsing:
                sys.stdout.write(self.get_help(ctx) + "\n")
                ctx.exit()
            if not ctx.resilient_parsing:
                self.arguments.check(parsed.args, ctx.command_path)
        except UsageError:
            if not ctx.resilient_parsing:
                raise
            parsed = Parsed()
        ctx.meta["lading.parsed"] = parsed
        ctx.params = {name.replace("-", "_"): value for name, value in parsed.values.items()}
        ctx.args = []
        return []

    def invoke(self, ctx: click.Context) -> int:
        """Run the body; the exit code is its result."""
        session: Session = ctx.obj
        parsed: Parsed = ctx.meta["lading.parsed"]
        return self.body(Call(session, ctx.command_path, self.flags, parsed)) or 0

    def get_help(self, ctx: click.Context) -> str:
        """The help in the form that Docker's users know."""
        lines = [f"Usage:  {ctx.command_path} {self.usage}".rstrip(), "", self.help or ""]
        shown = [flag for flag in self.flags.values() if not flag.hidden]
        if shown:
            lines += ["", "Options:", *option_lines(sorted(shown, key=lambda flag: flag.long))]
        return "\n".join(lines)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Complete flags, and arguments with names that the daemon knows."""
        if incomplete.startswith("-"):
            shown = [flag for flag in self.flags.values() if not flag.hidden]
            names = [(f"--{flag.long}", flag.help) for flag in shown]
            return completions(names, incomplete)
        from lading.cli.completion import complete_names  # late: asks the daemon

        return complete_names(ctx, self.completes, incomplete)


def completions(
    rows: Iterable[tuple[str, str | None]], incomplete: str
) -> list[CompletionItem[Any]]:
    """The names that begin so, with their help."""
    from click.shell_completion import CompletionItem  # late: only completion needs it

    return [CompletionItem(n, help=h) for n, h in rows if n.startswith(incomplete)]


def option_lines(flags: Sequence[Flag]) -> list[str]:
    """The rows of an options table, wrapped."""
    import textwrap  # late: only the help needs it

    heads = []
    for flag in flags:
        short = f"-{flag.short}, " if flag.short else "    "
        kind = "" if flag.is_switch else f" {flag.kind}"
        heads.append(f"  {short}--{flag.long}{kind}")
    left = max(len(head) for head in heads) + 3
    lines = []
    for head, flag in zip(heads, flags, strict=True):
        help = (flag.help or "") + _default_note(flag)
        wrapped = textwrap.wrap(help, max(WIDTH - left, 24)) or [""]
        lines.append(head.ljust(left) + wrapped[0])
        lines += [" " * left + more for more in wrapped[1:]]
    return lines


def _default_note(flag: Flag) -> str:
    default: Any = flag.value_default
    if not default:
        return ""
    if isinstance(default, bool):
        return " (default true)"
    return f' (default "{default}")' if isinstance(default, str) else f" (default {default})"


def command(
    help: str,
    *,
    usage: str = "",
    arguments: Arguments = NONE,
    flags: Sequence[Flag] = (),
    interspersed: bool = True,
    completes: str = "",
) -> Callable[[Body], Command]:
    """Make a function a command.

    ``completes`` names what its arguments are: ``containers``, ``running``, ``images``,
    ``networks``, ``volumes``.
    """

    def make(body: Body) -> Command:
        return Command(
            body,
            help,
            usage=usage,
            arguments=arguments,
            flags=flags,
            interspersed=interspersed,
            completes=completes,
        )

    return make
