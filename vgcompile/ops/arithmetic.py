"""Arithmetic of two and more tensors, selection by a condition."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, corners, image, interval, product
from vgcompile.ops.families import broadcasting
from vgcompile.ops.masking import Masked
from vgcompile.ops.moments import Product, Quotient
from vgcompile.ops.op import Array, Case, Op, Rule, Variadic, sample
from vgcompile.ops.shape import constant

PAIRS = (sample(("N", 3), ("N", 3)), sample(("N", 3), (3,)), sample((2, 1, 3), ("N", 1)), sample(("N", 3), ("M", 1)))
TUPLES = (sample(("N", 3), (3,), ("N", 1)), sample(("N", 3), ("N", 3)), sample((2, 3)))

Add = broadcasting(
    "Add",
    "a + b.",
    numpy=np.add,
    derivatives=(lambda op, a, b, y: 1.0, lambda op, a, b, y: 1.0),
    linear=True,
    samples=PAIRS,
)

Sub = broadcasting(
    "Sub",
    "a - b.",
    numpy=np.subtract,
    derivatives=(lambda op, a, b, y: 1.0, lambda op, a, b, y: -1.0),
    linear=True,
    samples=PAIRS,
)


def _sum_range(case: Case) -> Interval:
    """One operand after the other: each partial sum has its own rounding, and there are too many corners at once."""
    return reduce(lambda a, b: corners(np.add, [a, b]), [r or WHOLE for r in case.ranges])


Sum = broadcasting(
    "Sum",
    "The sum of all operands.",
    numpy=lambda *x: reduce(np.add, x),
    derivatives=Variadic(lambda i, op, *x_y: 1.0),
    range=_sum_range,
    slope=lambda case, position: interval(1.0, 1.0),
    linear=True,
    samples=TUPLES,
)

Mean = broadcasting(
    "Mean",
    "The mean of all operands.",
    numpy=lambda *x: reduce(np.add, x) / len(x),
    derivatives=Variadic(lambda i, op, *x_y: 1.0 / (len(x_y) - 1)),
    range=lambda case: corners(lambda total: total / len(case.ranges), [_sum_range(case)]),
    slope=lambda case, position: corners(lambda: np.asarray(1.0 / len(case.ranges)), []),
    linear=True,
    samples=TUPLES,
)

Mul = broadcasting(
    "Mul",
    "a * b.",
    numpy=np.multiply,
    derivatives=(lambda op, a, b, y: b, lambda op, a, b, y: a),
    range=lambda case: product(*(r or WHOLE for r in case.ranges)),
    moments=Product(),
    samples=PAIRS,
)


def _reciprocal(b: Interval) -> Interval:
    """1 / b; the whole line where b may be 0."""
    through_zero = (b.lo <= 0.0) & (b.hi >= 0.0)
    away = Interval(np.where(through_zero, 1.0, b.lo), np.where(through_zero, 1.0, b.hi))
    inverse = corners(np.reciprocal, [away])
    return Interval(np.where(through_zero, -np.inf, inverse.lo), np.where(through_zero, np.inf, inverse.hi))


def _div_range(case: Case) -> Interval:
    a, b = (r or WHOLE for r in case.ranges)
    return product(a, _reciprocal(b))


def _div_slope(case: Case, position: int) -> Interval:
    """1 / b, and -a / b^2: a product with a square, whose factors vary on their own."""
    a, b = (r or WHOLE for r in case.ranges)
    inverse = _reciprocal(b)
    if position == 0:
        return inverse
    return corners(np.negative, [product(a, image(np.square, inverse, [0.0]))])


Div = broadcasting(
    "Div",
    "a / b.",
    numpy=np.divide,
    derivatives=(lambda op, a, b, y: op.Reciprocal(b), lambda op, a, b, y: op.Neg(y / b)),
    vjp=lambda op, g, y, a, b: (g / b, op.Neg(g * (y / b))),
    range=_div_range,
    slope=_div_slope,
    moments=Quotient(),
    samples=(
        sample(("N", 3), ("N", 3), domain=(0.5, 2.0)),
        sample(("N", 3), (3,), domain=(-2.0, -0.5)),
        sample((2, 1, 3), ("N", 1), domain=(0.5, 2.0)),
    ),
)


def _exponent(op: Any, a: Any, b: Any) -> Any:
    """The exponent as the base's type: ONNX lets it be of another one."""
    return b if b.dtype == a.dtype else op.CastLike(b, a)


def _power_base(op: Any, a: Any, b: Any, y: Any) -> Any:
    """b a^(b - 1), where exponent 0 must not come to 0 * 0^-1."""
    e = _exponent(op, a, b)
    return e * op.Pow(a, op.Where(op.Equal(e, 0.0), 0.0, e - 1.0))


