"""Arithmetic inside a model file: ``${64 * 2 ** i}``.

    units: ${width // 2}            the value itself, with its type
    name: stage_${i + 1}            a part of a string
    name: $${literally}             no expression

Python's own grammar is parsed and walked; only numbers, strings, lists, names, operators and the functions below have a meaning.
Nothing is evaluated by Python.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from vgcompile.errors import nearest

LONGEST = 1000  # characters of an expression
MOST_BITS = 4096  # of a whole number

_OPENING = re.compile(r"\$?\$\{")
_EXPRESSION = re.compile(r"\$\{([^{}]*)\}")

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "ceil": math.ceil, "exp": math.exp, "float": float, "floor": math.floor, "int": int, "len": len, "log": math.log,
    "log2": math.log2, "max": max, "min": min, "round": round, "sqrt": math.sqrt,
}  # fmt: skip
CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None, "pi": math.pi}

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


UNKNOWN = object()  # the value of a name whose own value was complained about


class ExpressionError(ValueError):
    """What an expression says that has no meaning, and what would do; nothing new where it reads what is UNKNOWN."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


def has_expression(text: str) -> bool:
    """Whether a string holds ``${``, escaped or not."""
    return "${" in text


def filled(text: str, names: Mapping[str, Any]) -> Any:
    """A string with its expressions evaluated; what is one expression alone is its value, of whatever type.

    Raises ExpressionError.
    """
    whole = _EXPRESSION.fullmatch(text)
    if whole is not None:
        return evaluate(whole[1], names)
    parts: list[str] = []
    place = 0
    for opening in _OPENING.finditer(text):
        if opening.start() < place:
            continue
        parts.append(text[place : opening.start()])
        if opening[0] == "$${":
            parts.append("${")
            place = opening.end()
            continue
        inner = _EXPRESSION.match(text, opening.start())
        if inner is None:
            raise ExpressionError(f"'${{' without its '}}' in {text!r}", "write $${ where no expression is meant")
        parts.append(_shown(evaluate(inner[1], names)))
        place = inner.end()
    return "".join([*parts, text[place:]])


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression. Raises ExpressionError, also for what is too large."""
    try:
        return _value(_parsed(text), names)
    except ZeroDivisionError:
        raise ExpressionError(f"{text.strip()!r} divides by zero") from None
    except (OverflowError, RecursionError):
        raise ExpressionError(f"{text.strip()!r} is too large") from None
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"{text.strip()!r} has no value: {error}") from None


@lru_cache(maxsize=4096)  # a block's text is asked for each of its copies
def names_in(text: str) -> frozenset[str]:
    """The names that the expressions of a string read; none of those that are no expressions."""
    names: set[str] = set()
    for found in _EXPRESSION.finditer(text):
        try:
            tree = _parsed(found[1])
        except ExpressionError:
            continue
        names.update(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return frozenset(names)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ExpressionError(f"an expression of {len(text)} characters is too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, about escapes and `is`
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lone = re.search(r"(?<![=!<>])=(?!=)", text)
        hint = "write == to compare" if lone else "such as ${64 * 2 ** i}"
        raise ExpressionError(f"{text.strip()!r} is no expression", hint) from None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            return _named(name, names)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.BinOp(left=left, op=op, right=right):
            return _combined(op, _value(left, names), _value(right, names))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, names)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _number(_value(operand, names))
            return -number if isinstance(sign, ast.USub) else number
        case ast.BoolOp(op=op, values=values):
            return any(_value(v, names) for v in values) if isinstance(op, ast.Or) else all(_value(v, names) for v in values)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compared(_value(left, names), ops, [_value(other, names) for other in others])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, names) else orelse, names)
        case ast.Subscript(value=value, slice=index):
            return _entry(_value(value, names), _value(index, names))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in FUNCTIONS:
                raise ExpressionError(f"no function {name!r}", nearest(name, FUNCTIONS) or f"there are {', '.join(FUNCTIONS)}")
            return _bounded(FUNCTIONS[name](*(_value(argument, names) for argument in arguments)))
    raise ExpressionError(
        f"{ast.unparse(node)!r} has no meaning here", "numbers, names, + - * / // % **, comparisons, a if b else c"
    )


def _named(name: str, names: Mapping[str, Any]) -> Any:
    if names.get(name) is UNKNOWN:
        raise ExpressionError("")
    if name in names:
        return names[name]
    if name in CONSTANTS:
        return CONSTANTS[name]
    known = ", ".join(list(names)[:8])
    raise ExpressionError(
        f"unknown name {name!r}", nearest(name, names) or (f"known here: {known}" if known else "no params: here")
    )


def _entry(items: Any, index: Any) -> Any:
    try:
        return items[index]
    except IndexError:
        kind = "string" if isinstance(items, str) else "list"
        raise ExpressionError(f"a {kind} of {len(items)} has no entry {index}", "the first is number 0") from None


def _combined(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.BitXor):
        raise ExpressionError("'^' has no meaning here", "write ** for powers")
    if isinstance(op, ast.Add) and isinstance(left, tuple) and isinstance(right, tuple):
        return left + right
    a, b = _number(left), _number(right)
    if isinstance(op, ast.Div):
        even = isinstance(a, int) and isinstance(b, int) and b != 0 and a % b == 0
        return a // b if even else a / b
    if isinstance(op, ast.Pow):
        return _power(a, b)
    if type(op) not in _ARITHMETIC:
        raise ExpressionError("an operator without a meaning here", "there are + - * / // % **")
    return _bounded(_ARITHMETIC[type(op)](a, b))


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 0 and a.bit_length() * b > MOST_BITS:
        raise OverflowError
    return _bounded(a**b)


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise OverflowError
    if isinstance(value, complex):
        raise ExpressionError("the result is no real number")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"a number is needed, found {'a list' if isinstance(value, tuple) else _shown(value)}")
    return value


def _compared(left: Any, ops: list[ast.cmpop], others: list[Any]) -> bool:
    for op, right in zip(ops, others, strict=True):
        if type(op) not in _COMPARISONS:
            raise ExpressionError("'is' has no meaning here", "write ==")
        if not _COMPARISONS[type(op)](left, right):
            return False
        left = right
    return True


def _shown(value: Any) -> str:
    """As a part of a string."""
    if isinstance(value, tuple):
        raise ExpressionError("a list cannot be a part of a string", "take one of its items: ${widths[i]}")
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
