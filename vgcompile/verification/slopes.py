"""Directional derivatives from one-sided differences, and whether a gradient agrees with them.

For a direction v and a step h the slopes (f(x + hv) - f(x)) / h and (f(x) - f(x - hv)) / h are each extrapolated from h and h/2
(Richardson). Where the two sides agree the function is smooth there and their mean is its derivative. Where they do not, x sits
on a kink (both are finite) or on a jump (one is not).
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


BEND = 100.0  # times what two sides may be apart: how far two steps may be, whose error then cancels
PLAY = 1e-3


@dataclass(frozen=True)
class Slopes:
    """The outputs' slopes on both sides, and ``central`` where these are one; ``noise`` is what rounding leaves of a slope in
    doubt."""

    left: Array
    right: Array
    central: Array
    noise: Array
    smooth: bool

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.left).all() and np.isfinite(self.right).all())

    def along(self, g: Array) -> tuple[float, float]:
        """The least and the most that <g, df/dv> can be: one number where the function is smooth."""
        if self.smooth:
            there = float((g * self.central).sum())
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

    def quotients(step: float) -> tuple[Array, Array]:
        """From the step and from half of it; infinite where they grow as it shrinks: at a jump, or a root's zero."""
        far, near = (along(step) - base) / step, (along(step / 2) - base) / (step / 2)
        growing = (np.abs(near) > 1.25 * np.abs(far)) & (np.abs(near - far) * h > 1e-3 * (np.abs(base) + h))
        return np.where(growing, np.inf, far), np.where(growing, np.inf, near)

    with np.errstate(all="ignore"):
        (far_right, right), (far_left, left) = quotients(h), quotients(-h)
        central, far = (right + left) / 2.0, (far_right + far_left) / 2.0
        right, left = 2.0 * right - far_right, 2.0 * left - far_left
        right, left = (
            np.where(np.isnan(side) & np.isinf(raw), np.inf, side) for side, raw in ((right, far_right), (left, far_left))
        )
        noise = 32.0 * precision.epsilon * (np.abs(base) + 1e-3) / h
        scale = np.maximum(np.abs(left), np.abs(right))
        room = precision.kink * (scale + (scale.mean() if scale.size else 0.0)) + noise
        near = (np.abs(left - right) <= room) & (np.abs(central - far) <= BEND * room)
        central = (4.0 * central - far) / 3.0
    smooth = bool(near.all()) and bool(np.isfinite(left).all() and np.isfinite(right).all())
    return Slopes(left, right, central, noise, smooth)


SHRINK = 10.0  # from one step to the next
STEPS = 6
SETTLED = 0.1  # how much the gap between the two sides of a kink may change from one step to the next


def settled(along: Callable[[float], Array], h: float, precision: Precision) -> Slopes | None:
    """The slopes at the first of ever smaller steps at which the function is smooth; at a kink, those of the smallest.

    None where they do not settle: the function bends within the smallest step, or rounding drowns it.
    """
    found = slopes(along, h, precision)
    if precision is not DOUBLE:
        return found
    kink = None
    for _ in range(STEPS - 1):
        if found.smooth:
            return found
        h, last = h / SHRINK, found
        found = slopes(along, h, precision)
        if last.finite and found.finite and not found.smooth and _same(last, found):
            kink = found
    if found.smooth or not found.finite:
        return found
    return kink


def _same(last: Slopes, found: Slopes) -> bool:
    """Whether two readings of a kink are of one kink: the gap between its sides, and the sides, stay."""
    noise = last.noise + found.noise
    gap = np.abs(found.right - found.left)
    room = SETTLED * gap + noise
    pairs = ((np.abs(last.right - last.left), gap), (last.left, found.left), (last.right, found.right))
    scale = PLAY * (np.abs(found.left) + np.abs(found.right))
    return all(bool((np.abs(a - b) <= room + scale).all()) for a, b in pairs)
