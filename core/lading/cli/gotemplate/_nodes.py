"""What a parsed template is made of: functions that render into a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from lading.cli.gotemplate.functions import MISSING, TemplateError, show, truth


@runtime_checkable
class Record(Protocol):
    """An object whose fields and methods a template may use."""

    @property
    def kind(self) -> str:
        """Its type, for messages."""
        ...

    def field(self, name: str) -> Any:
        """The field's value, or a callable for a method with arguments; raises KeyError."""
        ...


class Break(Exception):
    """``{{break}}``."""


class Continue(Exception):
    """``{{continue}}``."""


class State:
    """What one rendering knows: the dot, the variables, the text so far."""

    def __init__(self, defined: Mapping[str, list[Node]], root: Any) -> None:
        self.defined = defined
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


class Operand:
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
        if all(isinstance(member, str) for member in value.values()):
            return MISSING  # labels and options: Go's map of strings has no such error
        raise TemplateError(f'map has no entry for key "{name}"')
    if isinstance(value, Record):
        try:
            return value.field(name)
        except KeyError:
            raise TemplateError(f"can't evaluate field {name} in type {value.kind}") from None
    if value is None or value is MISSING:
        raise TemplateError(f"nil data; no entry for key {name!r}")
    raise TemplateError(f"can't evaluate field {name} in type {type(value).__name__}")


def function_stage(
    function: Callable[..., Any], name: str, operands: list[Value]
) -> Callable[[State, Any], Any]:
    """A stage that calls a function; ``and`` and ``or`` stop early."""

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


def operand_stage(head: Operand, rest: list[Value]) -> Callable[[State, Any], Any]:
    """A stage that is a value, or a method with arguments."""

    def stage(state: State, piped: Any) -> Any:
        args = [operand(state) for operand in rest]
        if piped is not NOTHING:
            args.append(piped)
        return head.call(state, args)

    return stage


def range_node(names: list[str], value: Value, body: list[Node], otherwise: list[Node]) -> Node:
    """``{{range}}``."""

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
            except Continue:
                continue
            except Break:
                break
            finally:
                del state.variables[depth:]

    return node


def _items(value: Any) -> list[tuple[Any, Any]]:
    if value is None or value is MISSING:
        return []
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(i, i) for i in range(value)]
    raise TemplateError(f"range can't iterate over {show(value)}")


def template_node(name: str, value: Value) -> Node:
    """``{{template}}``."""

    def node(state: State) -> None:
        nodes = state.defined.get(name)
        if nodes is None:
            raise TemplateError(f'template "{name}" not defined')
        inner = State(state.defined, value(state))
        inner.out = state.out
        inner.block(nodes, inner.dot)

    return node


def text_node(text: str) -> Node:
    """Text between actions."""
    return lambda state: state.out.append(text)


def raiser(kind: type[Exception]) -> Node:
    """``{{break}}`` and ``{{continue}}``."""

    def node(state: State) -> None:
        raise kind

    return node


def dot(state: State) -> Any:
    """The dot."""
    return state.dot


def variable(name: str) -> Value:
    """A variable."""
    return lambda state: state.variable(name)


def constant(value: Any) -> Value:
    """A literal."""
    return lambda state: value


def alone(stage: Callable[[State, Any], Any]) -> Value:
    """A function as an operand."""
    return lambda state: stage(state, NOTHING)
