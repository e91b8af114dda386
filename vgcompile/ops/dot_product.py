"""Scaled dot-product attention as models spell it out: P = softmax(cap(scale Q K^T) + bias), Y = P V (Vaswani et al. 2017).

    dV = P^T dY      dS = P * (dY V^T - rowsum(dY * Y))      dQ = scale dS K      dK = scale dS^T Q

The standard's Attention (attention.py) divides heads, builds masks and takes caches; this is what is left of it in a file that
holds it operator by operator, with the file's own layout of heads: leading axes broadcast as those of a product do. It is opened
again when the graph is written, in the very operators that the vjp starts from, so that the weights are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.interval import WHOLE, Interval, corners, down, interval, point, up
from vgcompile.ops.attention_moments import Attended, Layout, number, seen_by
from vgcompile.ops.linear import interval_product, swapped
from vgcompile.ops.maps import one_sample
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Dim, Op, sample
from vgcompile.ops.shape import extents, repeats
from vgcompile.signal import Signal


@dataclass(frozen=True)
class _Attending:
    """One node in the writing: what its forward body and its vjp both emit."""

    op: Any
    q: Any
    k: Any
    bias: Any = None
    hidden: Any = None
    scale: float = 1.0
    softcap: float = 0.0
    fill: float = -math.inf
    zero_rows: int = 0
    softmax_precision: int | None = None

    @cached_property
    def queries(self) -> Any:
        return self.scaled(self.q)

    def scaled(self, x: Any) -> Any:
        return x if self.scale == 1.0 else x * self.scale

    @cached_property
    def bend(self) -> Any:
        """tanh(s / cap), whose derivative is 1 - bend^2; None without a cap."""
        return self.op.Tanh(self._product * (1.0 / self.softcap)) if self.softcap else None

    @cached_property
    def weights(self) -> Any:
        op, scores = self.op, self._product if self.bend is None else self.bend * self.softcap
        if self.hidden is not None:
            scores = op.Where(self.hidden, self.fill, scores)
        if self.bias is not None:
            scores = scores + self.bias
        if self.softmax_precision is None:
            return self._softmax(scores)
        return op.Cast(self._softmax(op.Cast(scores, to=self.softmax_precision)), to=int(self.q.dtype))

    def adjoint_of_scores(self, dbiased: Any) -> Any:
        """From that of the scores with their bias. Behind a fill of -inf the weights are 0, and nothing is left to hide."""
        if self.hidden is not None and self.fill != -math.inf:
            dbiased = self.op.Where(self.hidden, 0.0, dbiased)
        return dbiased if self.bend is None else dbiased * (1.0 - self.bend * self.bend)

    @cached_property
    def _product(self) -> Any:
        return self.op.MatMul(self.queries, swapped(self.op, self.k))

    def _softmax(self, scores: Any) -> Any:
        return (self.op.MaskedSoftmax if self.zero_rows else self.op.Softmax)(scores, axis=-1)


def _attention(op: Any, q: Any, k: Any, v: Any, bias: Any = None, hidden: Any = None, **attributes: Any) -> Any:
    return op.MatMul(_Attending(op, q, k, bias, hidden, **attributes).weights, v)


def _attention_vjp(
    op: Any, g: Any, y: Any, q: Any, k: Any, v: Any, bias: Any = None, hidden: Any = None, **attributes: Any
) -> tuple[Any, ...]:
    """rowsum(dP * P) is rowsum(dY * Y), which is shorter (Dao 2022, FlashAttention)."""
    node = _Attending(op, q, k, bias, hidden, **attributes)
    along = op.ReduceSum(g * y, [-1], keepdims=1)
    dbiased = node.weights * (op.MatMul(g, swapped(op, v)) - along)
    dscores = node.adjoint_of_scores(dbiased)
    dq, dk = node.scaled(op.MatMul(dscores, k)), op.MatMul(swapped(op, dscores), node.queries)
    return dq, dk, op.MatMul(swapped(op, node.weights), g), None if bias is None else dbiased, None


def _like(q: Any, v: Any) -> Any:
    """A value in the shape of the output, whose leading axes are those of a product."""
    own, other = extents(q), extents(v)
    lead = [theirs if mine == 1 else mine for mine, theirs in zip(own[:-2], other[:-2], strict=True)]
    return ir.Value(shape=ir.Shape([*lead, own[-2], other[-1]]), type=q.type)


def _range(case: Case) -> Interval:
    """A mean of the values of all keys, or 0."""
    values = _lifted(case, 2)
    weighed = _weighed(case, values)
    if values.lo.ndim:
        values = Interval(values.lo.min(-2, keepdims=True), values.hi.max(-2, keepdims=True))
    if case.attributes.get("zero_rows"):
        values = values.hull(point(0.0))
    hull = corners(np.multiply, [values, interval(1.0, 1.0 + 1e-12)])
    if weighed is None:
        return hull
    lo, hi = np.maximum(hull.lo, weighed.lo), np.minimum(hull.hi, weighed.hi)
    return Interval(lo, hi) if (lo <= hi).all() else hull


def _weighed(case: Case, values: Interval) -> Interval | None:
    """The product of weights, as far as scores tell them, and values less a middle one: weights add up to 1.

    None where scores are bent, hidden or moved, or where an extent or a range is not known.
    """
    q, k, v = (_whole(case, position) for position in range(3))
    plain = not case.attributes.get("softcap") and not any(dims is not None for dims in case.shapes[3:])
    if q is None or k is None or v is None or not plain or case.attributes.get("zero_rows"):
        return None
    scale = float(case.attributes.get("scale", 1.0))
    products = interval_product(q, k.map(lambda x: np.swapaxes(x, -1, -2)), q.lo.shape[-1])
    if not products.bounded:
        return None
    scores = corners(np.multiply, [products, point(scale)])
    middle = 0.5 * (v.lo.min(-2, keepdims=True) + v.hi.max(-2, keepdims=True))
    away = corners(np.subtract, [v, point(middle)])
    mean = interval_product(_softmax(scores), away, v.lo.shape[-2])
    return corners(np.add, [mean, point(middle)]) if mean.bounded else None


def _whole(case: Case, position: int) -> Interval | None:
    """The range of one sample's operand with all its extents; None where one is not known."""
    dims, bound = one_sample(case.shapes[position]), _lifted(case, position)
    return bound.map(lambda x: np.broadcast_to(x, dims)) if dims is not None and bound.bounded else None


