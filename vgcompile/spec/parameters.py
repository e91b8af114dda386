"""Parameters of a model or of a block: a name, a type and, as a rule, a default.

params:
  width: 64                                                 the type is the default's
  filters: int                                              required: one of int, float, bool, str, list
  norm: {type: str, default: batch, choices: [batch, none]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vgcompile.errors import Complain, Mark, nearest
from vgcompile.rules.fields import UNKNOWN_FIELD
from vgcompile.rules.writing import BAD_DECLARATION
from vgcompile.spec.reading import Node, describe, mapping_of

TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "list": (tuple,)}
_MEANT = {"integer": "int", "number": "float", "double": "float", "boolean": "bool", "string": "str"}
_FIELDS = ("type", "default", "choices", "description")


@dataclass(frozen=True)
class Parameter:
    """``type`` is one of TYPES, or "" for any; without a ``default`` a value is required."""

    name: str
    mark: Mark
    type: str = ""
    default: Node | None = None
    choices: tuple[Any, ...] = ()

    def fault(self, value: Any) -> tuple[str, str] | None:
        """What is wrong with a value, and what would do; None if nothing is."""
        if self.type and (not isinstance(value, TYPES[self.type]) or (isinstance(value, bool) and self.type != "bool")):
            return f"the parameter {self.name!r} should be {self.type}, found {describe(value)}", ""
        if self.choices and value not in self.choices:
            shown = [str(choice) for choice in self.choices]
            return f"the parameter {self.name!r} is none of its choices: {describe(value)}", nearest(
                str(value), shown
            ) or f"one of {', '.join(shown)}"
        return None


def declared(params: Node | None, complain: Complain) -> dict[str, Parameter]:
    """The parameters of a ``params:`` mapping, by name."""
    if params is None or not isinstance(params.value, dict):
        return {}
    return {str(name): _parameter(str(name), node, params.keys[str(name)], complain) for name, node in params.children.items()}


def _parameter(name: str, node: Node, mark: Mark, complain: Complain) -> Parameter:
    if isinstance(node.value, str) and node.value in TYPES:
        return Parameter(name, mark, node.value)
    if isinstance(node.value, str) and node.value in _MEANT:
        hint = f"write {_MEANT[node.value]}, or {{default: {node.value}}} for the word"
        complain(node.mark, f"unknown type {describe(node.value)}", hint, BAD_DECLARATION)
        return Parameter(name, mark)
    if not isinstance(node.value, dict):
        return Parameter(name, mark, type_of(node.value), node)
    for field, place in node.keys.items():
        if field not in _FIELDS:
            hint = nearest(field, _FIELDS) or f"fields here: {', '.join(_FIELDS)}"
            complain(place, f"unknown field {field!r}", hint, UNKNOWN_FIELD)
    default, stated, choices = node.get("default"), node.get("type"), node.get("choices")
    kind = type_of(default.value) if default is not None else ""
    if stated is not None:
        kind = stated.value if isinstance(stated.value, str) and stated.value in TYPES else ""
        if not kind:
            hint = nearest(str(stated.value), TYPES) or f"one of {', '.join(TYPES)}"
            complain(stated.mark, f"unknown type {describe(stated.value)}", hint, BAD_DECLARATION)
    return Parameter(name, mark, kind, default, choices.value if choices is not None and isinstance(choices.value, tuple) else ())


def retyped(declared: Node, value: Node) -> Node:
    """A parameter's declaration with another default; its type stays."""
    if isinstance(declared.value, dict):
        children = {str(name): child for name, child in declared.children.items()}
        return mapping_of({**children, "default": value}, declared.mark, declared.keys)
    kind = declared.value if isinstance(declared.value, str) and declared.value in TYPES else type_of(declared.value)
    return mapping_of({"type": Node(kind, declared.mark), "default": value}, declared.mark) if kind else value


def type_of(value: Any) -> str:
    """Of a default; "" where an expression tells it, or nothing does. A whole number may be a fraction later."""
    if isinstance(value, str) and "${" in value:
        return ""
    for name, types in TYPES.items():
        if type(value) is types[0]:
            return name
    return ""
