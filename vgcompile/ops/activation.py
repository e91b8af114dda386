"""Activations: functions of one number by which a network bends.

Turning points of slopes and values are given to the last digit of a double; those that have no closed form were found with
mpmath at 30 digits, as the roots of the second and the first derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile import special
from vgcompile.interval import WHOLE, Interval, interval
from vgcompile.ops.families import broadcasting, elementwise, piecewise
from vgcompile.ops.op import Array, Case, Variadic, sample

Sigmoid = elementwise(
    "Sigmoid",
    "1 / (1 + exp(-x)): squashes every number into (0, 1).",
    numpy=special.expit,
    derivative=lambda op, x, y: y * (1.0 - y),
    turns=[0.0],
)

Tanh = elementwise(
    "Tanh",
    "The hyperbolic tangent: squashes every number into (-1, 1).",
    numpy=np.tanh,
    derivative=lambda op, x, y: 1.0 - y * y,
    turns=[0.0],
)

Relu = piecewise(
    "Relu",
    "max(x, 0); the slope at 0 is taken as 0.",
    steps=True,
    numpy=lambda x: np.maximum(x, 0.0),
    condition=lambda op, x, y: op.Greater(x, 0.0),
    then=lambda op, x, y: 1.0,
    otherwise=lambda op, x, y: 0.0,
    kinks=[0.0],
)

LeakyRelu = piecewise(
    "LeakyRelu",
    "x for x > 0, alpha x elsewhere; the slope at 0 is taken as alpha.",
    steps=True,
    numpy=lambda x, *, alpha: np.where(x > 0.0, x, alpha * x),
    condition=lambda op, x, y, *, alpha: op.Greater(x, 0.0),
    then=lambda op, x, y, *, alpha: 1.0,
    otherwise=lambda op, x, y, *, alpha: float(alpha),
    kinks=[0.0],
    samples=(sample(("N", 5), alpha=0.01), sample((2, 3, 4), alpha=0.3), sample((), alpha=-0.5)),
)

ThresholdedRelu = piecewise(
    "ThresholdedRelu",
    "x for x > alpha, 0 elsewhere; the slope at alpha is taken as 0.",
    steps=True,
    numpy=lambda x, *, alpha: np.where(x > alpha, x, 0.0),
    condition=lambda op, x, y, *, alpha: op.Greater(x, float(alpha)),
    then=lambda op, x, y, *, alpha: 1.0,
    otherwise=lambda op, x, y, *, alpha: 0.0,
    jumps=True,
    kinks=lambda *, alpha: [alpha],
    samples=(sample(("N", 5), alpha=1.0), sample((2, 3), alpha=-0.5)),
)

Elu = piecewise(
    "Elu",
    "x for x > 0, alpha (exp(x) - 1) elsewhere; the slope at 0 is taken as alpha.",
    numpy=lambda x, *, alpha: np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0))),
    condition=lambda op, x, y, *, alpha: op.Greater(x, 0.0),
    then=lambda op, x, y, *, alpha: 1.0,
    otherwise=lambda op, x, y, *, alpha: y + float(alpha),
    kinks=[0.0],
    samples=(sample(("N", 5), alpha=1.0), sample((2, 3, 4), domain=(-6.0, 6.0), alpha=0.5)),
)

Selu = piecewise(
    "Selu",
    "gamma times (x for x > 0, alpha (exp(x) - 1) elsewhere); the slope at 0 is taken as gamma alpha.",
    numpy=lambda x, *, alpha, gamma: gamma * np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0))),
    condition=lambda op, x, y, *, alpha, gamma: op.Greater(x, 0.0),
    then=lambda op, x, y, *, alpha, gamma: float(gamma),
    otherwise=lambda op, x, y, *, alpha, gamma: y + alpha * gamma,
    kinks=[0.0],
)

Celu = piecewise(
    "Celu",
    "x for x > 0, alpha (exp(x / alpha) - 1) elsewhere; smooth at 0.",
    numpy=lambda x, *, alpha: np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0) / alpha)),
    condition=lambda op, x, y, *, alpha: op.Greater(x, 0.0),
    then=lambda op, x, y, *, alpha: 1.0,
    otherwise=lambda op, x, y, *, alpha: y * (1.0 / alpha) + 1.0,
    kinks=[0.0],
    samples=(sample(("N", 5), alpha=1.0), sample((2, 3, 4), domain=(-6.0, 6.0), alpha=2.0)),
)

_TANH_GELU = float(np.sqrt(2.0 / np.pi)), 0.044715  # Hendrycks and Gimpel 2016


def _gelu(x: Array, *, approximate: str) -> Any:
    if approximate == "none":
        return x * special.ndtr(x)
    scale, cubic = _TANH_GELU
    return 0.5 * x * (1.0 + np.tanh(scale * (x + cubic * x * x * x)))


def _gelu_slope(op: Any, x: Any, y: Any, *, approximate: str) -> Any:
    """Exact: Phi(x) + x phi(x). Approximate: 0.5 (1 + t) + 0.5 x (1 - t^2) u', t = tanh(u)."""
    if approximate == "none":
        density = op.Exp(x * x * -0.5) * float(1.0 / np.sqrt(2.0 * np.pi))
        return op.Erf(x * float(np.sqrt(0.5))) * 0.5 + 0.5 + x * density
    # Beyond 10 the tanh is +-1 to the last digit of a double; there x^3 must not overflow into 0 * inf.
    z = op.Clip(x, -10.0, 10.0)
    scale, cubic = _TANH_GELU
    t = op.Tanh(z * (z * z * (scale * cubic) + scale))
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * (z * z * (3.0 * scale * cubic) + scale)