def _power_exponent(op: Any, a: Any, b: Any, y: Any) -> Any:
    zero = op.Equal(a, 0.0)
    return op.Where(zero, 0.0, y * op.Log(op.Where(zero, 1.0, a)))


def _power(a: Interval, b: Interval) -> Interval:
    """a^b where it is defined. A known exponent: monotone on each side of 0. A range of exponents: monotone in each for a > 0."""
    if (b.lo < b.hi).any():
        if (a.lo <= 0.0).any():
            return WHOLE
        return corners(np.power, [a, b])
    shape = np.broadcast_shapes(a.lo.shape, b.lo.shape)
    exponent = np.broadcast_to(b.lo, shape)
    whole = exponent == np.rint(exponent)
    lo = np.where(whole, a.lo, np.maximum(a.lo, 0.0))
    outside = lo > a.hi  # a negative base and a fraction as its exponent: NaN
    powers = image(lambda x: np.power(x, exponent), Interval(np.where(outside, 0.0, lo), np.where(outside, 0.0, a.hi)), [0.0])
    return Interval(np.where(outside, -np.inf, powers.lo), np.where(outside, np.inf, powers.hi))


def _power_slope(case: Case, position: int) -> Interval:
    a, b = (r or WHOLE for r in case.ranges)
    if position == 1:
        logarithm = image(np.log, a, domain=(0.0, np.inf))
        return product(_power(a, b), logarithm).hull(interval(0.0, 0.0))
    return product(b, _power(a, Interval(b.lo - 1.0, b.hi - 1.0)))


def _power_vjp(op: Any, g: Any, y: Any, a: Any, b: Any) -> tuple[Any, ...]:
    known = constant(b)
    slope = _power_base(op, a, b, y) if known is None else _known_power_base(op, a, known.astype(a.dtype.numpy()))
    return (g * slope, g * _power_exponent(op, a, b, y) if b.dtype == a.dtype else None)


def _known_power_base(op: Any, a: Any, e: Array) -> Any:
    lower = np.where(e == 0.0, np.zeros_like(e), e - np.ones_like(e))
    return op.Mul(a if (lower == 1.0).all() else op.Pow(a, lower), e)


Pow = broadcasting(
    "Pow",
    "a to the power b; at base 0 the exponent's slope is taken as 0, at exponent 0 the base's slope is.",
    numpy=np.power,
    derivatives=(_power_base, _power_exponent),
    vjp=_power_vjp,
    range=lambda case: _power(*(r or WHOLE for r in case.ranges)),
    slope=_power_slope,
    samples=(
        sample(("N", 3), ("N", 3), domain=(0.5, 2.0)),
        sample(("N", 3), np.array(2.0)),
        sample((2, 3), np.array([3, 0, 1])),
        sample(("N", 3), np.array(-1.5), domain=(0.5, 2.0)),
    ),
)


def _share(position: int, op: Any, *operands: Any) -> Any:
    """1 for the operand that the value comes from; among k that tie, 1/k."""
    *x, y = operands
    return op.Where(op.Equal(x[position], y), op.Reciprocal(_winners(op, x, y)), 0.0)


def _winners(op: Any, x: Any, y: Any) -> Any:
    return reduce(lambda a, b: a + b, (op.Where(op.Equal(value, y), 1.0, 0.0) for value in x))


def _extreme_vjp(op: Any, g: Any, y: Any, *x: Any) -> tuple[Any, ...]:
    if len(x) == 1:
        return (g,)
    part = op.Where(op.Equal(*x), g * 0.5, g) if len(x) == 2 else g / _winners(op, x, y)
    return tuple(op.Where(op.Equal(value, y), part, 0.0) for value in x)


def _extreme_range(case: Case, f: Rule) -> Interval:
    return reduce(lambda a, b: corners(f, [a, b]), [r or WHOLE for r in case.ranges])


def _extreme_slope(case: Case, position: int, f: Rule) -> Interval:
    """1 where the operand wins whatever the others are, 0 where it never does."""
    others = tuple(r for i, r in enumerate(case.ranges) if i != position)
    if not others:
        return interval(1.0, 1.0)
    x, rest = case.ranges[position] or WHOLE, _extreme_range(replace(case, ranges=others), f)
    if f is np.minimum:
        x, rest = (Interval(-bound.hi, -bound.lo) for bound in (x, rest))
    return Interval((x.lo > rest.hi).astype(np.float64), (x.hi >= rest.lo).astype(np.float64))


