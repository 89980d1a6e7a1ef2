"""The parser, and :class:`Template`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lading.cli.gotemplate._nodes import (
    NOTHING,
    Break,
    Continue,
    Node,
    Operand,
    State,
    Value,
    alone,
    constant,
    dot,
    function_stage,
    operand_stage,
    raiser,
    range_node,
    template_node,
    text_node,
    variable,
)
from lading.cli.gotemplate._tokens import Token, number_of, pieces, tokens_of, unquoted
from lading.cli.gotemplate.functions import FUNCTIONS, TemplateError, show, truth

CONSTANTS = {"true": True, "false": False, "nil": None}


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
        state = State(self.defined, data)
        try:
            state.block(self._nodes, data)
        except TemplateError as error:
            raise TemplateError(f"template: {self.name}:1: executing: {error}") from error
        return "".join(state.out)


class _Parser:
    """Recursive descent over the pieces of one template."""

    def __init__(self, source: str, template: Template) -> None:
        self._pieces = pieces(source)
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
                nodes.append(text_node(body))
                continue
            self._tokens = tokens_of(body, self._line)
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
            return raiser(Break if word == "break" else Continue)
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
            return range_node(names, value, body, otherwise)

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
        return None if value is None else template_node(name, value)

    def _call_template(self) -> Node:
        self._tokens.pop(0)
        self._skip_space()
        name = self._text_token()
        self._skip_space()
        return template_node(name, self._pipeline()[2] if self._tokens else lambda state: None)

    def _text_token(self) -> str:
        if not self._tokens or self._tokens[0][0] != "text":
            raise self._error("missing name of the template")
        return unquoted(self._tokens.pop(0)[1])

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
        head: Operand | None = None
        while True:
            self._skip_space()
            if not self._tokens or self._tokens[0][1] in ("|", ")"):
                break
            operand = self._operand()
            head = operand if head is None and not function else head
            operands.append(operand)
        if function:
            return function_stage(self._template.functions[function], function, operands)
        if head is None:
            raise self._error("missing value for command")
        return operand_stage(head, operands[1:])

    def _operand(self) -> Operand:
        kind, text = self._tokens.pop(0)
        base: Value
        path: list[str] = []
        if kind == "field":
            base, path = dot, [text[1:]]
        elif kind == "dot":
            base = dot
        elif kind == "variable":
            base = variable(text)
        elif kind == "text":
            base = constant(unquoted(text))
        elif kind == "char":
            base = constant(ord(unquoted(text)))
        elif kind == "number":
            base = constant(number_of(text))
        elif text == "(":
            base = self._pipeline()[2]
            if not self._tokens:
                raise self._error("unclosed left paren")
            self._tokens.pop(0)
        elif kind == "word" and text in CONSTANTS:
            base = constant(CONSTANTS[text])
        elif kind == "word" and text in self._template.functions:
            stage = function_stage(self._template.functions[text], text, [])
            base = alone(stage)
        else:
            raise self._error(f"unexpected <{text}> in operand")
        while self._tokens and self._tokens[0][0] == "field":
            path.append(self._tokens.pop(0)[1][1:])
        return Operand(base, path)

    def _skip_space(self) -> None:
        while self._tokens and self._tokens[0][0] == "space":
            self._tokens.pop(0)

    def _error(self, message: str) -> TemplateError:
        return TemplateError(message, line=self._line)
