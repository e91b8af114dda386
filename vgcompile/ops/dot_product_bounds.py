"""Bounds of scaled dot-product attention Y = P V, P = softmax(scale Q K^T + bias), head by head.

With p the weights of a query, M = diag(p) - p p^T and Cov_p(a, b) = A^T M B the covariance of rows under p, the Jacobians are

    by q        scale V^T M K               by k_j      scale V^T M e_j q^T
    by v        P                           by scores   V^T M

Rows of V and K count from any point, for M 1 = 0: what matters is how far keys are from each other, not from 0. In norm
||A^T M B|| <= r_a r_b with r half the diagonal of the box, or the radius of a ball, that holds all rows (Popoviciu 1935, axis by
axis), and ||A^T M|| <= sqrt(||A^T M A|| ||M||) with ||M|| <= p1 (1 - p1 + p2) <= 1/2. Kim, Papamakarios and Mnih 2021 (arXiv
2006.04710) and Castin, Ablin and Peyre 2024 (arXiv 2312.14820) bound the same factors for tokens within a ball of radius R.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vgcompile.interval import Interval, corners, interval, point, up
from vgcompile.ops.dot_product_nearby import filled, lifted, nearby, softmax_of, whole
from vgcompile.ops.linear import interval_product
from vgcompile.ops.maps import counts_samples
from vgcompile.ops.op import Array, Case, Dim, Tangent
from vgcompile.ops.shape import repeats


def value_range(case: Case) -> Interval:
    """A mean of the values of all keys, or 0."""
    values = lifted(case, 2)
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
    q, k, v = (whole(case, position) for position in range(3))
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
    mean = interval_product(softmax_of(scores), away, v.lo.shape[-2])
    return corners(np.add, [mean, point(middle)]) if mean.bounded else None


def norms(case: Case, position: int) -> tuple[float, float]:
    """The least of what the spread of keys and the matrices of a head say.

    Behind a number that fills a score nothing flows, and what is left of M no longer adds up to 0: there keys count from 0. By k,
    with A_i = V^T M_i of query i: at most scale sqrt(sum_i ||A_i||^2 |q_i|^2). By v: P has rows that sum to 1, so that
    ||P||^2 is at most its greatest column sum. A cap only bends, by slopes of 1 at most.
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
        lambda: scale * _spread(case, 2) * (_longest(case, 1) if filled(case) else _spread(case, 1)),
        lambda: scale * _longest(case, 0) * _spread(case, 2) * math.sqrt(0.5 * queries),
        lambda: math.sqrt(queries),
        lambda: _spread(case, 2) / math.sqrt(2.0),
    )[position]()
    near = None if position == 3 else nearby(case)
    if near is not None:
        most = min(most, (near.by_queries, near.by_keys, near.by_values)[position]().norm)
    return (0.0, _product(most, math.sqrt(copies)))


def tangent(case: Case, position: int) -> Tangent | None:
    """Where each head has its own keys and values."""
    near = nearby(case) if position < 3 else None
    leads = {dims[:-2] for dims in case.shapes[:3] if dims is not None}
    if near is None or len(leads) != 1 or not all(counts_samples(case.shapes[0]) == counts_samples(d) for d in case.shapes[:3]):
        return None
    return (near.by_queries, near.by_keys, near.by_values)[position]().tangent


def _product(a: float, b: float) -> float:
    """0 times an extent that nobody knows is 0."""
    return float(up(np.asarray(a * b))) if a and b else 0.0


def _spread(case: Case, position: int) -> float:
    """Half the diagonal of the box around the vectors of all keys."""
    bound = lifted(case, position)
    if not bound.bounded:
        return math.inf
    lo, hi = (bound.lo.min(-2), bound.hi.max(-2)) if bound.lo.ndim else (bound.lo, bound.hi)
    return _length(0.5 * (hi - lo), (case.shapes[position] or ())[-1])


def _longest(case: Case, position: int) -> float:
    """The greatest length of a vector."""
    bound = lifted(case, position)
    return _length(bound.magnitude, (case.shapes[position] or ())[-1]) if bound.bounded else math.inf


def _length(sides: Array, extent: Dim) -> float:
    """The greatest l2 norm along the last axis, over which a number that stands alone is repeated."""
    if isinstance(extent, str):
        return math.inf if np.any(sides) else 0.0
    squares = np.square(np.atleast_1d(sides))
    total = squares.sum(-1) * (extent if squares.shape[-1] == 1 else 1)
    return float(up(np.sqrt(total).max(initial=0.0) * (1.0 + 1e-12)))
