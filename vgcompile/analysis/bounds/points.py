"""Values that are known to a few digits less than a double holds: a point, and how far in the l2 norm one sample may be from it.

Where a network contracts, all inputs of the stated set end up at one point, and which of them it was no longer matters. From
there on |f(x) - f(c)| <= sum of the operands' ||J_i|| r_i (the mean value theorem on a convex set), with the certified norm that
the operator's own factor needs anyway, says as much as all that is known of the inputs, at the cost of one evaluation. Where it
no longer does, the other domains begin anew from the range that it left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.bounds.zonotope import Step, around, clipped, flat, met
from vgcompile.interval import EPSILON, TINY, Array, Interval

CERTAIN = 1e-10  # of a value, or of 1: what is known so well is followed as a point,
KEPT = 1e-8  # as long as rounding and norms leave it as well known as that

Norm = Callable[[int], float]  # of the Jacobian by the input at a position, from above


@dataclass
class Points:
    """The values that are known so well, each with its point [n] and its radius."""

    known: dict[ir.Value, tuple[Array, float]] = field(default_factory=dict)

    def enter(self, value: ir.Value, bound: Interval, size: int) -> None:
        """A value that others have found in a range as narrow as that."""
        if is_certain(bound) and bound.lo.size in (1, size):
            lo, hi = flat(bound.lo, size), flat(bound.hi, size)
            middle = 0.5 * (lo + hi)
            self.known[value] = middle, length(np.maximum(hi - middle, middle - lo))

    def ball(self, value: ir.Value, bound: Interval) -> tuple[Array, float] | None:
        """Around the point, with all of its value's range in it: segments from there, and from any other domain's centre, stay
        inside."""
        if value not in self.known:
            return None
        centre, _ = self.known[value]
        lo, hi = flat(bound.lo, len(centre)), flat(bound.hi, len(centre))
        return centre, length(np.maximum(hi - centre, centre - lo))

    def step(self, node: Step, bound: Callable[[], Interval], norm: Norm) -> Interval | None:
        """The range of a node's output; None where it is not known so well. What its row says of it, ``bound``, is asked for
        where that may say more: a linear map takes every value."""
        given = {position: self.known[value] for position, value in node.operands.items() if value in self.known}
        if not given or len(given) < len(node.operands):
            return None
        near = [node.tangent(position) for position in given]
        found = node.at_centre({position: centre for position, (centre, _) in given.items()})
        if found is None or not all(near):
            return None
        centre, off = found
        moved = sum(norm(position) * radius for position, (_, radius) in given.items())
        radius = (moved + length(off)) * (1.0 + (len(given) + 4) * EPSILON) + TINY
        if not np.isfinite(radius):
            return None
        narrow = around(centre, radius, node.case)
        if any(each is not None and (each.slopes is not None or each.ball) for each in near):
            narrow = met(bound(), narrow)
        if not is_certain(narrow, KEPT):
            return None
        self.known[node.value] = clipped(centre, narrow), radius
        return narrow


def is_certain(bound: Interval, share: float = CERTAIN) -> bool:
    return bound.bounded and bool((bound.hi - bound.lo <= share * (1.0 + bound.magnitude)).all())


def length(x: Array) -> float:
    """The l2 norm, rounded up."""
    return float(np.linalg.norm(x)) * (1.0 + (len(x) + 4) * EPSILON)
