"""Values within an ellipsoid of what the inputs may be: the l2 form of the mean-value form.

What :mod:`vgcompile.analysis.bounds.latents` does for adjoints it does for differences v(x) - v(c) as well, with the input's
difference in the place of the seed. Each element is bounded twice: by the ellipsoid's extent along it, and by the dual norm of
its row of the centre product P plus what the rest may add to it. In many dimensions this is far below the box of a zonotope,
whose errors add up in absolute value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.bounds.latents import Adjoint, Latents
from vgcompile.analysis.bounds.points import is_certain, length
from vgcompile.analysis.bounds.region import InputSet
from vgcompile.analysis.bounds.zonotope import LARGEST, Step, Zonotopes, around, clipped, flat, met, middle_and_radius
from vgcompile.interval import EPSILON, TINY, Array, Interval
from vgcompile.ops.op import Tangent

MOST_NUMBERS = 2048  # uncertain numbers at once
MOST_WORK = 1e10  # multiply-adds on one piece


@dataclass
class Reach:
    """``left`` counts the uses of each value that are still to come, to know when all that is left follows from one."""

    left: Counter[ir.Value]
    inputs: Zonotopes
    latents: Latents | None = None
    centres: dict[ir.Value, Array] = field(default_factory=dict)
    known: dict[ir.Value, Adjoint] = field(default_factory=dict)

    def enter(self, given: Mapping[ir.Value, tuple[InputSet, int]]) -> None:
        """The inputs that the zonotopes follow, their numbers in one ball."""
        scales = []
        for start, stop, round_ball in self.inputs.inputs:
            scales += [1.0 if round_ball else np.sqrt(stop - start)] * (stop - start)
        if not scales:
            return
        entered = {value: self.inputs.known[value] for value in given if value in self.inputs.known}
        whole = np.concatenate([each.rows.T for each in entered.values()])
        reach = np.abs(whole).sum(axis=1) * np.asarray(scales) * np.sqrt(len(entered)) * (1.0 + 8.0 * EPSILON)
        self.latents = Latents(np.diag(reach**2 * (1.0 + 4.0 * EPSILON)), whole, np.zeros((len(whole), 0)))
        start = 0
        for value, affine in entered.items():
            size = len(affine.centre)
            self.centres[value], self.known[value] = affine.centre, Adjoint(np.eye(len(whole))[start : start + size])
            start += size

    def step(self, node: Step, bound: Interval) -> Interval:
        """The range of a node's output, given what is known of it."""
        if self.latents is None:
            return bound
        certain = is_certain(bound)
        with np.errstate(over="ignore", invalid="ignore"):
            made = self._mapped(node) if self._affords(node) and not certain else None
            made = made or (self._fresh(node.size, bound) if self._affords(node) else None)
        self.passed(node)
        if made is None:
            return bound
        centre, difference = made
        if not certain:
            bound = self._narrowed(node, bound, centre, difference)
        settled = clipped(centre, bound)
        self.centres[node.value] = settled
        moved = self.latents.relative(length(settled - centre))
        self._keep(node.value, replace(difference, slack=difference.slack + moved))
        return bound

    def begin(self, value: ir.Value, bound: Interval, size: int) -> None:
        """A value that another domain has followed up to here."""
        if self.latents is not None and value not in self.known and (made := self._fresh(size, bound)) is not None:
            self.centres[value], self.known[value] = made

    def passed(self, node: Step) -> None:
        """One use of each operand is behind us."""
        for value in node.operands.values():
            self.left[value] -= 1
            if not self.left[value]:
                self.known.pop(value, None)

    def _narrowed(self, node: Step, bound: Interval, centre: Array, difference: Adjoint) -> Interval:
        with np.errstate(over="ignore", invalid="ignore"):
            radius = self._radius(difference)
        if not np.isfinite(radius).all():
            return bound
        return met(bound, around(centre, radius, node.case))

    def _affords(self, node: Step) -> bool:
        return self.latents is not None and node.size <= LARGEST and self.latents.work <= MOST_WORK

    def _fresh(self, size: int, bound: Interval) -> tuple[Array, Adjoint] | None:
        """Nothing but its range: all that it may be is left out of the ellipsoid."""
        assert self.latents is not None
        if not bound.bounded or bound.lo.size not in (1, size):
            return None
        lo, hi = flat(bound.lo, size), flat(bound.hi, size)
        middle = 0.5 * (lo + hi)
        away = self.latents.relative(length(np.maximum(hi - middle, middle - lo)))
        made = Adjoint(np.zeros((size, len(self.latents.base))), away)
        return (middle, made) if self.latents.holds(made) else None

    def ball(self, value: ir.Value) -> tuple[Array, float] | None:
        """A point, and how far in the l2 norm the value may be from it."""
        if self.latents is None or value not in self.known:
            return None
        return self.centres[value], self._absolute(self.latents.norm(self.known[value]))

    def _keep(self, value: ir.Value, difference: Adjoint) -> None:
        """Where all else follows from this value alone, what lies behind it is forgotten."""
        assert self.latents is not None
        if not self.left[value]:
            return
        if not self.known and len(difference.map) < self.latents.size:
            self.latents, difference = self.latents.rebased(difference)
        self.known[value] = difference

    def _mapped(self, node: Step) -> tuple[Array, Adjoint] | None:
        near = {position: node.tangent(position) for position in node.operands}
        if any(value not in self.known for value in node.operands.values()) or not near:
            return None
        if any(each is None for each in near.values()):
            return None
        found = node.at_centre({position: self.centres[value] for position, value in node.operands.items()})
        if found is None:
            return None
        centre, off = found
        assert self.latents is not None
        total = None
        for position, value in node.operands.items():
            part = self._pushed(self.known[value], near[position])
            if part is None:
                return None
            total = part if total is None else self.latents.sum(total, part)
        assert total is not None
        total = replace(total, slack=total.slack + self.latents.relative(length(off)))
        return (centre, total) if self.latents.holds(total) else None

    def _pushed(self, u: Adjoint, near: Tangent | None) -> Adjoint | None:
        assert near is not None and self.latents is not None
        moved = near.map.push(np.ascontiguousarray(u.map.T)).T
        self.latents.work += float(moved.size) * len(u.map)
        through = self.latents.mapped(u, moved, near.map.error, near.map.norm)
        if near.slopes is not None:
            if not near.slopes.bounded:
                return None
            centre, radius = middle_and_radius(near.slopes)
            if self.latents.size + np.count_nonzero(radius) > MOST_NUMBERS:
                return None
            through = self.latents.uncertain(through, centre, radius)
        if not near.ball:
            return through
        if self.latents.size + len(through.map) > MOST_NUMBERS:
            return None
        return self.latents.sum(through, self.latents.bounded(u, len(through.map), near.ball))

    def _radius(self, v: Adjoint) -> Array:
        """An upper bound of each element's difference."""
        assert self.latents is not None
        extent = self.latents.extent(v)
        centre = self.latents.middle(v)
        if centre is None:
            return np.asarray(self._absolute(1.0) * extent)
        direct = self.inputs.radius(centre.T) + self.latents.deviations(v)
        return np.asarray(self._absolute(1.0) * np.minimum(extent, direct))

    def _absolute(self, length: float) -> float:
        """A length that is in the units of the ellipsoid."""
        assert self.latents is not None
        return float(np.ldexp(length, self.latents.exponent)) * (1.0 + EPSILON) + TINY