def _gelu_turns(*, approximate: str) -> list[float]:
    turn = float(np.sqrt(2.0)) if approximate == "none" else 1.4185040087908283555
    return [-turn, turn]


Gelu = elementwise(
    "Gelu",
    "x Phi(x), or its approximation by tanh: its slope leaves [0, 1] on both sides.",
    numpy=_gelu,
    derivative=_gelu_slope,
    turns=_gelu_turns,
    extrema=lambda *, approximate: [-0.75179152469356445746 if approximate == "none" else -0.75246142207101625849],
    samples=(sample(("N", 5), approximate="none"), sample((2, 3, 4), domain=(-6.0, 6.0), approximate="tanh")),
)


def _mish_slope(op: Any, x: Any, y: Any) -> Any:
    t = op.Tanh(op.Softplus(x))
    return t + x * (1.0 - t * t) * op.Sigmoid(x)


Mish = elementwise(
    "Mish",
    "x tanh(softplus(x)).",
    numpy=lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    derivative=_mish_slope,
    turns=[-2.25637639636079312, 1.4905711794854284593],
    extrema=[-1.1924312145154952121],
)


Softplus = elementwise(
    "Softplus",
    "log(1 + exp(x)).",
    numpy=lambda x: np.logaddexp(x, 0.0),
    derivative=lambda op, x, y: op.Sigmoid(x),
)

Softsign = elementwise(
    "Softsign",
    "x / (1 + |x|): squashes every number into (-1, 1).",
    numpy=lambda x: x / (1.0 + np.abs(x)),
    derivative=lambda op, x, y: op.Pow(1.0 + op.Abs(x), -2.0),
    turns=[0.0],
)


HardSigmoid = piecewise(
    "HardSigmoid",
    "alpha x + beta, cut off at 0 and 1; the slope at both corners is taken as 0.",
    numpy=lambda x, *, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0),
    condition=lambda op, x, y, *, alpha, beta: op.And(op.Greater(y, 0.0), op.Less(y, 1.0)),
    then=lambda op, x, y, *, alpha, beta: float(alpha),
    otherwise=lambda op, x, y, *, alpha, beta: 0.0,
    kinks=lambda *, alpha, beta: [-beta / alpha, (1.0 - beta) / alpha] if alpha else [],
    samples=(sample(("N", 5), domain=(-4.0, 4.0)), sample((2, 3, 4), domain=(-4.0, 4.0), alpha=1.0 / 6.0, beta=0.5)),
)

HardSwish = piecewise(
    "HardSwish",
    "x times (x / 6 + 1/2, cut off at 0 and 1); the slope is taken as 0 at -3 and as 1 at 3.",
    numpy=lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    condition=lambda op, x, y: op.Greater(x, -3.0),
    then=lambda op, x, y: op.Where(op.Less(x, 3.0), x * (1.0 / 3.0) + 0.5, 1.0),
    otherwise=lambda op, x, y: 0.0,
    kinks=[-3.0, 3.0],
    extrema=[-1.5],
    samples=(sample(("N", 5)), sample((2, 3, 4), domain=(-6.0, 6.0))),
)

