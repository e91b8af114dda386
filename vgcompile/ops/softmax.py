"""Softmax, its logarithm, and the softmax of rows of which some are hidden."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vgcompile import special
from vgcompile.interval import WHOLE, Interval, down, interval, up
from vgcompile.ops import flops
from vgcompile.ops.families import spread
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Op, sample
from vgcompile.ops.softmax_moments import LogShares, Shares

ONE_AXIS = (sample(("N", 4)), sample((2, "N", 3), axis=1), sample((2, 3, 4), axis=-1, domain=(-6.0, 6.0)))


def _log_softmax_range(case: Case) -> Interval:
    """x_i - log(sum(exp(x))) lies between the lower end of x_i with every upper end in the sum, and the reverse."""
    x, axis, dims = case.ranges[0] or WHOLE, case.attributes["axis"], case.shapes[0] or ()
    lo, hi = (spread(end, dims) for end in (x.lo, x.hi))
    if isinstance(dims[axis], str):
        return interval(np.full_like(lo, -np.inf), np.zeros_like(hi))
    least, most = (special.logsumexp(end, axis=axis, keepdims=True) for end in (lo, hi))
    bottom = down(lo - most, np.abs(lo) + np.abs(most) + float(dims[axis]))
    top = up(hi - least, np.abs(hi) + np.abs(least) + float(dims[axis]))
    return Interval(bottom, np.minimum(top, 0.0))


def _softmax_range(case: Case) -> Interval:
    logs = _log_softmax_range(case)
    return Interval(np.maximum(down(np.exp(logs.lo)), 0.0), np.minimum(up(np.exp(logs.hi)), 1.0))


def _softmax_norms(case: Case, position: int) -> tuple[float, float]:
    """For the two greatest probabilities ||diag(p) - p p^T|| <= p1 (1 - p1 + p2), p2 <= 1 - p1, which is at most 1/2.

    The root of the secular equation sum p_i^2 / (p_i - t) = 1 lies below p1 (1 - p1 + p2); arXiv 2510.23012 has 1/2.
    """
    p, axis = _softmax_range(case), case.attributes["axis"]
    least, most = p.lo.max(axis=axis), p.hi.max(axis=axis)
    alone = p.hi.shape[axis] < 2 or isinstance((case.shapes[0] or ())[axis], str)  # one interval, or one for all
    second = most if alone else np.partition(p.hi, -2, axis=axis).take(-2, axis=axis)
    # Concave in p1: the greatest value is at an end, where the two terms meet, or where one of them is greatest.
    meets = (least, most, 1.0 - second, (1.0 + second) / 2.0, np.full_like(most, 0.5))
    places = [np.clip(place, least, most) for place in meets]
    found = [np.minimum(at * (1.0 - at + second), 2.0 * at * (1.0 - at)) for at in places]
    return (0.0, float(np.minimum(0.5, up(np.max(found, axis=0), 4.0)).max()))


def _log_softmax_norms(case: Case, position: int) -> tuple[float, float]:
    """J = I - 1 p^T is a projection, so ||J|| = ||1 p^T|| = sqrt(k) ||p||, and ||p||^2 <= p1 (Szyld 2006)."""
    extent = (case.shapes[0] or ())[case.attributes["axis"]]
    if isinstance(extent, str):
        return (0.0, math.inf)
    return (0.0, float(up(np.sqrt(extent * _softmax_range(case).hi.max()))))


Softmax = Op(
    "Softmax",
    "exp(x) over its sum along an axis.",
    flops=flops.made(flops.SOFTMAX),
    vjp=lambda op, g, y, x, *, axis: (y * (g - op.ReduceSum(g * y, [axis], keepdims=1)),),
    numpy=lambda x, *, axis: special.softmax(x, axis=axis),
    range=_softmax_range,
    norms=_softmax_norms,
    moments=Shares(),
    samples=ONE_AXIS,
)

LogSoftmax = Op(
    "LogSoftmax",
    "x minus the logarithm of the sum of exp(x) along an axis.",
    flops=flops.made(flops.SOFTMAX),
    vjp=lambda op, g, y, x, *, axis: (g - op.Exp(y) * op.ReduceSum(g, [axis], keepdims=1),),
    numpy=lambda x, *, axis: special.log_softmax(x, axis=axis),
    range=_log_softmax_range,
    norms=_log_softmax_norms,
    moments=LogShares(),
    samples=ONE_AXIS,
)


def _masked(op: Any, x: Any, hidden: Any = None, *, axis: int) -> Any:
    y = op.Softmax(x, axis=axis)
    return op.Where(op.IsNaN(y) if hidden is None else hidden, 0.0, y)


def _masked_vjp(op: Any, g: Any, y: Any, x: Any, hidden: Any = None, *, axis: int) -> tuple[Any, ...]:
    """That of a softmax, read from the weights that stand in the place of 0 / 0."""
    return (y * (g - op.ReduceSum(g * y, [axis], keepdims=1)),)


def _masked_numpy(x: Array, hidden: Array | None = None, *, axis: int) -> Array:
    with np.errstate(invalid="ignore"):
        y = special.softmax(x, axis=axis)
    return np.where(np.isnan(y) if hidden is None else hidden, 0.0, y)


# exp(x) / sum(exp(x)) of a row of nothing but -inf is 0 / 0. Files put 0 in its place, and a value is then right whose gradient,
# taken operator by operator, is 0 times no number. As one function it has the gradient 0 there.
MaskedSoftmax = Op(
    "MaskedSoftmax",
    "A softmax with 0 in rows that are hidden: a condition of extent 1 along the axis or, without one, where there is no number.",
    domain=INTERNAL,
    vjp=_masked_vjp,
    numpy=_masked_numpy,
    range=lambda case: _softmax_range(case).hull(interval(0.0, 0.0)),
    norms=lambda case, position: (0.0, _softmax_norms(case, position)[1]),
    moments=Shares(),
    bodies=(Body("replaced", _masked),),
    infer=lambda x, *_, **__: x,
    samples=(
        sample(("N", 4), axis=-1),
        sample((2, "N", 3), np.array([[[True]], [[False]]]), axis=1),
        sample(("N", 2, 3), np.array([[False], [True]]), axis=-1),
    ),
)

ROWS = (Softmax, LogSoftmax, MaskedSoftmax)
