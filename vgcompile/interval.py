"""Closed intervals on arrays, rounded outward: the only interval arithmetic in the project.

An interval bounds every element of a tensor: ``lo[i] <= x[i] <= hi[i]``, with ``lo`` and ``hi`` float64 arrays that broadcast
against the tensor's shape (a batch axis has extent 1: the bound holds for every sample). Infinite ends are allowed, NaN is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# NumPy's and SciPy's transcendental functions are good to a few units in the last place; eight is outside of all of them.
ULPS = 8.0
EPSILON = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)
LARGEST = float(np.finfo(np.float64).max)
# Stands for an infinite argument where a formula gives NaN at infinity: finite, so that 0 * x stays 0.
HUGE = 1e300


def down(x: Array, scale: Array | float = 0.0) -> Array:
    """Round toward minus infinity past the error of a few floating-point operations on numbers as large as ``scale``.

    A lower end that overflowed to infinity becomes the largest double: what overflowed is at least that.
    """
    x = np.minimum(x, LARGEST)
    with np.errstate(over="ignore"):
        return np.asarray(np.nextafter(x - ULPS * EPSILON * np.maximum(np.abs(x), scale) - TINY, -np.inf))


def up(x: Array, scale: Array | float = 0.0) -> Array:
    """Round toward plus infinity; see :func:`down`."""
    x = np.maximum(x, -LARGEST)
    with np.errstate(over="ignore"):
        return np.asarray(np.nextafter(x + ULPS * EPSILON * np.maximum(np.abs(x), scale) + TINY, np.inf))


@dataclass(frozen=True)
class Interval:
    """``[lo, hi]``, elementwise. Raises ValueError for NaN or crossed ends."""

    lo: Array
    hi: Array

    def __post_init__(self) -> None:
        if not (self.lo <= self.hi).all():  # NaN is not
            raise ValueError("an interval needs lo <= hi and no NaN")

    @property
    def magnitude(self) -> Array:
        """max |x| over the interval, elementwise."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    @property
    def mignitude(self) -> Array:
        """min |x| over the interval, elementwise: 0 where it contains 0."""
        inside = (self.lo <= 0) & (self.hi >= 0)
        return np.where(inside, 0.0, np.minimum(np.abs(self.lo), np.abs(self.hi)))

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.lo).all() and np.isfinite(self.hi).all())

    def contains(self, x: Array) -> bool:
        return bool((self.lo <= x).all() and (x <= self.hi).all())

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def scalar(self) -> Interval:
        """One interval of shape () for every element: what is left when a layout can no longer be followed."""
        return Interval(np.asarray(self.lo.min()), np.asarray(self.hi.max()))

    def map(self, f: Callable[[Array], Array]) -> Interval:
        """Move the ends by a rearrangement ``f`` (reshape, transpose, slice), which rounds nothing."""
        return Interval(np.asarray(f(self.lo)), np.asarray(f(self.hi)))


def interval(lo: Any, hi: Any) -> Interval:
    """An interval from anything that NumPy takes as float64 arrays."""
    return Interval(np.asarray(lo, np.float64), np.asarray(hi, np.float64))


def point(x: Any) -> Interval:
    """The interval that holds one known array."""
    array = np.asarray(x, np.float64)
    return Interval(array, array)


WHOLE = interval(-np.inf, np.inf)


def image(
    f: Callable[[Array], Array],
    x: Interval,
    turns: Sequence[float] = (),
    domain: tuple[float, float] = (-np.inf, np.inf),
    exact: bool = False,
) -> Interval:
    """The range of a function on ``x``, given every point where it turns or jumps.

    ``f`` is evaluated at both ends and, where they lie inside, at each turn and just beside it (so that a jump shows both its
    sides). Between two neighbouring points of that list ``f`` must be monotone. The bound speaks of the part of ``x`` that
    lies in ``domain``, where ``f`` is defined; where none of it does, it is infinite. It is rounded outward by the error of
    ``f``'s intermediate terms, taken to be of the order of 1 and of ``f`` itself; of an ``exact`` f nothing is rounded.
    """
    lo, hi = np.maximum(x.lo, domain[0]), np.minimum(x.hi, domain[1])
    points = [lo, hi]
    for turn in turns:
        for near in (np.nextafter(turn, -np.inf), turn, np.nextafter(turn, np.inf)):
            inside = (lo <= near) & (near <= hi)
            if inside.any():
                points.append(np.where(inside, near, lo))
    values = np.where(lo <= hi, _limit(f, np.stack(points)), np.nan)
    if exact and not np.isnan(values).any():
        return Interval(values.min(axis=0), values.max(axis=0))
    return _enclose(values, 1.0)


