"""Values as known linear maps of what the inputs may be: the mean-value form, with its errors as numbers of their own.

On one piece of the region an input is c + R w, with w in a unit ball, and v(x) - c_v = P_v w + M_v e, |e_j| <= 1, for a point c_v
near v(c). Linear operators map both exactly; an elementwise one multiplies each difference by a slope between its least and
greatest one on the range (the mean value theorem, number by number), the middle of which is kept and the rest made a new number
(affine arithmetic; Stolfi and de Figueiredo 1997). Then |v_i(x) - c_v,i| <= ||row i of P|| in the dual norm + sum |row i of M|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.bounds.region import InputSet
from vgcompile.interval import EPSILON, TINY, Array, Interval, down, point, up
from vgcompile.ops.maps import IDENTITY
from vgcompile.ops.op import Case, Tangent

LARGEST = 1024  # elements of a value, and of an input
MOST_NUMBERS = 2048  # beyond them a value's own numbers are gathered into one for each element
MOST_WORK = 1e10  # multiply-adds on one piece
ROUNDED = 1e-9  # of a length: what is no more than that beside it passes for rounding


@dataclass(frozen=True)
class Affine:
    """``centre`` [n] is a point near v(c). Row j of ``rows`` [K + k, n] is what number j moves: the first K are the inputs', the
    further ones have ``ids`` [k]. ``slack`` [n] is left out of all of them. |v - centre| <= ``radius`` [n]."""

    centre: Array
    rows: Array
    ids: Array
    slack: Array
    radius: Array


@dataclass
class Zonotopes:
    """The values that are followed; ``inputs`` are the segments of each input's numbers, and whether they lie in an l2 ball."""

    known: dict[ir.Value, Affine] = field(default_factory=dict)
    inputs: list[tuple[int, int, bool]] = field(default_factory=list)
    numbers: int = 0  # that were given out, beside the inputs'
    work: float = 0.0

    def enter(self, given: Mapping[ir.Value, tuple[InputSet, int]]) -> None:
        """The inputs, each with its number of elements; one of unbounded range, or of too many elements, is not followed."""
        whole = sum(size for where, size in given.values() if where.box.bounded)
        if whole > LARGEST:
            return
        start = 0
        for value, (where, size) in given.items():
            if not where.box.bounded:
                continue
            lo, hi = (flat(end, size) for end in (where.box.lo, where.box.hi))
            middle = 0.5 * (lo + hi) if where.ball is None else where.ball.centre.ravel()
            reach = np.maximum(hi - middle, middle - lo) * (1.0 + 2.0 * EPSILON)
            rows = np.zeros((whole, size))
            rows[start + np.arange(size), np.arange(size)] = reach
            self.inputs.append((start, start + size, where.ball is not None and where.ball.norm == "l2"))
            self.known[value] = Affine(middle, rows, np.zeros(0, np.int64), np.zeros(size), reach)
            start += size

    @property
    def own(self) -> int:
        """How many numbers are the inputs'."""
        return self.inputs[-1][1]

    def radius(self, rows: Array) -> Array:
        """An upper bound of what all numbers together move each element by."""
        total = np.abs(rows[self.own :]).sum(axis=0)
        for start, stop, round_ball in self.inputs:
            part = rows[start:stop]
            total = total + (np.sqrt((part * part).sum(axis=0)) if round_ball else np.abs(part).sum(axis=0))
        return np.asarray(total * (1.0 + (len(rows) + 8) * EPSILON) + TINY)

    def step(self, node: Step, bound: Interval) -> Interval:
        """The range of a node's output, given what its row says of it."""
        if not self.inputs or node.size > LARGEST or self.work > MOST_WORK:
            return bound
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._mapped(node)
        if found is None or not np.isfinite(found.radius).all():
            found = self._fresh(bound, node.size)
        if found is None or not np.isfinite(found.radius).all():
            return bound
        self.known[node.value] = found
        return met(bound, around(found.centre, found.radius, node.case))

    def begin(self, value: ir.Value, bound: Interval, size: int) -> None:
        """A value that another domain has followed up to here."""
        if value not in self.known and self.inputs and (made := self._fresh(bound, size)) is not None:
            self.known[value] = made

    def settle(self, value: ir.Value, bound: Interval) -> None:
        """Move a centre into the range that was found in the end, where slopes are taken."""
        if (affine := self.known.get(value)) is not None:
            centre = clipped(affine.centre, bound)
            if (moved := np.abs(centre - affine.centre)).any():
                self.known[value] = self._with(replace(affine, centre=centre), moved)

    def _fresh(self, bound: Interval, size: int) -> Affine | None:
        """Nothing but its range: one number for each element."""
        if not bound.bounded or bound.lo.size not in (1, size):
            return None
        lo, hi = (flat(end, size) for end in (bound.lo, bound.hi))
        middle, nothing = 0.5 * (lo + hi), np.zeros(size)
        known = Affine(middle, np.zeros((self.own, size)), np.zeros(0, np.int64), nothing, nothing)
        return self._with(known, np.maximum(hi - middle, middle - lo))

    def _with(self, affine: Affine, left: Array) -> Affine:
        """Beside it what is ``left`` out of each element: numbers of their own where it is more than rounding."""
        slack = (affine.slack + left) * (1.0 + 4.0 * EPSILON)
        found = replace(affine, slack=slack, radius=(affine.radius + left) * (1.0 + 4.0 * EPSILON))
        return found if (slack <= ROUNDED * found.radius).all() else self._numbered(found)

    def _numbered(self, affine: Affine) -> Affine:
        """With one new number for each element that needs one; where there are too many, one for all that an element had."""
        slack, rows, ids = affine.slack, affine.rows, affine.ids
        if len(ids) > MOST_NUMBERS:
            slack = (slack + np.abs(rows[self.own :]).sum(axis=0)) * (1.0 + (len(ids) + 8) * EPSILON)
            rows, ids = rows[: self.own], ids[:0]
        moved = np.flatnonzero(slack > 0.0)
        fresh = np.zeros((len(moved), len(slack)))
        fresh[np.arange(len(moved)), moved] = slack[moved]
        ids = np.concatenate([ids, self.numbers + np.arange(len(moved))])
        self.numbers += len(moved)
        return replace(affine, rows=np.concatenate([rows, fresh]), ids=ids, slack=np.zeros_like(slack))

    def _mapped(self, node: Step) -> Affine | None:
        """A node of which a linear map is known for each operand that depends on data."""
        given = {position: self.known.get(value) for position, value in node.operands.items()}
        near = {position: node.tangent(position) for position in node.operands}
        if any(each is None for each in given.values()) or any(each is None or each.ball for each in near.values()):
            return None
        found = node.at_centre({position: each.centre for position, each in given.items() if each})
        if found is None:
            return None
        centre, left = found
        total = None
        for position, value in node.operands.items():
            pushed = self._pushed(value, near[position], node.size)
            if pushed is None:
                return None
            part, rest = pushed
            total, left = part if total is None else self._sum(total, part), left + rest
        if total is None:
            return None
        left = left + 2.0 * EPSILON * len(given) * total.radius
        return self._with(replace(total, centre=centre), left)

    def _pushed(self, value: ir.Value, near: Tangent | None, size: int) -> tuple[Affine, Array] | None:
        """What one operand brings, and how much it leaves out for each element."""
        assert near is not None
        if near.map is not IDENTITY:  # elements are mixed: what is left out of them needs numbers
            self.known[value] = self._numbered(self.known[value])
        affine, left = self.known[value], np.zeros(size)
        if near.map is not IDENTITY:
            self.work += float(affine.rows.size) * size
            rows = near.map.push(affine.rows)
            left = left + near.map.error * float(np.linalg.norm(affine.rows)) * math.sqrt(len(affine.rows))
            affine = replace(affine, rows=rows, slack=np.zeros(size), radius=self.radius(rows))
        if near.slopes is None:
            return affine, left
        if not near.slopes.bounded:
            return None
        middle, away = middle_and_radius(near.slopes)
        most = np.abs(middle) + away
        left = (left + affine.slack) * most + (away + 2.0 * EPSILON * most) * affine.radius
        radius = np.abs(middle) * affine.radius * (1.0 + 4.0 * EPSILON) + TINY
        return replace(affine, rows=middle * affine.rows, slack=np.zeros(size), radius=radius), left

    def _sum(self, a: Affine, b: Affine) -> Affine:
        own, ids = self.own, np.union1d(a.ids, b.ids)
        rows = np.zeros((own + len(ids), a.rows.shape[1]))
        for part in (a, b):
            rows[:own] += part.rows[:own]
            rows[own + np.searchsorted(ids, part.ids)] += part.rows[own:]
        slack = (a.slack + b.slack) * (1.0 + EPSILON)
        return Affine(a.centre, rows, ids, slack, self.radius(rows) + slack)


