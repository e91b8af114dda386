"""How far a normalization's deviation may fall over a range, and its Jacobian near a point.

For rows x of n numbers, u = x - mean(x) (or x itself, where only the root mean square is divided by) and s^2 = mean(u^2) +
epsilon, the output u / s has the Jacobian K = (P - z z^T / n) / s with z = u / s. As u / s = sqrt(n) h(u) with
h(u) = u / sqrt(|u|^2 + n epsilon), of which second derivatives are at most 1.53 / (|u|^2 + n epsilon), K moves by no more than
1.53 |dx| / (sqrt(n) s^2).
"""

from __future__ import annotations

import math

import numpy as np

from vgcompile.interval import EPSILON, Array, Interval, down, product, up
from vgcompile.ops.maps import one_sample
from vgcompile.ops.op import Case, LinearMap, Tangent

# |D^2 h|: with a = |u| / r <= 1 its parts along u and across are at most max(1, 3 (1 - a^2)) a <= 2 / sqrt(3) and a <= 1.
BEND = math.sqrt(4.0 / 3.0 + 1.0) * (1.0 + 1e-12)
BISECTIONS = 60
LARGEST_SEARCHED = 2**17  # elements; beyond them the search takes longer than what it is for


def rows_of(case: Case, members: float) -> tuple[tuple[int, ...], int] | None:
    """The extents of one sample, and how many of its elements are normalized together; None where a symbol hides them."""
    dims = one_sample(case.shapes[0])
    return None if dims is None or math.isinf(members) or not members else (dims, int(members))


def least_square(case: Case, members: float, centred: bool) -> float:
    """A lower bound of mean(u^2) over the input's range, in every row."""
    where, bound = rows_of(case, members), case.ranges[0]
    if where is None or bound is None:
        return 0.0
    dims, n = where
    found = 0.0
    try:
        lo, hi = (np.broadcast_to(end, dims).reshape(-1, n) for end in (bound.lo, bound.hi))
    except ValueError:
        lo = hi = np.zeros((1, n))
    if np.isfinite(lo).all() and np.isfinite(hi).all() and lo.size <= LARGEST_SEARCHED:
        found = float((_spread(lo, hi) if centred else (Interval(lo, hi).mignitude ** 2).sum(axis=1)).min()) / n
    if case.balls and (ball := case.balls[0]) is not None:
        u = _centred(ball[0].reshape(-1, n), centred)
        length = np.maximum(np.sqrt((u * u).sum(axis=1)) * (1.0 - (n + 8) * EPSILON) - ball[1], 0.0)
        found = max(found, float((length**2).min()) / n)
    return max(found * (1.0 - 4.0 * (n + 8) * EPSILON), 0.0)


def value_range(case: Case, members: float, centred: bool) -> Interval | None:
    """The range of u / s over the input's range, in the extents of one sample; None where those are not known.

    u_i = (1 - 1/n) x_i - sum of the others / n, each of them at its own end.
    """
    where, bound = rows_of(case, members), case.ranges[0]
    if where is None or bound is None or not bound.bounded:
        return None
    dims, n = where
    if math.prod(dims) > LARGEST_SEARCHED:
        return None
    try:
        x = bound.map(lambda end: np.broadcast_to(end, dims).reshape(-1, n))
    except ValueError:
        return None
    scale = x.magnitude.sum(axis=1, keepdims=True)
    lo, hi = x.lo, x.hi
    if centred:
        lo = x.lo - (x.lo + x.hi.sum(axis=1, keepdims=True) - x.hi) / n
        hi = x.hi - (x.hi + x.lo.sum(axis=1, keepdims=True) - x.lo) / n
    u = Interval(down(lo, (n + 4.0) * scale), up(hi, (n + 4.0) * scale))
    epsilon = float(case.attributes["epsilon"])
    least = least_square(case, members, centred) + epsilon
    most = up((u.magnitude**2).mean(axis=1, keepdims=True) + epsilon, float(n))
    if least <= 0.0:
        return None
    inverse = Interval(down(1.0 / np.sqrt(most), 1.0), up(np.full_like(most, 1.0 / math.sqrt(least)), 1.0 / math.sqrt(least)))
    return product(u, inverse).map(lambda end: end.reshape(dims))