def _extreme(name: str, doc: str, f: Rule) -> Op:
    return broadcasting(
        name,
        doc,
        numpy=lambda *x: reduce(f, x),
        derivatives=Variadic(_share),
        vjp=_extreme_vjp,
        range=lambda case: _extreme_range(case, f),
        slope=lambda case, position: _extreme_slope(case, position, f),
        samples=TUPLES,
    )


Max = _extreme("Max", "The greatest operand; operands that tie share the gradient equally.", np.maximum)
Min = _extreme("Min", "The least operand; operands that tie share the gradient equally.", np.minimum)


def _prelu(x: Array, slope: Array) -> Array:
    return np.where(x > 0.0, x, slope * np.minimum(x, 0.0))


def _prelu_range(case: Case) -> Interval:
    """Monotone in each operand on each side of x = 0."""
    x, slope = (r or WHOLE for r in case.ranges)
    zero = np.clip(0.0, x.lo, x.hi)
    return corners(_prelu, [Interval(x.lo, zero), slope]).hull(corners(_prelu, [Interval(zero, x.hi), slope]))


PRelu = broadcasting(
    "PRelu",
    "x for x > 0, slope x elsewhere, with a learned slope; at 0 the slope is the learned one.",
    numpy=_prelu,
    derivatives=(
        lambda op, x, slope, y: op.Where(op.Greater(x, 0.0), 1.0, slope),
        lambda op, x, slope, y: op.Min(x, 0.0),
    ),
    vjp=lambda op, g, y, x, slope: (op.Where(op.Greater(x, 0.0), g, g * slope), op.Where(op.Greater(x, 0.0), 0.0, g * x)),
    range=_prelu_range,
    samples=(sample(("N", 3), (3,)), sample((2, 3, 4), (3, 1)), sample(("N", 3), ())),
)


def _where_range(case: Case) -> Interval:
    a, b = (r or WHOLE for r in case.ranges[1:])
    condition = case.values[0]
    if condition is None:
        return a.hull(b)
    return Interval(np.where(condition, a.lo, b.lo), np.where(condition, a.hi, b.hi))


def _where_slope(case: Case, position: int) -> Interval:
    condition = case.values[0]
    if condition is None:
        return interval(0.0, 1.0)
    chosen = np.asarray(condition if position == 1 else ~condition, np.float64)
    return Interval(chosen, chosen)


Where = broadcasting(
    "Where",
    "a where the condition holds, b elsewhere.",
    numpy=np.where,
    derivatives=(None, lambda op, c, a, b, y: op.Where(c, 1.0, 0.0), lambda op, c, a, b, y: op.Where(c, 0.0, 1.0)),
    vjp=lambda op, g, y, c, a, b: (None, op.Where(c, g, 0.0), op.Where(c, 0.0, g)),
    range=_where_range,
    slope=_where_slope,
    moments=Masked(),
    samples=(sample(np.array([[True], [False]]), (2, 3), (3,)), sample(np.array([True, False, True]), ("N", 3), ())),
)


def _mod(a: Array, b: Array, *, fmod: int) -> Array:
    return np.fmod(a, b) if fmod else np.mod(a, b)


def _mod_range(case: Case) -> Interval:
    """Of a's sign and no larger than a and b (``fmod``), or between 0 and b."""
    a, b = (r or WHOLE for r in case.ranges)
    if case.attributes["fmod"]:
        most = np.minimum(a.magnitude, b.magnitude)
        return Interval(np.where(a.lo < 0.0, -most, 0.0), np.where(a.hi > 0.0, most, 0.0))
    return Interval(np.minimum(b.lo, 0.0), np.maximum(b.hi, 0.0)) if b.bounded else WHOLE


Mod = broadcasting(
    "Mod",
    "The remainder a - q b, where q is a / b rounded toward 0 (`fmod`) or down: a step, so that the slope by b is -q.",
    numpy=_mod,
    derivatives=(
        lambda op, a, b, y, **_: 1.0,
        lambda op, a, b, y, **_: op.Neg(op.Floor((a - y) / b + 0.5)),
    ),
    range=_mod_range,
    jumps=True,
    slope=lambda case, position: WHOLE if position else interval(1.0, 1.0),
    samples=(
        sample(("N", 3), np.array([0.7, -0.45, 1.1]), fmod=1),
        sample((2, 3), (3,), fmod=1, domain=(0.3, 2.0)),
        sample((2, 1), (3,), fmod=1, domain=(-2.0, -0.3)),
    ),
)

ROWS = (Add, Sub, Sum, Mean, Mul, Div, Mod, Pow, Max, Min, PRelu, Where)