@dataclass(frozen=True)
class Step:
    """A node of one output, as the zonotopes see it; ``operands`` are those that depend on data."""

    value: ir.Value
    size: int
    operands: Mapping[int, ir.Value]
    case: Case
    row_range: Callable[[Case], Interval]
    tangent: Callable[[int], Tangent | None]
    _seen: list[tuple[Mapping[int, Array], tuple[Array, Array] | None]] = field(default_factory=list, init=False)

    def at_centre(self, centres: Mapping[int, Array]) -> tuple[Array, Array] | None:
        """The output, flattened, with the operands at their centres, and how far off it may be; None where it is not bounded.

        Both domains that ask mostly mean the same point."""
        for known, made in self._seen:
            if all(np.array_equal(known[position], centre) for position, centre in centres.items()):
                return made
        made = self._evaluated(centres)
        self._seen.append((centres, made))
        return made

    def _evaluated(self, centres: Mapping[int, Array]) -> tuple[Array, Array] | None:
        found = self.row_range(_at(self.case, centres))
        if not found.bounded or found.lo.size not in (1, self.size):
            return None
        lo, hi = flat(found.lo, self.size), flat(found.hi, self.size)
        middle = 0.5 * (lo + hi)
        return middle, np.maximum(hi - middle, middle - lo) * (1.0 + 2.0 * EPSILON)


