"""Functions of one number, beside the activations: exponentials, roots, waves; sign and type; steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from vgcompile import special
from vgcompile.interval import WHOLE, Interval, image, interval
from vgcompile.ops import flops
from vgcompile.ops.families import blocked, broadcasting, elementwise
from vgcompile.ops.op import Array, Case, Op, sample

PI = float(np.pi)
FLAT = "a step function: its slope is 0 wherever it has one"

POSITIVE = (sample(("N", 5), domain=(0.1, 3.0)), sample((2, 3, 4), domain=(0.5, 8.0)))
UNIT = (sample(("N", 5), domain=(-0.9, 0.9)), sample((2, 3, 4), domain=(-0.5, 0.5)))

Exp = elementwise("Exp", "The exponential function.", numpy=np.exp, derivative=lambda op, x, y: y)

Log = elementwise(
    "Log",
    "The natural logarithm.",
    numpy=np.log,
    derivative=lambda op, x, y: op.Reciprocal(x),
    defined=(0.0, np.inf),
    samples=POSITIVE,
)

Sqrt = elementwise(
    "Sqrt",
    "The square root; its slope at 0 is infinite.",
    numpy=np.sqrt,
    derivative=lambda op, x, y: 0.5 * op.Reciprocal(y),
    defined=(0.0, np.inf),
    samples=POSITIVE,
)

Reciprocal = elementwise(
    "Reciprocal",
    "1 / x.",
    numpy=lambda x: 1.0 / x,
    derivative=lambda op, x, y: op.Neg(y * y),
    kinks=[0.0],
    samples=(*POSITIVE, sample((4,), domain=(-3.0, -0.5))),
)

Abs = elementwise("Abs", "|x|; the slope at 0 is taken as 0.", numpy=np.abs, derivative=lambda op, x, y: op.Sign(x), kinks=[0.0])

Erf = elementwise(
    "Erf",
    "The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.",
    numpy=special.erf,
    derivative=lambda op, x, y: op.Exp(op.Neg(x * x)) * float(2.0 / np.sqrt(np.pi)),
    turns=[0.0],
)


def _wave(f: Callable[[Array], Array], crest: float, x: Interval) -> Interval:
    """The range of a function of period 2 pi and amplitude 1 whose crests lie at ``crest`` + 2 pi k and whose troughs lie
    midway."""
    ends = image(f, x)
    lo = np.where(_meets(x, crest + PI, 2.0 * PI), -1.0, ends.lo)
    hi = np.where(_meets(x, crest, 2.0 * PI), 1.0, ends.hi)
    return Interval(np.maximum(lo, -1.0), np.minimum(hi, 1.0))


def _meets(x: Interval, start: float, period: float) -> Array:
    """Whether an interval holds a point ``start`` + k ``period``; in doubt, which grows with |x|, it does."""
    first, last = ((end - start) / period for end in (x.lo, x.hi))
    return np.floor(last + 1e-14 * (1.0 + np.abs(last))) >= np.ceil(first - 1e-14 * (1.0 + np.abs(first)))


def _tan_range(case: Case) -> Interval:
    x = case.ranges[0] or WHOLE
    pole = _meets(x, 0.5 * PI, PI)
    ends = image(np.tan, x)
    return Interval(np.where(pole, -np.inf, ends.lo), np.where(pole, np.inf, ends.hi))


def _tan_slope(case: Case, position: int) -> Interval:
    """1 + tan(x)^2 turns at k pi, and at the poles it is infinite on both sides."""
    x = case.ranges[0] or WHOLE
    ends = image(lambda x: 1.0 + np.tan(x) ** 2, x)
    return Interval(np.where(_meets(x, 0.0, PI), 1.0, ends.lo), np.where(_meets(x, 0.5 * PI, PI), np.inf, ends.hi))


Sin = elementwise(
    "Sin",
    "The sine.",
    numpy=np.sin,
    derivative=lambda op, x, y: op.Cos(x),
    range=lambda case: _wave(np.sin, 0.5 * PI, case.ranges[0] or WHOLE),
    slope=lambda case, position: _wave(np.cos, 0.0, case.ranges[0] or WHOLE),
)

Cos = elementwise(
    "Cos",
    "The cosine.",
    numpy=np.cos,
    derivative=lambda op, x, y: op.Neg(op.Sin(x)),
    range=lambda case: _wave(np.cos, 0.0, case.ranges[0] or WHOLE),
    slope=lambda case, position: _wave(lambda x: -np.sin(x), -0.5 * PI, case.ranges[0] or WHOLE),
)

Tan = elementwise(
    "Tan",
    "The tangent.",
    numpy=np.tan,
    derivative=lambda op, x, y: 1.0 + y * y,
    range=_tan_range,
    slope=_tan_slope,
    samples=(sample(("N", 5), domain=(-1.2, 1.2)), sample((2, 3), domain=(2.0, 4.0))),
)

Sinh = elementwise("Sinh", "The hyperbolic sine.", numpy=np.sinh, derivative=lambda op, x, y: op.Cosh(x), turns=[0.0])

Cosh = elementwise("Cosh", "The hyperbolic cosine.", numpy=np.cosh, derivative=lambda op, x, y: op.Sinh(x), extrema=[0.0])

Asin = elementwise(
    "Asin",
    "The inverse sine; its slope at -1 and 1 is infinite.",
    numpy=np.arcsin,
    derivative=lambda op, x, y: op.Reciprocal(op.Sqrt((1.0 - x) * (1.0 + x))),
    turns=[0.0],
    defined=(-1.0, 1.0),
    samples=UNIT,
)

Acos = elementwise(
    "Acos",
    "The inverse cosine; its slope at -1 and 1 is infinite.",
    numpy=np.arccos,
    derivative=lambda op, x, y: op.Neg(op.Reciprocal(op.Sqrt((1.0 - x) * (1.0 + x)))),
    turns=[0.0],
    defined=(-1.0, 1.0),
    samples=UNIT,
)

Atan = elementwise(
    "Atan", "The inverse tangent.", numpy=np.arctan, derivative=lambda op, x, y: op.Reciprocal(1.0 + x * x), turns=[0.0]
)

Asinh = elementwise(
    "Asinh",
    "The inverse hyperbolic sine.",
    numpy=np.arcsinh,
    derivative=lambda op, x, y: op.Reciprocal(op.Sqrt(1.0 + x * x)),
    turns=[0.0],
)

Acosh = elementwise(
    "Acosh",
    "The inverse hyperbolic cosine; its slope at 1 is infinite.",
    numpy=np.arccosh,
    derivative=lambda op, x, y: op.Reciprocal(op.Sqrt(x - 1.0) * op.Sqrt(x + 1.0)),
    defined=(1.0, np.inf),
    samples=(sample(("N", 5), domain=(1.2, 4.0)), sample((2, 3, 4), domain=(2.0, 9.0))),
)

Atanh = elementwise(
    "Atanh",
    "The inverse hyperbolic tangent; its slope at -1 and 1 is infinite.",
    numpy=np.arctanh,
    derivative=lambda op, x, y: op.Reciprocal((1.0 - x) * (1.0 + x)),
    turns=[0.0],
    defined=(-1.0, 1.0),
    samples=UNIT,
)

# ----------------------------------------------------------------------------------------------------------- sign, type, steps

Neg = elementwise("Neg", "-x.", numpy=np.negative, derivative=lambda op, x, y: -1.0, linear=True)

Identity = elementwise("Identity", "x.", flops=flops.none, numpy=np.positive, derivative=lambda op, x, y: 1.0, linear=True)


def _flows_between_floats(op: Any, g: Any, y: Any, x: Any, like: Any = None, **attributes: Any) -> tuple[Any, ...]:
    """Rounding to a narrower type is taken for the identity; a type of 8 bits is a quantization, and has no adjoint."""
    if not x.dtype.is_floating_point():
        return (None, None)
    return (g if x.dtype == g.dtype else op.Cast(g, to=int(x.dtype)), None)


def _cast(x: Array, *, to: int, **rounding: Any) -> Any:
    if to == TensorProto.BOOL:
        return x != 0
    return np.trunc(x) if helper.tensor_dtype_to_np_dtype(to).kind in "iu" else np.asarray(x, np.float64)


def _cast_range(case: Case) -> Interval:
    if case.attributes["to"] == TensorProto.BOOL:
        return interval(0.0, 1.0)
    return (case.ranges[0] or WHOLE).map(lambda x: _cast(x, **case.attributes))


Cast = elementwise(
    "Cast",
    "x as another type; the gradient flows between floating-point types of 16 bits and more, and through no narrower one.",
    flops=flops.none,
    numpy=_cast,
    derivative=lambda op, x, y, **to: 1.0,
    vjp=_flows_between_floats,
    range=_cast_range,
    samples=(sample(("N", 5), to=TensorProto.FLOAT), sample((2, 3), to=TensorProto.DOUBLE)),
)

CastLike = broadcasting(
    "CastLike",
    "x as the type of the second input; the gradient flows as it does through Cast.",
    flops=flops.none,
    numpy=lambda x, like, **rounding: x,
    derivatives=(lambda op, x, like, y, **rounding: 1.0, None),
    vjp=_flows_between_floats,
    range=lambda case: case.ranges[0] or WHOLE,
    slope=lambda case, position: interval(1.0, 1.0),
    samples=(sample(("N", 5), np.zeros(1)),),
)


def _step(name: str, doc: str, f: Callable[[Array], Array]) -> Op:
    return blocked(
        name,
        doc,
        FLAT,
        numpy=f,
        range=lambda case: image(f, case.ranges[0] or WHOLE),
        samples=(sample(("N", 5)), sample((2, 3, 4), domain=(-6.0, 6.0))),
    )


Sign = _step("Sign", "-1, 0 or 1: the sign of x.", np.sign)
Floor = _step("Floor", "The greatest whole number that is not above x.", np.floor)
Ceil = _step("Ceil", "The least whole number that is not below x.", np.ceil)
Round = _step("Round", "The nearest whole number, halves to the even one.", np.rint)

ROWS = (
    *(Exp, Log, Sqrt, Reciprocal, Abs, Erf, Sin, Cos, Tan, Sinh, Cosh, Asin, Acos, Atan, Asinh, Acosh, Atanh),
    *(Neg, Identity, Cast, CastLike, Sign, Floor, Ceil, Round),
)
