"""Formulas that a person writes: ``x * tanh(softplus(x))``, read by Python's parser and by a grammar of our own, never run.

    expression   number, name, pi, e;  + - * / **;  a call of a function below;  where(condition, expression, expression)
    condition    expression < <= > >= == != expression, chained as in Python;  and, or, not

What is not in the grammar is refused with its column. Numbers among themselves are worked out at once, so that what is emitted
are operators on values and nothing else.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vgcompile.errors import nearest
from vgcompile.layers.part import LARGEST_FLOAT

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter

LONGEST, DEEPEST = 1000, 40  # characters; calls within calls

# Functions of one number, each an operator.
UNARY = {
    **{name: name.capitalize() for name in ("abs", "exp", "log", "sqrt", "erf", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: name.capitalize() for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "sign", "floor", "ceil", "round")},
    **{name: name.capitalize() for name in ("sigmoid", "relu", "elu", "selu", "gelu", "mish", "softplus", "softsign")},
    "silu": "Swish",
    "stop_gradient": "StopGradient",
}
MANY = {"min": "Min", "max": "Max"}
FUNCTIONS = (*UNARY, *MANY, "clip", "where")
CONSTANTS = {"pi": math.pi, "e": math.e}

_ARITHMETIC: Mapping[type[ast.operator], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("Add", operator.add),
    ast.Sub: ("Sub", operator.sub),
    ast.Mult: ("Mul", operator.mul),
    ast.Div: ("Div", operator.truediv),
    ast.Pow: ("Pow", math.pow),
}
_COMPARISON: Mapping[type[ast.cmpop], tuple[str, bool]] = {  # operator, and whether its answer is turned around
    ast.Lt: ("Less", False),
    ast.LtE: ("LessOrEqual", False),
    ast.Gt: ("Greater", False),
    ast.GtE: ("GreaterOrEqual", False),
    ast.Eq: ("Equal", False),
    ast.NotEq: ("Equal", True),
}


class FormulaError(ValueError):
    """A formula that is not one: the column in it, counted from 1, what was found, and what would do."""

    def __init__(self, column: int, message: str, hint: str = "") -> None:
        super().__init__(f"column {column} of the formula: {message}" + (f"; {hint}" if hint else ""))


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Variable:
    name: str


@dataclass(frozen=True)
class Call:
    """An operator of its operands; ``truth``: its value is a truth value."""

    operator: str
    operands: tuple[Term, ...]
    truth: bool = False


Term = Number | Variable | Call


def parse(text: str, names: Sequence[str]) -> Term:
    """The term that ``text`` means, of variables ``names``. Raises FormulaError."""
    if len(text) > LONGEST:
        raise FormulaError(LONGEST + 1, f"it has {len(text)} characters", f"keep to {LONGEST}, or use several layers")
    shift = len(text) - len(text.lstrip())
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        column = error.offset or len(text.strip()) + 1  # 0: at the end
        raise FormulaError(column + shift, error.msg) from None
    except (ValueError, RecursionError, MemoryError):
        raise FormulaError(1, "it cannot be read", "write it with fewer nested parts") from None
    return _Reader(tuple(names), shift).number(tree.body, 0)


def variables(term: Term) -> Iterator[str]:
    """The names that a term reads."""
    if isinstance(term, Variable):
        yield term.name
    elif isinstance(term, Call):
        for operand in term.operands:
            yield from variables(operand)


def emit(op: Emitter, term: Term, values: Mapping[str, ir.Value]) -> Any:
    """The operators of a term; a number by itself stays one."""
    if isinstance(term, Number):
        return term.value
    if isinstance(term, Variable):
        return values[term.name]
    return op.emit(term.operator, *(emit(op, operand, values) for operand in term.operands))


@dataclass(frozen=True)
class _Reader:
    names: tuple[str, ...]
    shift: int

    def refuse(self, node: ast.expr, message: str, hint: str = "") -> FormulaError:
        return FormulaError(node.col_offset + 1 + self.shift, message, hint)

    def number(self, node: ast.expr, depth: int) -> Term:
        """An expression whose value is a number."""
        term = self.term(node, depth)
        if isinstance(term, Call) and term.truth:
            raise self.refuse(node, "a comparison where a number is needed", "write where(condition, a, b)")
        return term

    def condition(self, node: ast.expr, depth: int) -> Term:
        term = self.term(node, depth)
        if not (isinstance(term, Call) and term.truth):
            raise self.refuse(node, "a number where a condition is needed", "compare it, such as x > 0")
        return term

    def term(self, node: ast.expr, depth: int) -> Term:
        if depth > DEEPEST:
            raise self.refuse(node, f"parts are nested more than {DEEPEST} deep", "use several layers")
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.literal(node, value)
            case ast.Name(id=name):
                return self.variable(node, name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                inner = self.number(operand, depth + 1)
                return inner if isinstance(node.op, ast.UAdd) else self.negative(inner)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Call("Not", (self.condition(operand, depth + 1),), truth=True)
            case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _ARITHMETIC:
                return self.arithmetic(node, type(kind), self.number(left, depth + 1), self.number(right, depth + 1))
            case ast.BoolOp(op=kind, values=parts):
                name = "And" if isinstance(kind, ast.And) else "Or"
                return _chained(name, [self.condition(part, depth + 1) for part in parts])
            case ast.Compare():
                return self.comparison(node, depth)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self.call(node, name, arguments, depth)
        raise self.refuse(
            node, f"{ast.unparse(node)[:30]!r} is not part of a formula", "numbers, names, + - * / ** and functions"
        )

    def literal(self, node: ast.expr, value: float) -> Number:
        if value > LARGEST_FLOAT:
            raise self.refuse(node, "the number is beyond float32", "at most 3.4e38")
        return Number(float(value))

    def variable(self, node: ast.expr, name: str) -> Term:
        if name in self.names:
            return Variable(name)
        if name in CONSTANTS:
            return Number(CONSTANTS[name])
        if name in FUNCTIONS:
            raise self.refuse(node, f"the function {name!r} without arguments", f"write {name}(...)")
        known = (*self.names, *CONSTANTS)
        raise self.refuse(node, f"unknown name {name!r}", nearest(name, known) or f"names here: {', '.join(known)}")

    @staticmethod
    def negative(term: Term) -> Term:
        return Number(-term.value) if isinstance(term, Number) else Call("Neg", (term,))

    def arithmetic(self, node: ast.expr, kind: type[ast.operator], left: Term, right: Term) -> Term:
        name, compute = _ARITHMETIC[kind]
        if not (isinstance(left, Number) and isinstance(right, Number)):
            return Call(name, (left, right))
        try:
            value = compute(left.value, right.value)
        except (ArithmeticError, ValueError):
            value = math.nan
        if not abs(value) <= LARGEST_FLOAT:
            raise self.refuse(node, f"{ast.unparse(node)[:30]} is no finite number of float32")
        return Number(value)

    def comparison(self, node: ast.Compare, depth: int) -> Term:
        sides = [self.number(side, depth + 1) for side in (node.left, *node.comparators)]
        found = []
        for kind, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if type(kind) not in _COMPARISON:
                raise self.refuse(node, "'in' and 'is' are not part of a formula", "compare with < <= > >= == !=")
            name, turned = _COMPARISON[type(kind)]
            if isinstance(left, Number) and isinstance(right, Number):
                raise self.refuse(node, "both sides of the comparison are numbers", "compare with a name")
            compared = Call(name, (left, right), truth=True)
            found.append(Call("Not", (compared,), truth=True) if turned else compared)
        return _chained("And", found)

    def call(self, node: ast.Call, name: str, arguments: Sequence[ast.expr], depth: int) -> Term:
        if name not in FUNCTIONS:
            hint = nearest(name, FUNCTIONS) or f"functions: {', '.join(FUNCTIONS)}"
            raise self.refuse(node, f"unknown function {name!r}", hint)
        least, most = (1, 1) if name in UNARY else (2, None) if name in MANY else (3, 3)
        if len(arguments) < least or (most is not None and len(arguments) > most):
            wanted = f"{least} or more arguments" if most is None else "one argument" if most == 1 else f"{most} arguments"
            raise self.refuse(node, f"{name} takes {wanted}, found {len(arguments)}")
        if name == "where":
            condition, *rest = arguments
            branches = tuple(self.number(branch, depth + 1) for branch in rest)
            return Call("Where", (self.condition(condition, depth + 1), *branches))
        given = tuple(self.number(argument, depth + 1) for argument in arguments)
        if all(isinstance(term, Number) for term in given):
            raise self.refuse(node, f"{name} of numbers alone", "write the number that it is")
        if name == "clip":
            x, lo, hi = given
            return Call("Min", (Call("Max", (x, lo)), hi))
        return Call(UNARY.get(name) or MANY[name], given)


def _chained(name: str, conditions: Sequence[Term]) -> Term:
    first, *rest = conditions
    for condition in rest:
        first = Call(name, (first, condition), truth=True)
    return first
