"""What one operator does near its ranges: the extremes of its own factor, the slopes of an elementwise one, a known linear map
near the Jacobian of any."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from vgcompile.interval import WHOLE, Array, Interval
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.maps import scaled
from vgcompile.ops.op import Attributes, Case, Op, Tangent
from vgcompile.ops.reading import slope_range
from vgcompile.ops.shape import repeats

T = TypeVar("T")
KEPT = 1 << 14  # elements


def tangent(row: Op, case: Case, position: int, unit: float = 0.0) -> Tangent | None:
    """A known linear map near the Jacobian by one input, for one sample; None where there is none."""
    return _once(case, "tangent", position, unit, lambda: _tangent(row, case, position, unit))


def _tangent(row: Op, case: Case, position: int, unit: float) -> Tangent | None:
    try:
        if row.tangent is not None:
            return row.tangent(case, position)
        if not row.derivatives or row.norms is not None:
            return None
        return scaled(case, position, slopes(row, case, position, unit))
    except (NotImplementedError, ValueError):
        return None


def _once(case: Case, what: str, position: int, unit: float, made: Callable[[], T]) -> T:
    """Worked out once, of operands that are small enough to keep what is."""
    small = all(bound is None or bound.lo.size <= KEPT for bound in case.ranges[position : position + 1])
    return case.once(what, position, unit, made) if small else made()


def bounds_differences(row: Op, position: int) -> bool:
    """Whether slopes by this input bound how far the value may move: not where it jumps, nor where no slope is taken of it."""
    if not row.derivatives:
        return row.tangent is not None
    return not row.jumps and row.derivatives[min(position, len(row.derivatives) - 1)] is not None


def slopes(row: Op, case: Case, position: int, unit: float) -> Interval:
    """Every slope on the ranges; with a ``unit``, as a run computes it."""
    return _once(case, "slopes", position, unit, lambda: _slopes(row, case, position, unit))


def _slopes(row: Op, case: Case, position: int, unit: float) -> Interval:
    if row.derivatives[min(position, len(row.derivatives) - 1)] is None:
        return Interval(np.zeros(()), np.zeros(()))
    found = slope_range(NUMPY, row, position, case)
    if not unit or row.linear:
        return found
    return blurred(found, terms(case.ranges[position] or WHOLE, found), unit)


def extremes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    """Extremes of the factor of one use; (0, inf) where the row states nothing. Ranges may have asked for them before."""
    return case.once("extremes", position, unit, lambda: _extremes(row, case, position, unit))


def _extremes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    try:
        if row.norms is not None:
            return row.norms(case, position)
        if row.derivatives:
            return _of_slopes(row, case, position, unit)
    except (NotImplementedError, ValueError):
        pass
    return (0.0, math.inf)


def _of_slopes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    """An elementwise Jacobian is diagonal: its extremes are those of |slope|.

    An operand that was broadcast k times collects k adjoints.
    """
    bound = slopes(row, case, position, unit)
    lo, hi = float(bound.mignitude.min()), float(bound.magnitude.max())
    copies = repeats(case, position)
    return (lo, hi) if copies == 1 or hi == 0.0 else (0.0, hi * math.sqrt(copies) * (1.0 + 1e-15))


def slopes_anywhere(operator: str, domain: str, attributes: Attributes) -> tuple[float, float]:
    """The least and the greatest slope that a function of one number takes on the whole line."""
    return _slopes_anywhere(operator, domain, tuple(attributes.items()))


@lru_cache(maxsize=256)
def _slopes_anywhere(operator: str, domain: str, attributes: tuple[tuple[str, Any], ...]) -> tuple[float, float]:
    row = lookup(operator, domain)
    assert row is not None
    found = slope_range(NUMPY, row, 0, Case(dict(attributes), ranges=(WHOLE,)))
    return float(found.lo.min()), float(found.hi.max())


def terms(x: Interval, found: Interval) -> Array:
    """The size of the largest term that a value or slope at ``x`` is computed from: 1, x, or what comes out.

    Rounding of floats is relative to terms, not to their sum: (1 + erf) / 2, and the rational approximation 1/2 + r(x) by which
    runtimes evaluate a sigmoid, are off by a unit of 1 however small they are, and the x sigmoid(x) of them by one of x (Higham
    2002, section 3.1: |error| <= n u sum |terms|).
    """
    known = np.where(np.isfinite(x.magnitude), x.magnitude, 0.0)
    return np.asarray(np.maximum(np.maximum(found.magnitude, 1.0), known))


def blurred(x: Interval, scale: Array, unit: float) -> Interval:
    """``x`` widened by ``unit`` times ``scale``."""
    return Interval(x.lo - unit * scale, x.hi + unit * scale) if unit else x
