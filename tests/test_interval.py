"""Interval arithmetic against exact rationals and against samples: an enclosure is never left, and rounding is always outward."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgcompile.interval import LARGEST, WHOLE, Interval, corners, down, image, interval, matmul, point, product, up

finite = st.floats(-1e6, 1e6)
ends = st.tuples(finite, finite).map(sorted)
open_ends = st.tuples(ends, st.booleans(), st.booleans()).map(
    lambda e: (-math.inf if e[1] else e[0][0], math.inf if e[2] else e[0][1])
)
share = st.floats(0.0, 1.0)


def inside(lo: float, hi: float, t: float) -> float:
    """A number of [lo, hi]; an open end is read as one million beyond the other."""
    lo, hi = (
        (hi if math.isfinite(hi) else 0.0) - 1e6 if math.isinf(lo) else lo,
        (lo if math.isfinite(lo) else 0.0) + 1e6 if math.isinf(hi) else hi,
    )
    return min(max(lo + t * (hi - lo), lo), hi)


@pytest.mark.parametrize(("lo", "hi"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan)])
def test_refuses_what_is_no_interval(lo: float, hi: float) -> None:
    with pytest.raises(ValueError, match="lo <= hi"):
        interval(lo, hi)


@given(st.floats(allow_nan=False))
def test_rounding_is_outward(x: float) -> None:
    assert down(np.asarray(x)) <= min(x, LARGEST)
    assert up(np.asarray(x)) >= max(x, -LARGEST)
    assert not np.isnan([down(np.asarray(x)), up(np.asarray(x))]).any()


@given(open_ends)
def test_magnitude_and_mignitude(e: tuple[float, float]) -> None:
    x = interval(*e)
    assert x.magnitude == max(abs(e[0]), abs(e[1]))
    assert x.mignitude == (0.0 if e[0] <= 0.0 <= e[1] else min(abs(e[0]), abs(e[1])))


@given(ends, ends)
def test_hull_contains_both(a: list[float], b: list[float]) -> None:
    hull = interval(*a).hull(interval(*b))
    assert all(hull.contains(np.asarray(x)) for x in (*a, *b))


@given(ends, ends, share, share)
def test_product_contains_the_exact_product(a: list[float], b: list[float], s: float, t: float) -> None:
    x, y = inside(a[0], a[1], s), inside(b[0], b[1], t)
    bound = product(interval(*a), interval(*b))
    assert Fraction(float(bound.lo)) <= Fraction(x) * Fraction(y) <= Fraction(float(bound.hi))


def test_zero_times_an_open_end_is_zero() -> None:
    bound = product(interval(0.0, math.inf), interval(0.0, 1.0))
    assert -1e-300 < float(bound.lo) <= 0.0
    assert float(bound.hi) == math.inf


@given(open_ends, open_ends, share, share)
def test_corners_contain_a_sum(a: tuple[float, float], b: tuple[float, float], s: float, t: float) -> None:
    bound = corners(np.add, [interval(*a), interval(*b)])
    assert bound.contains(np.asarray(inside(*a, s) + inside(*b, t)))


FUNCTIONS: list[tuple[str, Callable[[Any], Any], list[float], tuple[float, float]]] = [
    ("square", np.square, [0.0], (-math.inf, math.inf)),
    ("sign", np.sign, [0.0], (-math.inf, math.inf)),
    ("reciprocal", lambda x: 1.0 / x, [0.0], (-math.inf, math.inf)),
    ("sigmoid slope", lambda x: 0.25 / np.cosh(x / 2.0) ** 2, [0.0], (-math.inf, math.inf)),
    ("x / (1 + |x|)", lambda x: x / (1.0 + np.abs(x)), [], (-math.inf, math.inf)),
    ("square root", np.sqrt, [], (0.0, math.inf)),
    ("logarithm", np.log, [], (0.0, math.inf)),
]


@pytest.mark.parametrize(("f", "turns", "domain"), [entry[1:] for entry in FUNCTIONS], ids=[entry[0] for entry in FUNCTIONS])
@given(e=open_ends, t=share)
def test_image_contains_the_values(
    f: Any, turns: list[float], domain: tuple[float, float], e: tuple[float, float], t: float
) -> None:
    x = inside(*e, t)
    bound = image(f, interval(*e), turns, domain)
    with np.errstate(all="ignore"):
        y = f(np.asarray(x))
    assert np.isnan(y) or bound.contains(y)


def test_image_shows_both_sides_of_a_jump_and_the_limits() -> None:
    assert image(np.sign, interval(-1.0, 1.0), [0.0]).contains(np.array([-1.0, 0.0, 1.0]))
    softsign = image(lambda x: x / (1.0 + np.abs(x)), WHOLE)
    assert (float(softsign.lo), float(softsign.hi)) == pytest.approx((-1.0, 1.0), abs=1e-12)
    exponential = image(np.exp, interval(800.0, 900.0))
    assert float(exponential.lo) > 1e308
    assert float(exponential.hi) == math.inf
    assert image(np.log, interval(-2.0, -1.0), domain=(0.0, math.inf)).lo == -math.inf


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_matmul_contains_every_product(k: int, m: int, seed: int, opened: bool) -> None:
    rng = np.random.default_rng(seed)
    lo, hi = np.sort(rng.normal(size=(2, 3, k)) * 10.0 ** rng.integers(-8, 9), axis=0)
    w = rng.normal(size=(k, m)) * (rng.uniform(size=(k, m)) > 0.3)
    x = lo + rng.uniform(size=lo.shape) * (hi - lo)
    given_ = Interval(
        np.where(opened & (rng.uniform(size=lo.shape) < 0.3), -np.inf, lo),
        np.where(opened & (rng.uniform(size=lo.shape) < 0.3), np.inf, hi),
    )
    bound = matmul(given_, w)
    exact = [[sum(Fraction(a) * Fraction(b) for a, b in zip(row, column, strict=True)) for column in w.T] for row in x]
    for i in range(3):
        for j in range(m):
            assert bound.lo[i, j] <= exact[i][j] <= bound.hi[i, j]


def test_matmul_of_a_point_is_tight() -> None:
    x, w = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0], [-1.0], [0.5]])
    bound = matmul(point(x), w)
    assert float(bound.hi[0, 0] - bound.lo[0, 0]) < 1e-13


def test_an_unused_open_end_does_not_matter() -> None:
    bound = matmul(interval([[0.0, -math.inf]], [[1.0, math.inf]]), np.array([[2.0], [0.0]]))
    assert bound.contains(np.array([[0.0]]))
    assert bound.bounded
