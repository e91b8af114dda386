"""Intervals of log10, rounded outward: sums, roots of squares and intersections of bounds, so that 1e-400 survives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

ROUNDING = 1e-12  # outward widening of each log10, far above the error of log10 and of one addition

Bounds = tuple[float, float]  # lo and hi of a log10; lo may be -inf (nothing from below), hi may be inf
UNKNOWN: Bounds = (-math.inf, math.inf)


def log_of(lo: float, hi: float) -> Bounds:
    """The log10 of an interval of numbers that are not negative."""
    return (math.log10(lo) - ROUNDING if lo > 0 else -math.inf, math.log10(hi) + ROUNDING if hi > 0 else -math.inf)


def minus(a: float, b: float) -> float:
    """A lower bound of a - b; -inf where an end is infinite."""
    return a - b - ROUNDING if math.isfinite(a) and math.isfinite(b) else -math.inf


def times(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of a product; what is nothing stays nothing, whatever it meets."""
    dead = -math.inf in (a[1], b[1])
    return (a[0] + b[0], -math.inf if dead else a[1] + b[1])


def meet(a: Bounds, b: Bounds) -> Bounds:
    """The intersection of two bounds of one number: of ends that cross by rounding alone, each as it was."""
    lo, hi = max(a[0], b[0]), min(a[1], b[1])
    return (lo, hi) if lo <= hi else a


def join(a: Bounds, b: Bounds) -> Bounds:
    """What holds on the union of two sets."""
    return (min(a[0], b[0]), max(a[1], b[1]))


def beside(parts: Sequence[Bounds]) -> Bounds:
    """Bounds of the norm of several adjoints side by side: the root of the sum of their squares."""
    if len(parts) == 1:
        return parts[0]
    least, most = (_root_of_squares([part[end] for part in parts]) for end in (0, 1))
    return (least - ROUNDING, most + ROUNDING)


def _root_of_squares(logs: Sequence[float]) -> float:
    top = max(logs)
    return top if math.isinf(top) else top + 0.5 * math.log10(sum(100.0 ** (log - top) for log in logs))


def combine(parts: Iterable[Bounds]) -> Bounds:
    """Bounds of the norm of a sum, from bounds of its terms: the triangle inequality, both ways."""
    (lo, top), *others = sorted(parts, key=lambda part: part[1], reverse=True)
    if not others:
        return (lo, top)
    if math.isinf(top):
        return (-math.inf, top)
    # Summed without the largest, of which the rest may be less than one part in 1e16.
    rest = sum(10.0 ** (hi - top) for _, hi in others)
    least = 10.0 ** (lo - top) - rest * (1.0 + 1e-12)
    return (top + math.log10(least) - ROUNDING if least > 0 else -math.inf, top + math.log10(1.0 + rest) + ROUNDING)
