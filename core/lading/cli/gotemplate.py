"""Go's ``text/template`` as far as ``--format`` needs it: parse once, render many times.

Fields and methods, pipelines, variables, ``if``/``else if``, ``range``, ``with``, ``define`` and
``template``, ``break`` and ``continue``, trim markers, and the functions of
:mod:`lading.cli.gofunctions`. Data are what JSON gives, and :class:`Record` for objects that work
their fields out when they are asked for. Messages of errors follow Go's, since scripts meet them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from lading.cli.gofunctions import FUNCTIONS, TemplateError, show, truth

__all__ = ["Record", "Template", "TemplateError"]

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>/\*.*?\*/)
      | (?P<text>"(?:\\.|[^"\\\n])*" | `[^`]*`)
      | (?P<char>'(?:\\.|[^'\\])+')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.]))
      | (?P<variable>\$\w*)
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<dot>\.)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<declare>:=)
      | (?P<mark>[|(),=])""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = re.compile(r"\{\{(-(?=\s))?")
_END_TRIM = re.compile(r"\s-\}\}")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
CONSTANTS = {"true": True, "false": False, "nil": None}


@runtime_checkable
class Record(Protocol):
    """An object whose fields and methods a template may use."""

    def field(self, name: str) -> Any:
        """The field's value, or a callable for a method with arguments; raises KeyError."""
        ...


Token = tuple[str, str]


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class State:
    """What one rendering knows: the dot, the variables, the text so far."""

    def __init__(self, template: Template, root: Any) -> None:
        self.template = template
        self.dot = root
        self.variables: list[tuple[str, Any]] = [("$", root)]
        self.out: list[str] = []

    def variable(self, name: str) -> Any:
        """The innermost variable of that name."""
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise TemplateError(f"undefined variable: {name}")

    def assign(self, name: str, value: Any) -> None:
        """Set the innermost variable of that name."""
        for i in range(len(self.variables) - 1, -1, -1):
            if self.variables[i][0] == name:
                self.variables[i] = (name, value)
                return
        raise TemplateError(f"undefined variable: {name}")

    def block(self, nodes: list[Node], dot: Any) -> None:
        """Render nodes with another dot; their variables end with them."""
        outer, depth = self.dot, len(self.variables)
        self.dot = dot
        try:
            for node in nodes:
                node(self)
        finally:
            self.dot = outer
            del self.variables[depth:]


Node = Callable[[State], None]
Value = Callable[[State], Any]
NOTHING = object()