def flat(end: Array, size: int) -> Array:
    return end.ravel() if end.size == size else np.broadcast_to(end.ravel(), (size,))


def clipped(centre: Array, bound: Interval) -> Array:
    """The point of a range that is nearest."""
    return np.clip(centre, flat(bound.lo, len(centre)), flat(bound.hi, len(centre)))


def _at(case: Case, centres: Mapping[int, Array]) -> Case:
    """The case with some operands at their centres."""
    ranges: list[Interval | None] = list(case.ranges)
    for position, centre in centres.items():
        extents = [1 if isinstance(dim, str) else dim for dim in case.shapes[position] or ()]
        ranges[position] = point(centre.reshape(extents))
    return replace(case, ranges=tuple(ranges))


def around(centre: Array, radius: Array | float, case: Case) -> Interval:
    """What is no farther from the centre of a flattened output, in the output's own extents."""
    extents = [1 if isinstance(dim, str) else dim for dim in case.outputs[0] or ()]
    return Interval(down(centre - radius).reshape(extents), up(centre + radius).reshape(extents))


def met(bound: Interval, other: Interval) -> Interval:
    """The intersection of two enclosures of one value."""
    lo, hi = np.maximum(bound.lo, other.lo), np.minimum(bound.hi, other.hi)
    return Interval(lo, hi) if (lo <= hi).all() else bound


def middle_and_radius(slopes: Interval) -> tuple[Array, Array]:
    """The middle of each interval and how far its ends are from it; 0 where it is one number."""
    middle = 0.5 * (slopes.lo + slopes.hi)
    away = np.maximum(slopes.hi - middle, middle - slopes.lo) * (1.0 + 2.0 * EPSILON)
    return middle, np.where(slopes.hi > slopes.lo, away, 0.0)
