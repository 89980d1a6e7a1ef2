"""Flags with the grammar of Docker's command line, and what a command sees of them.

Clusters (``-it``), attached values (``-p80:80``), ``--flag=false`` for switches, and commands that
stop at the first argument are beyond click's own parser; a :class:`Flag` is a click option all the
same, so help and completion come from click.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from lading.cli.errors import UsageError

if TYPE_CHECKING:
    from lading.cli.session import Session

Parse = Callable[[str], Any]
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class Flag(click.Option):
    """One flag: its long name, one letter, the kind shown in the help, and how a value is read."""

    def __init__(
        self,
        long: str,
        short: str,
        help: str,
        *,
        kind: str,
        default: Any,
        parse: Parse,
        many: bool = False,
        aliases: Sequence[str] = (),
        hidden: bool = False,
        complete: str = "",
    ) -> None:
        names = [f"--{long}", *([f"-{short}"] if short else [])]
        is_switch = kind == "bool"
        super().__init__(
            [*names, long.replace("-", "_")],
            help=help,
            hidden=hidden,
            is_flag=is_switch,
            multiple=many,
            metavar=None if is_switch else kind,
        )
        self.long, self.short, self.kind, self.parse, self.many = long, short, kind, parse, many
        self.value_default = default
        self.aliases = tuple(aliases)
        self.completes = complete

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value of its own."""
        return self.kind == "bool"

    @property
    def shown(self) -> str:
        """The flag as messages name it."""
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"


def switch(long: str, short: str, help: str, *, default: bool = False, **more: Any) -> Flag:
    """A flag that is on or off."""
    return Flag(long, short, help, kind="bool", default=default, parse=_boolean, **more)


def text(long: str, short: str, help: str, *, default: Any = "", **more: Any) -> Flag:
    """A flag with one value; the last one wins."""
    parse = more.pop("parse", str)
    kind = more.pop("kind", "string")
    return Flag(long, short, help, kind=kind, default=default, parse=parse, **more)


def texts(long: str, short: str, help: str, **more: Any) -> Flag:
    """A flag that may be repeated."""
    parse = more.pop("parse", str)
    kind = more.pop("kind", "list")
    return Flag(long, short, help, kind=kind, default=[], parse=parse, many=True, **more)


def number(long: str, short: str, help: str, *, default: int = 0, **more: Any) -> Flag:
    """A flag with a whole number."""
    return Flag(long, short, help, kind="int", default=default, parse=_integer, **more)


def _boolean(value: str) -> bool:
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')


def _integer(value: str) -> int:
    try:
        return int(value, 0)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None


class Call:
    """One call of a command: its session, the values of its flags and its arguments."""

    def __init__(self, session: Session, path: str, flags: dict[str, Flag], parsed: Parsed) -> None:
        self.session = session
        self.path = path
        self.args = parsed.args
        self._flags = flags
        self._values = parsed.values

    @property
    def flag_names(self) -> frozenset[str]:
        """The long names of the command's flags."""
        return frozenset(self._flags)

    def value(self, name: str) -> Any:
        """The value of a flag, or its default."""
        if name in self._values:
            return self._values[name]
        default = self._flags[name].value_default
        return list(default) if isinstance(default, list) else default

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return bool(self.value(name))

    def text(self, name: str) -> str:
        """The text of a flag."""
        return str(self.value(name))

    def texts(self, name: str) -> list[str]:
        """The texts of a repeated flag."""
        values: list[str] = self.value(name)
        return values

    def number(self, name: str) -> int:
        """The number of a flag."""
        return int(self.value(name))

    def changed(self, name: str) -> bool:
        """Whether the flag was given."""
        return name in self._values

    def usage_error(self, message: str, *, code: int = 125) -> UsageError:
        """An error that points to this command's help."""
        return UsageError(message, path=self.path, code=code)


class Parsed:
    """What was found on a command line; ``help`` tells that the help was asked for."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.args: list[str] = []
        self.help = False


class Parser:
    """Reads the flags of one command.

    With ``interspersed`` flags may follow arguments; otherwise the first argument ends them.
    """

    def __init__(self, flags: dict[str, Flag], path: str, *, interspersed: bool = True) -> None:
        self._long = dict(flags)
        self._short = {flag.short: flag for flag in flags.values() if flag.short}
        for flag in flags.values():
            for alias in flag.aliases:
                (self._short if len(alias) == 1 else self._long).setdefault(alias, flag)
        self._path = path
        self._interspersed = interspersed

    def parse(self, words: Sequence[str]) -> Parsed:
        """Read the words; raises UsageError."""
        found, rest = Parsed(), list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                found.args += rest
                break
            if word.startswith("--"):
                self._read_long(word[2:], rest, found)
            elif word.startswith("-") and word != "-":
                self._read_short(word[1:], rest, found)
            else:
                found.args.append(word)
                if not self._interspersed:
                    found.args += rest
                    break
            if found.help:
                break
        return found

    def _read_long(self, word: str, rest: list[str], found: Parsed) -> None:
        name, equals, value = word.partition("=")
        flag = self._long.get(name)
        if flag is None:
            if name == "help":
                found.help = True
                return
            raise self._error(f"unknown flag: --{name}")
        if not equals:
            if flag.is_switch:
                value = "true"
            elif not rest:
                raise self._error(f"flag needs an argument: --{name}")
            else:
                value = rest.pop(0)
        self._store(flag, value, found)

    def _read_short(self, cluster: str, rest: list[str], found: Parsed) -> None:
        letters = cluster
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    found.help = True
                    return
                raise self._error(f"unknown shorthand flag: '{letter}' in -{cluster}")
            if letters.startswith("="):
                value, letters = letters[1:], ""
            elif flag.is_switch:
                value = "true"
            elif letters:
                value, letters = letters, ""
            elif rest:
                value = rest.pop(0)
            else:
                raise self._error(f"flag needs an argument: '{letter}' in -{cluster}")
            self._store(flag, value, found)

    def _store(self, flag: Flag, text: str, found: Parsed) -> None:
        try:
            value = flag.parse(text)
        except ValueError as error:
            message = f'invalid argument "{text}" for "{flag.shown}" flag: {error}'
            raise self._error(message) from error
        if not flag.many:
            found.values[flag.long] = value
        elif isinstance(value, list):
            found.values.setdefault(flag.long, []).extend(value)
        else:
            found.values.setdefault(flag.long, []).append(value)

    def _error(self, message: str) -> UsageError:
        return UsageError(message, path=self._path)