def _limit(f: Callable[[Array], Array], x: Array) -> Array:
    """``f(x)``; at an infinite argument the limit, read far out where the formula itself says NaN."""
    with np.errstate(all="ignore"):
        y = np.broadcast_to(np.asarray(f(x), np.float64), x.shape)
        if not (unknown := np.isnan(y)).any():
            return y
        return np.where(unknown & np.isinf(x), f(np.clip(x, -HUGE, HUGE)), y)


def _enclose(values: Array, scale: float = 0.0) -> Interval:
    """The interval over the first axis of ``values``, rounded outward; NaN makes it infinite on both sides."""
    lo, hi = values.min(axis=0), values.max(axis=0)
    if (unknown := np.isnan(lo)).any():  # NaN is passed on by both
        lo, hi = np.where(unknown, -np.inf, lo), np.where(unknown, np.inf, hi)
    return Interval(down(lo, scale), up(hi, scale))


def corners(f: Callable[..., Array], operands: Sequence[Interval]) -> Interval:
    """The range of a function that is monotone in each operand taken alone: its extremes lie at corners of the box.

    A corner that is NaN (0 * inf, inf - inf) makes the bound infinite on both sides.
    """
    values = []
    with np.errstate(all="ignore"):
        for choice in np.ndindex(*(2,) * len(operands)):
            values.append(f(*(x.hi if high else x.lo for x, high in zip(operands, choice, strict=True))))
    alike = len({np.shape(value) for value in values}) == 1
    return _enclose(np.stack(values if alike else np.broadcast_arrays(*values)))


def total(a: Interval, b: Interval) -> Interval:
    """``a + b``."""
    with np.errstate(over="ignore"):
        return corners(np.add, [a, b]) if not (a.bounded and b.bounded) else Interval(down(a.lo + b.lo), up(a.hi + b.hi))


def product(a: Interval, b: Interval) -> Interval:
    """``a * b``. An infinite end is a limit and never a value, so 0 times it is 0."""

    def times(x: Array, y: Array) -> Array:
        return np.where((x == 0.0) | (y == 0.0), 0.0, x * y)

    return corners(times, [a, b])


def matmul(x: Interval, w: Array) -> Interval:
    """``x @ w`` for a known matrix ``w`` [K, M] and ``x`` [..., K]: each output is an interval dot product.

    Two dot products are each off by at most K units in the last place of sum |x||w| (Higham 2002, eq. 3.5), and middle and radius
    by one of |x|; twice as much widens it.
    """
    if not x.bounded:
        return _matmul_unbounded(x, w)
    middle, size = (0.5 * x.lo + 0.5 * x.hi) @ w, np.abs(w)
    radius = (0.5 * x.hi - 0.5 * x.lo) @ size + ((w.shape[0] + 4) * 2.0 * EPSILON * (x.magnitude @ size) + TINY)
    return Interval(middle - radius, middle + radius)


def _matmul_unbounded(x: Interval, w: Array) -> Interval:
    """An infinite operand makes each output that uses it infinite; a zero weight does not use it."""
    known = np.where(np.isfinite(x.lo), x.lo, np.where(np.isfinite(x.hi), x.hi, 0.0))
    finite = Interval(np.where(np.isfinite(x.lo), x.lo, known), np.where(np.isfinite(x.hi), x.hi, known))
    low, high = np.isneginf(x.lo).astype(float), np.isposinf(x.hi).astype(float)
    rest = matmul(finite, w)
    falls = (low @ (w > 0) + high @ (w < 0)) > 0
    rises = (high @ (w > 0) + low @ (w < 0)) > 0
    return Interval(np.where(falls, -np.inf, rest.lo), np.where(rises, np.inf, rest.hi))
