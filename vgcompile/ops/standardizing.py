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
    found = least_squares(case, members, centred)
    return 0.0 if found is None else float(found.min(initial=math.inf))


def least_squares(case: Case, members: float, centred: bool) -> Array | None:
    """Lower bounds of mean(u^2) over the input's range, row by row; None where the rows are not known."""
    where, bound = rows_of(case, members), case.ranges[0]
    if where is None or bound is None:
        return None
    dims, n = where
    found = np.zeros(math.prod(dims) // n)
    box = _box(bound, dims, n)
    if box is not None:
        lo, hi = box
        found = (_spread(lo, hi) if centred else (Interval(lo, hi).mignitude ** 2).sum(axis=1)) / n
    if case.balls and (ball := case.balls[0]) is not None:
        u = _centred(ball[0].reshape(-1, n), centred)
        length = np.maximum(np.sqrt((u * u).sum(axis=1)) * (1.0 - (n + 8) * EPSILON) - _away(case, dims, n), 0.0)
        found = np.maximum(found, length**2 / n)
    return np.asarray(np.maximum(found * (1.0 - 4.0 * (n + 8) * EPSILON), 0.0))


def _box(bound: Interval, dims: tuple[int, ...], n: int) -> tuple[Array, Array] | None:
    """The ends of each row; None where there are none, or too many elements to search."""
    if math.prod(dims) > LARGEST_SEARCHED or not bound.bounded:
        return None
    try:
        lo, hi = (np.broadcast_to(end, dims).reshape(-1, n) for end in (bound.lo, bound.hi))
    except ValueError:
        return None
    return lo, hi


def _away(case: Case, dims: tuple[int, ...], n: int) -> Array:
    """How far each row may be from its share of the ball's centre: no farther than the corners of its box."""
    ball, bound = case.balls[0], case.ranges[0]
    assert ball is not None
    box = None if bound is None else _box(bound, dims, n)
    if box is None:
        return np.full(math.prod(dims) // n, ball[1])
    centre = ball[0].reshape(-1, n)
    corner = np.maximum(np.abs(box[0] - centre), np.abs(box[1] - centre))
    return np.asarray(np.minimum(ball[1], np.sqrt((corner**2).sum(axis=1)) * (1.0 + (n + 8) * EPSILON)))


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
    squares = least_squares(case, members, centred)
    assert squares is not None
    least = down(squares + epsilon)[:, None]
    most = up((u.magnitude**2).mean(axis=1, keepdims=True) + epsilon, float(n))
    if (least <= 0.0).any():
        return None
    inverse = Interval(down(1.0 / np.sqrt(most)), up(1.0 / np.sqrt(least)))
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
    squares = least_squares(case, members, centred)
    if squares is None or (squares + epsilon <= 0.0).any():
        return None
    largest = 1.0 / math.sqrt(float(squares.min()) + epsilon) * (1.0 + 8.0 * EPSILON)
    ball, bend = case.balls[0] if case.balls else None, math.inf
    if ball is not None:
        bend = float((BEND * _away(case, dims, n) / (math.sqrt(n) * (squares + epsilon))).max()) * (1.0 + 8.0 * EPSILON)
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