def meeting_ranges(a: Interval, b: Interval | None) -> Interval:
    """What both say, where both say something."""
    if b is None:
        return a
    lo, hi = np.maximum(a.lo, b.lo), np.minimum(a.hi, b.hi)
    return Interval(lo, hi) if (lo <= hi).all() else a


def _spread(lo: Array, hi: Array) -> Array:
    """The least sum of squared distances from the mean, over a box [rows, n]: the least, over all points m, of the distances of m
    from the intervals; convex in m, so that at any m it is no less than f(m) - |f'(m)| times the width of the search."""
    left, right = lo.min(axis=1), hi.max(axis=1)
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        rising = _pull(middle, lo, hi) > 0.0
        left, right = np.where(rising, left, middle), np.where(rising, middle, right)
    middle = 0.5 * (left + right)
    away = np.maximum(np.maximum(lo - middle[:, None], middle[:, None] - hi), 0.0)
    slope = 2.0 * np.abs(_pull(middle, lo, hi))
    return np.asarray(np.maximum((away**2).sum(axis=1) - slope * (hi.max(axis=1) - lo.min(axis=1)), 0.0))


def _pull(m: Array, lo: Array, hi: Array) -> Array:
    """Half the derivative of the sum of squared distances by m."""
    at = m[:, None]
    return np.asarray((np.maximum(at - hi, 0.0) - np.maximum(lo - at, 0.0)).sum(axis=1))


def _centred(x: Array, centred: bool) -> Array:
    return x - x.mean(axis=-1, keepdims=True) if centred else x


def near(case: Case, members: float, scale: Array, centred: bool) -> Tangent | None:
    """The Jacobian at the middle of what the input may be; half of a projection where that is nearer to all of them."""
    where = rows_of(case, members)
    if where is None:
        return None
    dims, n = where
    factor = np.broadcast_to(scale, dims).ravel()
    epsilon, most = float(case.attributes["epsilon"]), float(np.abs(factor).max(initial=0.0))
    least = least_square(case, members, centred) + epsilon
    if least <= 0.0:
        return None
    largest = 1.0 / math.sqrt(least) * (1.0 + 8.0 * EPSILON)
    ball = case.balls[0] if case.balls else None
    bend = math.inf if ball is None else BEND * ball[1] / (math.sqrt(n) * least) * (1.0 + 8.0 * EPSILON)
    if ball is None or bend > 0.5 * largest:
        return Tangent(_map(np.zeros((factor.size // n, n)), 0.5 * largest, factor, centred), None, 0.5 * largest * most)
    u = _centred(ball[0].reshape(-1, n), centred)
    s = np.sqrt((u * u).mean(axis=1, keepdims=True) + epsilon)
    return Tangent(_map(u / s, 1.0 / s, factor, centred), None, bend * most)


def _map(z: Array, inverse: Array | float, factor: Array, centred: bool) -> LinearMap:
    """diag(factor) (P - z z^T / n) inverse, row by row."""
    rows, n = z.shape

    def projected(t: Array) -> Array:
        t = _centred(t.reshape(len(t), rows, n), centred)
        return np.asarray(((t - z * (t * z).mean(axis=-1, keepdims=True)) * inverse).reshape(len(t), -1))

    norm = float(np.abs(factor).max(initial=0.0) * np.max(inverse)) * (1.0 + 16.0 * EPSILON)
    return LinearMap(lambda t: projected(t) * factor, lambda g: projected(g * factor), norm, 16.0 * (n + 8) * EPSILON * norm)
