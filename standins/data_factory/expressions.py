"""A subset of Data Factory's expression language: what the pipelines of this project use.

`@pipeline().parameters.day`, `@concat('a', dataset().file)`, `@if(equals(a, b), x, y)` and text that contains
`@{...}`. Anything else is refused when a pipeline is created.
https://learn.microsoft.com/azure/data-factory/control-flow-expression-language-functions
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from standins.core.errors import NotImplementedHere


class ExpressionError(ValueError):
    """An expression is invalid, or refers to something that does not exist."""


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Member:
    of: Node
    name: str


@dataclass(frozen=True)
class Literal:
    value: Any


Node = Call | Member | Literal


@dataclass(frozen=True)
class Scope:
    """The values of `pipeline()` and `dataset()`; None where they cannot be used."""

    pipeline: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = field(default=None)


_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>\w+)|(?P<mark>[().,]))")
_CONSTANTS = {"true": True, "false": False, "null": None}
_FUNCTIONS = {"concat", "if", "equals"}
_ROOTS = {"pipeline", "dataset"}


def evaluate(value: Any, scope: Scope) -> Any:
    """`value` with every expression in it, however deep, replaced by its result. Raises ExpressionError."""
    if isinstance(value, str):
        return _evaluate_text(value, scope)
    if isinstance(value, list):
        return [evaluate(item, scope) for item in value]
    if isinstance(value, dict):
        if _is_expression(value):
            return _evaluate_text(value["value"], scope)
        return {key: evaluate(item, scope) for key, item in value.items()}
    return value


def names(value: Any) -> Iterator[tuple[str, str]]:
    """The names that the expressions in `value` refer to: ("pipeline", "parameters.day"), ("dataset", "file").

    Raises ExpressionError for an invalid expression and NotImplementedHere for an unknown function.
    """
    if isinstance(value, str):
        for part in _parts(value):
            if not isinstance(part, str):
                yield from _names(part)
    elif isinstance(value, list):
        for item in value:
            yield from names(item)
    elif isinstance(value, dict):
        for item in [value["value"]] if _is_expression(value) else value.values():
            yield from names(item)


def _is_expression(value: dict[str, Any]) -> bool:
    return value.get("type") == "Expression" and isinstance(value.get("value"), str) and len(value) == 2


def _evaluate_text(text: str, scope: Scope) -> Any:
    parts = _parts(text)
    if len(parts) == 1:
        return parts[0] if isinstance(parts[0], str) else _value(parts[0], scope)
    return "".join(part if isinstance(part, str) else _as_text(_value(part, scope)) for part in parts)


def _parts(text: str) -> list[str | Node]:
    """A string split into plain text and expressions. A whole expression is one part; so is plain text."""
    if text.startswith("@@"):
        return [text[1:]]
    if text.startswith("@") and not text.startswith("@{"):
        return [_parse(text[1:])]
    parts: list[str | Node] = []
    rest = text
    while (start := rest.find("@{")) >= 0:
        end = _closing(rest, start + 2, text)
        # The empty text in front makes `@{x}` alone two parts: interpolation always results in text.
        parts += [rest[:start], _parse(rest[start + 2 : end])]
        rest = rest[end + 1 :]
    return [*parts, rest] if rest or not parts else parts


def _closing(text: str, start: int, whole: str) -> int:
    quoted = False
    for position in range(start, len(text)):
        if text[position] == "'":
            quoted = not quoted
        elif text[position] == "}" and not quoted:
            return position
    raise ExpressionError(f"the expression {whole!r} has '@{{' without '}}'")


def _parse(text: str) -> Node:
    tokens: list[tuple[str, str]] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ExpressionError(f"the expression '@{text}' cannot be read at {stripped[position:]!r}")
        tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
        position = match.end()
    parser = _Parser(text, tokens)
    node = parser.expression()
    if parser.tokens:
        raise ExpressionError(f"the expression '@{text}' goes on with {parser.tokens[0][1]!r} where it should end")
    return node


class _Parser:
    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self.text = text
        self.tokens = tokens

    def _take(self, mark: str | None = None) -> tuple[str, str]:
        if not self.tokens or (mark is not None and self.tokens[0] != ("mark", mark)):
            token = self.tokens[0][1] if self.tokens else "its end"
            raise ExpressionError(f"the expression '@{self.text}' has {token!r} where {mark or 'a value'!r} is needed")
        return self.tokens.pop(0)

    def expression(self) -> Node:
        kind, token = self._take()
        node: Node
        if kind == "text":
            node = Literal(token[1:-1].replace("''", "'"))
        elif kind == "number":
            node = Literal(float(token) if "." in token else int(token))
        elif kind == "name" and token.lower() in _CONSTANTS and self.tokens[:1] != [("mark", "(")]:
            node = Literal(_CONSTANTS[token.lower()])
        elif kind == "name":
            node = self._call(token.lower())
        else:
            raise ExpressionError(f"the expression '@{self.text}' has {token!r} where a value is needed")
        while self.tokens[:1] == [("mark", ".")]:
            self._take(".")
            kind, name = self._take()
            if kind not in ("name", "number"):
                raise ExpressionError(f"the expression '@{self.text}' has {name!r} where a name is needed")
            node = Member(node, name)
        return node

    def _call(self, function: str) -> Call:
        self._take("(")
        arguments: list[Node] = []
        while self.tokens[:1] != [("mark", ")")]:
            if arguments:
                self._take(",")
            arguments.append(self.expression())
        self._take(")")
        if function not in _FUNCTIONS | _ROOTS:
            raise NotImplementedHere(f"The expression function '{function}' in '@{self.text}'")
        return Call(function, tuple(arguments))


def _path(node: Node) -> tuple[str, list[str]] | None:
    """`pipeline().parameters.day` as ("pipeline", ["parameters", "day"]); None for any other node."""
    keys: list[str] = []
    while isinstance(node, Member):
        keys.insert(0, node.name)
        node = node.of
    return (node.function, keys) if isinstance(node, Call) and node.function in _ROOTS else None


def _names(node: Node) -> Iterator[tuple[str, str]]:
    if path := _path(node):
        yield path[0], ".".join(path[1])
    elif isinstance(node, Member):
        raise ExpressionError(f"'.{node.name}' can follow only {' or '.join(f'{root}()' for root in sorted(_ROOTS))}")
    elif isinstance(node, Call):
        for argument in node.arguments:
            yield from _names(argument)


def _value(node: Node, scope: Scope) -> Any:
    if path := _path(node):
        root, keys = path
        value: Any = scope.pipeline if root == "pipeline" else scope.dataset
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise ExpressionError(f"'{root}().{'.'.join(keys)}' does not exist: no '{key}'")
            value = value[key]
        return value
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Member):
        raise ExpressionError(f"'.{node.name}' can follow only pipeline() and dataset()")
    values = [_value(argument, scope) for argument in node.arguments]
    if node.function == "concat":
        return "".join(_as_text(value) for value in values)
    expected = {"equals": 2, "if": 3}[node.function]
    if len(values) != expected:
        raise ExpressionError(f"'{node.function}' takes {expected} arguments; found {len(values)}")
    if node.function == "equals":
        return values[0] == values[1]
    return values[1] if values[0] else values[2]


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    return json.dumps(value)