Shrink = piecewise(
    "Shrink",
    "x + bias below -lambd, x - bias above lambd, 0 between; the slope at both jumps is taken as 0.",
    steps=True,
    numpy=lambda x, *, bias, lambd: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0)),
    condition=lambda op, x, y, *, bias, lambd: op.Greater(op.Abs(x), float(lambd)),
    then=lambda op, x, y, *, bias, lambd: 1.0,
    otherwise=lambda op, x, y, *, bias, lambd: 0.0,
    jumps=True,
    kinks=lambda *, bias, lambd: [-lambd, lambd],
    samples=(sample(("N", 5)), sample((2, 3, 4), domain=(-4.0, 4.0), bias=1.5, lambd=1.5)),
)


def _clip(x: Array, lo: Array | None = None, hi: Array | None = None) -> Array:
    raised = x if lo is None else np.maximum(x, lo)
    return raised if hi is None else np.minimum(raised, hi)


def _clip_route(op: Any, position: int, x: Any, lo: Any = None, hi: Any = None) -> Any:
    """Whether the value comes from this input: from ``hi`` above it, else from ``lo`` below it, else from x. None: always."""
    above = None if hi is None else op.Greater(x if lo is None else op.Max(x, lo), hi)
    below = None if lo is None else op.Less(x, lo)
    if position == 2:
        return above
    if position == 1:
        return below if above is None else op.And(below, op.Not(above))
    if below is None or above is None:
        cut = above if below is None else below
        return None if cut is None else op.Not(cut)
    return op.Not(op.Or(below, op.Greater(x, hi)))


def _clip_derivative(position: int, op: Any, *operands: Any) -> Any:
    *inputs, _ = operands
    route = _clip_route(op, position, *inputs)
    return 1.0 if route is None else op.Where(route, 1.0, 0.0)


def _clip_vjp(op: Any, g: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
    """What is not cut off is x itself."""
    limits = [i for i, value in enumerate(inputs) if i and value is not None]
    dx = op.Where(op.Equal(inputs[0], y), g, 0.0) if limits else g
    return (dx, *(op.Where(_clip_route(op, i, *inputs), g, 0.0) if i in limits else None for i in range(1, len(inputs))))


def _clip_range(case: Case) -> Interval:
    x, lo, hi = _clip_operands(case)
    return Interval(_clip(x.lo, lo.lo, hi.lo), _clip(x.hi, lo.hi, hi.hi))


def _clip_slope(case: Case, position: int) -> Interval:
    """0 or 1 for each input, and which of them where the ranges tell."""
    x, lo, hi = _clip_operands(case)
    if position > 0:
        return interval(0.0, 1.0)
    inside = (x.lo >= lo.hi) & (x.hi <= hi.lo)
    touching = (x.hi >= lo.lo) & (x.lo <= hi.hi)
    return Interval(inside.astype(np.float64), touching.astype(np.float64))


def _clip_operands(case: Case) -> tuple[Interval, Interval, Interval]:
    """Ranges of x, min and max; an absent limit is infinite."""
    x, lo, hi = (*case.ranges, None, None)[:3]
    return x or WHOLE, lo or Interval(WHOLE.lo, WHOLE.lo), hi or Interval(WHOLE.hi, WHOLE.hi)


Clip = broadcasting(
    "Clip",
    "x, cut off at min and at max (max wins where they cross); the slope at both limits is taken as 1.",
    numpy=_clip,
    derivatives=Variadic(_clip_derivative),
    vjp=_clip_vjp,
    range=_clip_range,
    slope=_clip_slope,
    samples=(
        sample(("N", 5), np.array(-1.0), np.array(0.5)),
        sample((2, 3), ()),
        sample((2, 3), (), ()),
        sample((4,)),
    ),
)

ROWS = (
    *(Sigmoid, Tanh, Relu, LeakyRelu, ThresholdedRelu, Elu, Selu, Celu, Gelu, Mish),
    *(Softplus, Softsign, HardSigmoid, HardSwish, Shrink, Clip),
)
