"""Directional derivatives from one-sided differences, and whether a gradient agrees with them.

For a direction v and a step h the slopes (f(x + hv) - f(x)) / h and (f(x) - f(x - hv)) / h are each extrapolated from h and h/2
(Richardson). Where the two sides agree the function is smooth there and their mean is its derivative. Where they do not, x sits
on a kink (both are finite) or on a jump (one is not, or the value is not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Precision:
    """How a function was evaluated, and what may be asked of its differences."""

    name: str
    step: float  # of the size of what is moved
    kink: float  # one-sided slopes farther apart than this, relative to the larger, are two slopes
    epsilon: float
    tolerance: float  # what a derivative taken so is good to, relatively


DOUBLE = Precision("float64", 1e-5, 1e-5, 2.3e-16, 1e-7)
SINGLE = Precision("float32", 1e-2, 2e-2, 1.2e-7, 2e-2)


@dataclass(frozen=True)
class Slopes:
    """The outputs' slopes on both sides, end to end; ``noise`` is what rounding leaves of a slope in doubt."""

    left: Array
    right: Array
    noise: Array
    smooth: bool

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.left).all() and np.isfinite(self.right).all())

    def along(self, g: Array) -> tuple[float, float]:
        """The least and the most that <g, df/dv> can be: one number where the function is smooth."""
        if self.smooth:
            there = float((g * (self.left + self.right)).sum() / 2.0)
            return there, there
        sides = np.stack([g * self.left, g * self.right])
        return float(sides.min(axis=0).sum()), float(sides.max(axis=0).sum())


def size_of(x: Array) -> float:
    """The root mean square of what is finite, within reason; 1 where that is 0."""
    finite = x[np.isfinite(x)]
    size = float(np.sqrt((finite * finite).mean())) if finite.size else 0.0
    return min(max(size, 1e-3), 1e3) if size > 0 else 1.0


def slopes(along: Callable[[float], Array], h: float, precision: Precision) -> Slopes:
    """``along(t)`` is f(x + tv), flat; NaN where it cannot be evaluated."""
    base = along(0.0)

    def slope(step: float) -> Array:
        return (along(step) - base) / step

    with np.errstate(all="ignore"):
        right = 2.0 * slope(h / 2) - slope(h)
        left = 2.0 * slope(-h / 2) - slope(-h)
        noise = 32.0 * precision.epsilon * (np.abs(base) + 1e-3) / h
        scale = np.maximum(np.abs(left), np.abs(right))
        near = np.abs(left - right) <= precision.kink * (scale + (scale.mean() if scale.size else 0.0)) + noise
    found = Slopes(left, right, noise, bool(near.all()))
    return found if found.finite else Slopes(left, right, noise, False)