def _softmax(scores: Interval) -> Interval:
    """Each weight is least where its own score is and all others are greatest, and the reverse."""
    top = scores.hi.max(-1, keepdims=True)
    low, high = np.exp(scores.lo - top), np.exp(scores.hi - top)
    room = 1e-13 * high.sum(-1, keepdims=True)
    most_others = high.sum(-1, keepdims=True) - high + room
    least_others = np.maximum(low.sum(-1, keepdims=True) - low - room, 0.0)
    with np.errstate(invalid="ignore"):
        lo, hi = low / (low + most_others), high / np.maximum(high + least_others, high)
    return Interval(np.maximum(down(lo, 1.0), 0.0), np.minimum(up(np.nan_to_num(hi, nan=1.0), 1.0), 1.0))


def _norms(case: Case, position: int) -> tuple[float, float]:
    """With p a query's weights, y its output and Cov_p the covariance under p:

        by q        scale Cov_p(v, k)                   at most scale r_v r_k
        by k_j      scale p_j (v_j - y) q^T             at most scale |q| r_v, times sqrt(T): every query reads every key
        by v        P, whose rows sum to 1              at most sqrt(T)
        by a score  p_j (v_j - y)                       at most r_v / sqrt(2)

    r is half the diagonal of the box that holds the vectors of all keys: no spread about a mean is larger (Popoviciu 1935, axis
    by axis). A cap only bends, by slopes of 1 at most.
    """
    if position > 3:
        raise NotImplementedError("a condition has no slope")
    q, k, v = ((case.shapes[i] or ()) for i in range(3))
    lead = (case.outputs[0] or ())[:-2]
    full = ((*lead, *q[-2:]), (*lead, *k[-2:]), (*lead, *v[-2:]), (*lead, q[-2], k[-2]))[position]
    copies = repeats(replace(case, outputs=(full,)), position)
    queries = float(q[-2]) if isinstance(q[-2], int) else math.inf
    scale = abs(float(case.attributes.get("scale", 1.0)))
    most = (
        lambda: scale * _spread(case, 2) * _spread(case, 1),
        lambda: scale * _longest(case, 0) * _spread(case, 2) * math.sqrt(queries),
        lambda: math.sqrt(queries),
        lambda: _spread(case, 2) / math.sqrt(2.0),
    )[position]()
    return (0.0, _product(most, math.sqrt(copies)))


def _product(a: float, b: float) -> float:
    """0 times an extent that nobody knows is 0."""
    return float(up(np.asarray(a * b))) if a and b else 0.0


