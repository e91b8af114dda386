"""Reductions over axes, and running sums.

The axes of a reduction come as a second input since opset 18; none at all means every axis, unless ``noop_with_empty_axes``
says that nothing is reduced (squares, absolute values and logarithms are still taken). A rule gets ``g`` and ``y`` with the
reduced axes given back at extent 1; the sweep spreads what stays narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_dtypes import finfo

from vgcompile import special
from vgcompile.interval import EPSILON, TINY, WHOLE, Interval, image, interval, product
from vgcompile.ops import flops
from vgcompile.ops.axes import Over, axes_of, counted, over_of, ranked, restored
from vgcompile.ops.factors import others
from vgcompile.ops.families import spread
from vgcompile.ops.maps import counts_samples, one_sample, summed_over
from vgcompile.ops.moments import Extreme, Reduced
from vgcompile.ops.op import Array, Case, Op, Rule, Tangent, sample
from vgcompile.ops.shape import extents

Fold = Callable[..., Any]  # (x, axis, keepdims) -> x folded along the axes

AXES = (
    sample(("N", 3, 4), np.array([1]), keepdims=1),
    sample(("N", 3, 4), np.array([-1, 1]), keepdims=0),
    sample((2, "N", 3), np.array([1]), keepdims=0),
    sample(("N", 3), keepdims=0),
    sample((2, 3), np.zeros(0, np.int64), keepdims=1),
)
NOOP = sample((2, 3), np.zeros(0, np.int64), noop_with_empty_axes=1)
POSITIVE = tuple(sample(*s.shapes, domain=(0.5, 2.0), **s.attributes) for s in (*AXES, NOOP))


def reduction(name: str, doc: str, *, fold: Fold, rule: Rule, range: Callable[[Case, Fold], Interval], **facts: Any) -> Op:
    """``fold(x, axis, keepdims)`` is the reduction in NumPy; ``rule(op, g, y, x, over)`` the adjoint of x."""

    def numpy(x: Array, axes: Array | None = None, *, keepdims: int, noop_with_empty_axes: int) -> Array:
        return np.asarray(fold(x, axis=counted(np.ndim(x), axes, noop_with_empty_axes), keepdims=bool(keepdims)))

    def vjp(op: Any, g: Any, y: Any, x: Any, axes: Any = None, *, keepdims: int, noop_with_empty_axes: int) -> tuple[Any, ...]:
        over = over_of(x, axes, noop_with_empty_axes)
        if not keepdims:
            g, y = restored(op, x, over, g, y)
        return (rule(op, g, y, x, over), None)

    return Op(
        name,
        doc,
        vjp=vjp,
        numpy=numpy,
        range=lambda case: range(case, fold),
        infer=ranked,
        **{"samples": (*AXES, NOOP), "flops": flops.read(), **facts},
    )


def counts(case: Case) -> tuple[float, float]:
    """The least and the greatest number of elements in one sum: a symbol stands for one or more."""
    shape = case.shapes[0] or ()
    reduced = [shape[axis] for axis in axes_of(case)]
    least = float(math.prod(dim for dim in reduced if isinstance(dim, int)))
    return least, math.inf if any(isinstance(dim, str) for dim in reduced) else least


def _at(case: Case, fold: Fold, x: Array) -> Array:
    """A fold of one end of a bound; a symbolic axis has extent 1 in it."""
    return np.asarray(fold(spread(x, case.shapes[0]), axis=axes_of(case), keepdims=bool(case.attributes["keepdims"])))


def _tangent(case: Case, weight: Callable[[float], float]) -> Tangent | None:
    """A sum within each sample, its terms weighted by their number."""
    dims, single = case.shapes[0], one_sample(case.shapes[0])
    if single is None or (counts_samples(dims) and 0 in axes_of(case)):
        return None
    return Tangent(summed_over(single, axes_of(case), weight(counts(case)[0])))


def _given(case: Case) -> Interval:
    return case.ranges[0] or WHOLE


def _sizes(case: Case) -> Interval:
    return Interval(_given(case).mignitude, _given(case).magnitude)


def _selected(case: Case, fold: Fold) -> Interval:
    return Interval(_at(case, fold, _given(case).lo), _at(case, fold, _given(case).hi))


def _accumulated(case: Case, fold: Fold, bound: Interval) -> Interval:
    """A fold that is monotone in each element, at both ends; k terms err by at most k units of the fold of their absolute
    values."""
    unit = (counts(case)[0] + 16.0) * EPSILON
    slack = [unit * _at(case, fold, np.abs(end)) + TINY for end in (bound.lo, bound.hi)]
    return Interval(_at(case, fold, bound.lo) - slack[0], _at(case, fold, bound.hi) + slack[1])


def _growing(case: Case, bound: Interval) -> Interval:
    """Over a symbolic axis a sum is any multiple, from 1, of the sum over extent 1."""
    return product(bound, interval(1.0, np.inf)) if math.isinf(counts(case)[1]) else bound


def _length(case: Case) -> Interval:
    """The Euclidean length of what is reduced into each output."""
    return _growing(case, _accumulated(case, _norm2, _sizes(case)))


def _norm2(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


def _split_equally(op: Any, g: Any, y: Any, x: Any, over: Over) -> Any:
    hit = op.Equal(x, y)
    return op.Where(hit, g / over.total(op, op.Where(hit, 1.0, 0.0)), 0.0)


SPREAD = 64  # elements of a constant that is as wide as what it is to spread over


def _mean_adjoint(op: Any, g: Any, y: Any, x: Any, over: Over) -> Any:
    """g over the number of elements of each mean; a narrow constant that is as wide as the mean spreads g as well."""
    wide = [dim if axis in over.axes else 1 for axis, dim in enumerate(extents(x))] if isinstance(over.axes, tuple) else []
    known = [dim for dim in wide if isinstance(dim, int)]
    size = max(math.prod(known), 1)
    if wide == known and isinstance(over.axes, tuple):
        return g * (1.0 / size if size > SPREAD else np.full(known, 1.0 / size, g.dtype.numpy()))
    if all(extent == 1 for extent in extents(y)):
        return g / op.Cast(op.Size(x), to=int(g.dtype))
    if len(wide) - len(known) == 1:
        axis = next(axis for axis, dim in enumerate(wide) if isinstance(dim, str))
        count = op.Cast(op.Shape(x, start=axis, end=axis + 1), to=int(g.dtype))
        return g / (count if size == 1 else count * float(size))
    return g / op.Cast(op.Size(x) / op.Size(y), to=int(g.dtype))


ReduceSum = reduction(
    "ReduceSum",
    "The sum over axes.",
    fold=np.sum,
    rule=lambda op, g, y, x, over: g,
    range=lambda case, fold: _growing(case, _accumulated(case, fold, _given(case))),
    norms=lambda case, position: (math.sqrt(counts(case)[0]), math.sqrt(counts(case)[1])),
    tangent=lambda case, position: _tangent(case, lambda n: 1.0),
    moments=Reduced(axes_of, lambda n: 1.0),
)

ReduceMean = reduction(
    "ReduceMean",
    "The mean over axes.",
    fold=np.mean,
    rule=_mean_adjoint,
    range=lambda case, fold: _accumulated(case, fold, _given(case)),
    norms=lambda case, position: (counts(case)[1] ** -0.5, counts(case)[0] ** -0.5),
    tangent=lambda case, position: _tangent(case, lambda n: 1.0 / n),
    moments=Reduced(axes_of, lambda n: 1.0 / n),
)

ReduceMax = reduction(
    "ReduceMax",
    "The greatest element over axes; elements that tie share the gradient equally.",
    fold=np.max,
    rule=_split_equally,
    range=_selected,
    norms=lambda case, position: (counts(case)[1] ** -0.5, 1.0),
    moments=Extreme(axes_of, 1.0),
)

ReduceMin = reduction(
    "ReduceMin",
    "The least element over axes; elements that tie share the gradient equally.",
    fold=np.min,
    rule=_split_equally,
    range=_selected,
    norms=lambda case, position: (counts(case)[1] ** -0.5, 1.0),
    moments=Extreme(axes_of, -1.0),
)

ReduceSumSquare = reduction(
    "ReduceSumSquare",
    "The sum of squares over axes.",
    unpredicted="a sum of squares needs the fourth moment",
    flops=flops.read(2.0),
    fold=lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
    rule=lambda op, g, y, x, over: 2.0 * g * x,
    range=lambda case, fold: _growing(case, _accumulated(case, fold, _sizes(case))),
    norms=lambda case, position: (2.0 * float(_length(case).lo.min()), 2.0 * float(_length(case).hi.max())),
)

ReduceL1 = reduction(
    "ReduceL1",
    "The sum of absolute values over axes; the slope at 0 is taken as 0.",
    unpredicted="a sum of sizes needs the distribution, not its second moments",
    flops=flops.read(2.0),
    fold=lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    rule=lambda op, g, y, x, over: g * op.Sign(x),
    range=lambda case, fold: _growing(case, _accumulated(case, fold, _sizes(case))),
    norms=lambda case, position: (
        math.sqrt(float(_at(case, np.sum, (_sizes(case).lo > 0).astype(np.float64)).min())),
        math.sqrt(counts(case)[1]),
    ),
    samples=POSITIVE,
)

ReduceL2 = reduction(
    "ReduceL2",
    "The Euclidean length over axes; its gradient at the zero vector is taken as 0.",
    unpredicted="a length needs the fourth moment",
    flops=flops.read(2.0),
    fold=_norm2,
    rule=lambda op, g, y, x, over: g * (x / op.Where(op.Equal(y, 0.0), 1.0, y)),
    range=lambda case, fold: _length(case),
    norms=lambda case, position: (float(_length(case).lo.min() > 0.0), 1.0),
)

ReduceLogSum = reduction(
    "ReduceLogSum",
    "The logarithm of the sum over axes.",
    unpredicted="a logarithm of sums needs more than second moments",
    fold=lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    rule=lambda op, g, y, x, over: g * op.Exp(op.Neg(y)),
    range=lambda case, fold: image(np.log, _growing(case, _accumulated(case, np.sum, _given(case))), domain=(0.0, np.inf)),
    samples=POSITIVE,
)


def _least(dtype: Any) -> float:
    return float(finfo(dtype.numpy()).min)  # type: ignore[no-untyped-call]


def _log_sum_exp_range(case: Case, fold: Fold) -> Interval:
    """Over a symbolic axis the logarithm of its extent comes on top."""
    bound = _accumulated(case, fold, _given(case))
    return Interval(bound.lo, np.full_like(bound.hi, np.inf)) if math.isinf(counts(case)[1]) else bound


ReduceLogSumExp = reduction(
    "ReduceLogSumExp",
    "log(sum(exp(x))) over axes; where every element is -inf the gradient is 0.",
    unpredicted="a logarithm of sums needs more than second moments",
    flops=flops.read(2.0),
    fold=special.logsumexp,
    rule=lambda op, g, y, x, over: g * op.Exp(x - op.Max(y, _least(g.dtype))),
    range=_log_sum_exp_range,
    norms=lambda case, position: (counts(case)[1] ** -0.5, 1.0),
)


def _product_range(case: Case, fold: Fold) -> Interval:
    """Between the products of the ends where no element is negative; else no larger than the product of the sizes."""
    if math.isinf(counts(case)[1]):
        return WHOLE
    given = _given(case)
    if (given.lo >= 0.0).all():
        return _accumulated(case, fold, given)
    top = _accumulated(case, fold, _sizes(case)).hi
    return Interval(-top, top)


ReduceProd = reduction(
    "ReduceProd",
    "The product over axes.",
    unpredicted="a product of many random numbers is log-normal: second moments do not describe it",
    fold=np.prod,
    rule=lambda op, g, y, x, over: g * others(op, y, x, over),
    range=_product_range,
)


def _running_sum(x: Array, axis: Array, *, exclusive: int, reverse: int) -> Array:
    along = int(np.ravel(axis)[0])
    ahead = np.flip(x, along) if reverse else x
    sums = np.cumsum(ahead, axis=along)
    if exclusive:
        sums = np.roll(sums, 1, along)
        sums[(slice(None),) * (along % x.ndim) + (0,)] = 0.0
    return np.flip(sums, along) if reverse else sums


def _running_sum_range(case: Case) -> Interval:
    axis, dims, given = case.values[1], case.shapes[0] or (), _given(case)
    if axis is None or isinstance(extent := dims[int(np.ravel(axis)[0])], str):
        return WHOLE
    ends = [spread(end, dims) for end in (given.lo, given.hi)]
    lo, hi = (_running_sum(end, axis, **case.attributes) for end in ends)
    slack = [(extent + 16.0) * EPSILON * _running_sum(np.abs(end), axis, exclusive=0, reverse=0).max() + TINY for end in ends]
    return Interval(lo - slack[0], hi + slack[1])


def _running_sum_norms(case: Case, position: int) -> tuple[float, float]:
    """The singular values of the triangle of ones are 1 / (2 sin((2 j - 1) pi / (4 n + 2))), j = 1..n; shifted by one, one of
    them is 0."""
    shape, axis = case.shapes[0], case.values[1]
    extent = None if shape is None or axis is None else shape[int(np.ravel(axis)[0])]
    if not isinstance(extent, int):
        return (0.0, math.inf)
    n = extent - case.attributes["exclusive"]
    least, greatest = (0.5 / math.sin((2 * j - 1) * math.pi / (4 * n + 2)) if n else 0.0 for j in (n, 1))
    return (0.0 if case.attributes["exclusive"] else least, greatest)


CumSum = Op(
    "CumSum",
    "The running sum along an axis.",
    unpredicted="its positions differ by how much they sum, and positions are taken to be alike",
    vjp=lambda op, g, y, x, axis, *, exclusive, reverse: (
        op.CumSum(g, axis, exclusive=exclusive, reverse=1 - reverse),
        None,
    ),
    numpy=_running_sum,
    range=_running_sum_range,
    norms=_running_sum_norms,
    samples=(
        sample(("N", 4), np.array(1)),
        sample((3, "N"), np.array(-1), exclusive=1),
        sample((4, 2), np.array(0), reverse=1),
        sample((3,), np.array(0), reverse=1, exclusive=1),
    ),
)

ROWS = (
    *(
        ReduceSum,
        ReduceMean,
        ReduceMax,
        ReduceMin,
        ReduceSumSquare,
        ReduceL1,
        ReduceL2,
        ReduceLogSum,
        ReduceLogSumExp,
        ReduceProd,
    ),
    CumSum,
)