class Template:
    """A parsed template."""

    def __init__(
        self,
        source: str,
        *,
        name: str = "",
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.name = name
        self.functions = {**FUNCTIONS, **(functions or {})}
        self.defined: dict[str, list[Node]] = {}
        try:
            self._nodes = _Parser(source, self).parse()
        except TemplateError as error:
            raise TemplateError(f"template: {name}:{error.line}: {error}") from error

    def render(self, data: Any) -> str:
        """The text for these data; raises TemplateError."""
        state = State(self, data)
        try:
            state.block(self._nodes, data)
        except TemplateError as error:
            raise TemplateError(f"template: {self.name}:1: executing: {error}") from error
        return "".join(state.out)


def _pieces(source: str) -> list[tuple[str, str, int]]:
    """The source as texts and actions, each with its line; trim markers are worked in."""
    pieces: list[tuple[str, str, int]] = []
    at, trim = 0, False
    while True:
        opening = _OPENING.search(source, at)
        text = source[at : opening.start() if opening else len(source)]
        if trim:
            text = text.lstrip(" \t\r\n")
        if opening and opening.group(1):
            text = text.rstrip(" \t\r\n")
        if text:
            pieces.append(("text", text, 0))
        if opening is None:
            return pieces
        line = source.count("\n", 0, opening.start()) + 1
        at = _end_of_action(source, opening.end(), line)
        body = source[opening.end() : at - 2]
        trim = _END_TRIM.search(source, max(at - 4, 0), at) is not None and body.endswith("-")
        pieces.append(("action", body[:-1] if trim else body, line))


def _end_of_action(source: str, at: int, line: int) -> int:
    """The position behind the ``}}`` that ends the action which began before ``at``."""
    while not source.startswith("}}", at):
        if source.startswith("-}}", at):
            return at + 3
        token = _TOKEN.match(source, at)
        if token is None:
            if at >= len(source) or "}}" not in source[at:]:
                raise TemplateError("unclosed action", line=line)
            if source[at] in "\"'`":
                raise TemplateError("unterminated quoted string", line=line)
            raise TemplateError(f"unexpected {source[at]!r} in command", line=line)
        at = token.end()
    return at + 2


def _tokens(body: str, line: int) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise TemplateError(f"unexpected {body[at]!r} in command", line=line)
        kind = found.lastgroup or ""
        if kind != "comment":
            tokens.append((kind, found.group()))
        at = found.end()
    while tokens and tokens[-1][0] == "space":
        tokens.pop()
    while tokens and tokens[0][0] == "space":
        tokens.pop(0)
    return tokens


class _Parser:
    """Recursive descent over the pieces of one template."""

    def __init__(self, source: str, template: Template) -> None:
        self._pieces = _pieces(source)
        self._at = 0
        self._template = template
        self._tokens: list[Token] = []
        self._line = 1

    def parse(self) -> list[Node]:
        nodes, end = self._nodes(())
        if end:
            raise TemplateError(f"unexpected {{{{{end}}}}}", line=self._line)
        return nodes

    def _nodes(self, ends: tuple[str, ...]) -> tuple[list[Node], str]:
        """Nodes up to an action whose word is among ``ends``, which is left to the caller."""
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            kind, body, self._line = self._pieces[self._at]
            self._at += 1
            if kind == "text":
                nodes.append(_text_node(body))
                continue
            self._tokens = _tokens(body, self._line)
            if not self._tokens:
                if not body.strip(" -\n").startswith("/*"):
                    raise self._error("missing value for command")
                continue
            word = self._tokens[0][1] if self._tokens[0][0] == "word" else ""
            if word in ("end", "else"):
                if word not in ends:
                    raise self._error(f"unexpected {{{{{word}}}}}")
                return nodes, word
            node = self._action(word)
            if node is not None:
                nodes.append(node)
        if ends:
            raise self._error("unexpected EOF")
        return nodes, ""

    def _action(self, word: str) -> Node | None:
        if word in ("if", "with", "range"):
            self._tokens.pop(0)
            return self._control(word)
        if word in ("define", "block"):
            return self._define(word)
        if word == "template":
            return self._call_template()
        if word in ("break", "continue"):
            return _raiser(_Break if word == "break" else _Continue)
        return self._output()

    def _output(self) -> Node:
        names, declares, value = self._pipeline()

        def node(state: State) -> None:
            result = value(state)
            if not names:
                state.out.append(show(result))
            elif declares:
                state.variables.append((names[0], result))
            else:
                state.assign(names[0], result)

        return node

    def _control(self, word: str) -> Node:
        names, _, value = self._pipeline()
        body, otherwise = self._branches(word)
        if word == "range":
            return _range_node(names, value, body, otherwise)

        def node(state: State) -> None:
            depth = len(state.variables)
            result = value(state)
            if names:
                state.variables.append((names[0], result))
            try:
                if truth(result):
                    state.block(body, result if word == "with" else state.dot)
                else:
                    state.block(otherwise, state.dot)
            finally:
                del state.variables[depth:]

        return node

    def _branches(self, word: str) -> tuple[list[Node], list[Node]]:
        body, end = self._nodes(("end", "else"))
        if end != "else":
            return body, []
        self._tokens.pop(0)
        self._skip_space()
        if self._tokens:
            again = self._tokens.pop(0)[1]
            if again not in ("if", "with"):
                raise self._error(f"unexpected <{again}> in else")
            # `{{else if}}` shares the outer `{{end}}`.
            return body, [self._control(again)]
        otherwise, _ = self._nodes(("end",))
        return body, otherwise

    def _define(self, word: str) -> Node | None:
        self._tokens.pop(0)
        self._skip_space()
        name = self._text_token()
        value = self._pipeline()[2] if word == "block" else None
        self._template.defined[name], _ = self._nodes(("end",))
        return None if value is None else _template_node(name, value)

    def _call_template(self) -> Node:
        self._tokens.pop(0)
        self._skip_space()
        name = self._text_token()
        self._skip_space()
        return _template_node(name, self._pipeline()[2] if self._tokens else lambda state: None)

    def _text_token(self) -> str:
        if not self._tokens or self._tokens[0][0] != "text":
            raise self._error("missing name of the template")
        return _unquoted(self._tokens.pop(0)[1])

    def _pipeline(self) -> tuple[list[str], bool, Value]:
        """Variables that are set, whether they are new, and the value."""
        names, declares = self._declaration()
        stages = [self._command()]
        while self._tokens and self._tokens[0][1] == "|":
            self._tokens.pop(0)
            stages.append(self._command())
        if self._tokens and self._tokens[0][1] != ")":
            raise self._error(f"unexpected <{self._tokens[0][1]}> in operand")

        def value(state: State) -> Any:
            result: Any = NOTHING
            for stage in stages:
                result = stage(state, result)
            return result

        return names, declares, value

    def _declaration(self) -> tuple[list[str], bool]:
        self._skip_space()
        plain = [token for token in self._tokens if token[0] != "space"]
        for count in (1, 2):
            marks = plain[2 * count - 1 : 2 * count]
            names = [name for kind, name in plain[: 2 * count - 1 : 2] if kind == "variable"]
            if len(names) == count and marks and marks[0][1] in (":=", "="):
                while self._tokens.pop(0)[1] != marks[0][1]:
                    pass
                return names, marks[0][1] == ":="
        return [], False

    def _command(self) -> Callable[[State, Any], Any]:
        """One stage of a pipeline; it gets the result of the stage before, or NOTHING."""
        operands: list[Value] = []
        function: str = ""
        self._skip_space()
        if self._tokens and self._tokens[0][0] == "word":
            word = self._tokens[0][1]
            if word not in CONSTANTS:
                if word not in self._template.functions:
                    raise self._error(f'function "{word}" not defined')
                function = word
                self._tokens.pop(0)
        head: _Operand | None = None
        while True:
            self._skip_space()
            if not self._tokens or self._tokens[0][1] in ("|", ")"):
                break
            operand = self._operand()
            head = operand if head is None and not function else head
            operands.append(operand)
        if function:
            return _function_stage(self._template.functions[function], function, operands)
        if head is None:
            raise self._error("missing value for command")
        return _operand_stage(head, operands[1:])

    def _operand(self) -> _Operand:
        kind, text = self._tokens.pop(0)
        base: Value
        path: list[str] = []
        if kind == "field":
            base, path = _dot, [text[1:]]
        elif kind == "dot":
            base = _dot
        elif kind == "variable":
            base = _variable(text)
        elif kind == "text":
            base = _constant(_unquoted(text))
        elif kind == "char":
            base = _constant(ord(_unquoted(text)))
        elif kind == "number":
            base = _constant(_number(text))
        elif text == "(":
            base = self._pipeline()[2]
            if not self._tokens:
                raise self._error("unclosed left paren")
            self._tokens.pop(0)
        elif kind == "word" and text in CONSTANTS:
            base = _constant(CONSTANTS[text])
        elif kind == "word" and text in self._template.functions:
            stage = _function_stage(self._template.functions[text], text, [])
            base = _alone(stage)
        else:
            raise self._error(f"unexpected <{text}> in operand")
        while self._tokens and self._tokens[0][0] == "field":
            path.append(self._tokens.pop(0)[1][1:])
        return _Operand(base, path)

    def _skip_space(self) -> None:
        while self._tokens and self._tokens[0][0] == "space":
            self._tokens.pop(0)

    def _error(self, message: str) -> TemplateError:
        return TemplateError(message, line=self._line)


class _Operand:
    """A value and the fields that are followed from it."""

    def __init__(self, base: Value, path: list[str]) -> None:
        self.base = base
        self.path = path

    def __call__(self, state: State) -> Any:
        return self.call(state, [])

    def call(self, state: State, args: list[Any]) -> Any:
        """The value; ``args`` go to the last field, which must be a method then."""
        value = self.base(state)
        for i, name in enumerate(self.path):
            value = _field(value, name)
            if callable(value):
                value = value(*(args if i == len(self.path) - 1 else []))
                args = [] if i == len(self.path) - 1 else args
        if args:
            raise TemplateError(f"can't give argument to non-function .{'.'.join(self.path)}")
        return value


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        # Go's structs spell some JSON members otherwise: `.ID` for "Id", `.DNS` for "Dns".
        folded = name.lower()
        for key in value:
            if isinstance(key, str) and key.lower() == folded:
                return value[key]
        raise TemplateError(f'map has no entry for key "{name}"')
    if isinstance(value, Record):
        try:
            return value.field(name)
        except KeyError:
            kind = type(value).__name__
            raise TemplateError(f"can't evaluate field {name} in type {kind}") from None
    if value is None:
        raise TemplateError(f"nil data; no entry for key {name!r}")
    raise TemplateError(f"can't evaluate field {name} in type {type(value).__name__}")


def _function_stage(
    function: Callable[..., Any], name: str, operands: list[Value]
) -> Callable[[State, Any], Any]:
    def stage(state: State, piped: Any) -> Any:
        if name in ("and", "or"):
            return _short_circuit(name == "and", state, operands, piped)
        args = [operand(state) for operand in operands]
        if piped is not NOTHING:
            args.append(piped)
        try:
            return function(*args)
        except TemplateError as error:
            raise TemplateError(f"error calling {name}: {error}") from error
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise TemplateError(f"error calling {name}: {error}") from error

    return stage


def _short_circuit(conjunction: bool, state: State, operands: list[Value], piped: Any) -> Any:
    result: Any = piped
    for operand in operands:
        result = operand(state)
        if truth(result) != conjunction:
            return result
    return result if piped is NOTHING else piped


def _operand_stage(head: _Operand, rest: list[Value]) -> Callable[[State, Any], Any]:
    def stage(state: State, piped: Any) -> Any:
        args = [operand(state) for operand in rest]
        if piped is not NOTHING:
            args.append(piped)
        return head.call(state, args)

    return stage


def _range_node(names: list[str], value: Value, body: list[Node], otherwise: list[Node]) -> Node:
    def node(state: State) -> None:
        items = _items(value(state))
        if not items:
            state.block(otherwise, state.dot)
        depth = len(state.variables)
        for key, item in items:
            if names:
                state.variables.append((names[-1], item))
            if len(names) == 2:
                state.variables.append((names[0], key))
            try:
                state.block(body, item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                del state.variables[depth:]

    return node


def _items(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(i, i) for i in range(value)]
    raise TemplateError(f"range can't iterate over {show(value)}")


def _template_node(name: str, value: Value) -> Node:
    def node(state: State) -> None:
        nodes = state.template.defined.get(name)
        if nodes is None:
            raise TemplateError(f'template "{name}" not defined')
        inner = State(state.template, value(state))
        inner.out = state.out
        inner.block(nodes, inner.dot)

    return node


def _text_node(text: str) -> Node:
    return lambda state: state.out.append(text)


def _raiser(kind: type[Exception]) -> Node:
    def node(state: State) -> None:
        raise kind

    return node


def _dot(state: State) -> Any:
    return state.dot


def _variable(name: str) -> Value:
    return lambda state: state.variable(name)


def _constant(value: Any) -> Value:
    return lambda state: value


def _alone(stage: Callable[[State, Any], Any]) -> Value:
    return lambda state: stage(state, NOTHING)


def _number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        return float(text)


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(found: re.Match[str]) -> str:
    code = found.group(1)
    if code[0] in "xuU" and len(code) > 1:
        return chr(int(code[1:], 16))
    if len(code) == 3:
        return chr(int(code, 8))
    return _ESCAPES.get(code, code)