def _lifted(case: Case, position: int) -> Interval:
    """What is known of an operand, as one number or with all its axes."""
    value, rank = case.values[position], len(case.shapes[position] or ())
    bound = case.ranges[position] or (WHOLE if value is None else point(value))
    return bound.map(lambda x: x.reshape((1,) * (rank - x.ndim) + x.shape) if x.ndim else x)


def _spread(case: Case, position: int) -> float:
    """Half the diagonal of the box around the vectors of all keys."""
    bound = _lifted(case, position)
    if not bound.bounded:
        return math.inf
    lo, hi = (bound.lo.min(-2), bound.hi.max(-2)) if bound.lo.ndim else (bound.lo, bound.hi)
    return _length(0.5 * (hi - lo), (case.shapes[position] or ())[-1])


def _longest(case: Case, position: int) -> float:
    """The greatest length of a vector."""
    bound = _lifted(case, position)
    return _length(bound.magnitude, (case.shapes[position] or ())[-1]) if bound.bounded else math.inf


def _length(sides: Array, extent: Dim) -> float:
    """The greatest l2 norm along the last axis, over which a number that stands alone is repeated."""
    if isinstance(extent, str):
        return math.inf if np.any(sides) else 0.0
    squares = np.square(np.atleast_1d(sides))
    total = squares.sum(-1) * (extent if squares.shape[-1] == 1 else 1)
    return float(up(np.sqrt(total).max(initial=0.0) * (1.0 + 1e-12)))


def _layout(case: Case, signals: Sequence[Signal | None]) -> Layout:
    """Where a condition hides keys, its value must be known; one that a run computes hides an unknown number of them."""
    q, k, v = (case.shapes[i] or () for i in range(3))
    queries, keys = number(q[-2]), number(k[-2])
    given = [i < len(case.shapes) and case.shapes[i] is not None for i in (3, 4)]
    hidden = case.values[4] if given[1] else None
    if given[1] and (hidden is None or case.attributes.get("fill", -math.inf) != -math.inf):
        raise NotImplementedError("which keys are hidden is known at run time only")
    fixed = case.values[3] if given[0] else None
    if fixed is not None and np.isneginf(fixed).any():
        hidden = np.isneginf(fixed) if hidden is None else hidden | np.isneginf(fixed)
    bias = signals[3] if given[0] and np.isfinite(fixed if fixed is not None else 0.0).all() else None
    if given[0] and bias is None and fixed is None:
        raise NotImplementedError("the statistics of what is added to the scores are not known")
    groups = case.count((case.outputs[0] or ())[:-2]) / max(case.count(k[:-2]), 1)
    scale, cap = float(case.attributes.get("scale", 1.0)), float(case.attributes.get("softcap", 0.0))
    return Layout(queries, keys, number(q[-1]), number(v[-1]), groups, scale, cap, seen_by(queries, keys, hidden), bias)


_HIDDEN = np.array([[False, True, True], [False, False, True]])
_HALF = ("N", 2, 2, 3)

# Raised from what a file spells out (graph/raising_attention.py); the file's own function, rows without a visible key included.
ScaledDotProductAttention = Op(
    "ScaledDotProductAttention",
    "softmax(cap(scale Q K^T) + bias) V on the last two axes, hidden scores filled before the bias.",
    averages=2,
    domain=INTERNAL,
    vjp=_attention_vjp,
    range=_range,
    norms=_norms,
    moments=Attended(_layout),
    bodies=(Body("written out", _attention),),
    infer=lambda q, k, v, *_, **__: _like(q, v),
    samples=(
        sample(_HALF, ("N", 2, 3, 3), ("N", 2, 3, 2), scale=0.6),
        sample(("N", "T", 3), ("N", "S", 3), ("N", "S", 2), ("T", "S")),
        sample(_HALF, ("N", 1, 3, 3), ("N", 1, 3, 2), (2, 1, 3), scale=0.5, softcap=1.5),
        sample(_HALF, ("N", 2, 3, 3), ("N", 2, 3, 2), None, _HIDDEN, scale=0.5),
        sample(_HALF, ("N", 2, 3, 3), ("N", 2, 3, 2), ("N", 1, 1, 3), _HIDDEN, fill=-3.0, softmax_precision=11),
        sample((2, 2, 3), (2, 3, 3), (2, 3, 2), None, np.array([[True] * 3, [False, True, False]]), zero_rows=1),
    ),
)  # fmt: skip

ROWS = (ScaledDotProductAttention,)
