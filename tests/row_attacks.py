"""Attacks on the facts that rows of the operator table state: does the truth leave a bound, or one that was made too tight?

A mutation moves a bound inward by a tenth: of its width (ranges, slopes) or of itself (norms, the ball of a tangent; a map
without a ball is scaled by 0.9). A fact is caught where some sample, box and point leaves the mutated bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tests.one_node import OneNode, case_in, samples, stream
from vgcompile.interval import Interval, interval
from vgcompile.ops import NUMPY
from vgcompile.ops.op import Array, Case, Op, Tangent
from vgcompile.ops.reading import slope, slope_range

SHARE = 0.1  # by which a bound is moved
WIDTHS = (0.0, 1e-3, 0.1, 0.5, 1.0)  # of boxes, in terms of the sample's domain
WIDE = WIDTHS[2:]  # for ranges: of a point there is nothing to take off
POINTS = {"range": 48, "slope": 48, "norms above": 3, "norms below": 3, "tangent": 3}  # of each box, half of them corners
TOLERANCE = 1e-6  # of differences, and of what is computed in another order


@dataclass(frozen=True)
class Attack:
    """A row's sample on a box, and a point of it."""

    row: Op
    one: OneNode
    ranges: Mapping[int, Interval]
    x: Mapping[int, Array]

    def cases(self, position: int) -> tuple[Case, ...]:
        """The other inputs known, or in their boxes."""
        others = {i: value for i, value in self.x.items() if i != position}
        alone = {i: bound for i, bound in self.ranges.items() if i == position}
        return (case_in(self.one, alone, others), case_in(self.one, self.ranges))

    @cached_property
    def outputs(self) -> list[Array]:
        return [np.asarray(y, np.float64) for y in self.one.run_forward(self.x)]

    def jacobian(self, position: int, outputs: int = 1) -> Array:
        """d outputs / d input by central differences, as a matrix."""
        columns = []
        for index in np.ndindex(self.x[position].shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = self.x[position].copy()
                moved[index] += step
                found = self.one.run_forward({**self.x, position: moved})
                ends.append(np.concatenate([np.ravel(y) for y in found[:outputs]]))
            columns.append((ends[0] - ends[1]) / 2e-6)
        return np.stack(columns, axis=1) if columns else np.zeros((0, 0))


def attacks(row: Op, points: int, widths: Sequence[float] = WIDTHS) -> Iterator[Attack]:
    """Small boxes of all samples first: where bounds are tight they are soon left."""
    rng = stream(row)
    for width in widths:
        for one in samples(row):
            a, b = one.sample.domain
            half = 0.5 * width * (b - a)
            ends = {i: (np.clip(x - half, a, b), np.clip(x + half, a, b)) for i, x in one.draw(rng, 1).items()}
            ranges = {i: interval(lo, hi) for i, (lo, hi) in ends.items()}
            for index in range(points if width else 1):
                x = {}
                for i, (lo, hi) in ends.items():
                    share = rng.integers(2, size=lo.shape) if index % 2 else rng.uniform(size=lo.shape)
                    x[i] = np.asarray(lo + share * (hi - lo), np.float64)
                yield Attack(row, one, ranges, x)


Leaves = Callable[[Attack, float], bool]  # whether the truth leaves a bound that was moved inward by this share


def leaves_range(attack: Attack, share: float) -> bool:
    """All inputs in their boxes, or the first one alone."""
    assert attack.row.range is not None
    for case in attack.cases(next(iter(attack.one.drawn), -1)):
        found = attack.row.range(case)
        bounds = found if isinstance(found, tuple) else (found,)
        if any(_outside(bound, y, share, scaled=False) for bound, y in zip(bounds, attack.outputs, strict=False)):
            return True
    return False


def leaves_slope(attack: Attack, share: float) -> bool:
    row, one = attack.row, attack.one
    case = case_in(one, attack.ranges)
    for position in (i for i in one.drawn if row.derivatives[i] is not None):
        with np.errstate(all="ignore"):
            found = np.asarray(slope(NUMPY, row, position, tuple(one.operands(attack.x)), **one.attributes), np.float64)
        if np.isfinite(found).all() and _outside(slope_range(NUMPY, row, position, case), found, share):
            return True
    return False


def _outside(bound: Interval, y: Array, share: float, scaled: bool = True) -> bool:
    """Of a bound without a width a share says nothing: it is ``scaled``, or left as it is."""
    with np.errstate(invalid="ignore"):
        width = bound.hi - bound.lo
    lo, hi = bound.lo, bound.hi
    thin = width <= TOLERANCE
    room = np.where(np.isfinite(width) & ~thin, share * width, 0.0)
    if scaled:
        lo, hi = (np.where(thin, end * (1.0 - share), end) for end in (lo, hi))
    slack = TOLERANCE * np.where(np.isfinite(bound.magnitude), np.maximum(bound.magnitude, 1.0), 1.0) * (0.01 if share else 1.0)
    return bool(((y < lo + room - slack) | (y > hi - room + slack)).any())


def leaves_norm_above(attack: Attack, share: float) -> bool:
    return _leaves_norm(attack, lambda lo, hi, least, most: most > hi * (1.0 - share) * (1.0 + TOLERANCE) + TOLERANCE)


def leaves_norm_below(attack: Attack, share: float) -> bool:
    return _leaves_norm(attack, lambda lo, hi, least, most: least < lo * (1.0 + share) * (1.0 - TOLERANCE) - TOLERANCE)


def _leaves_norm(attack: Attack, leaves: Callable[[float, float, float, float], bool]) -> bool:
    assert attack.row.norms is not None
    for position in attack.one.drawn:
        known = []
        for case in attack.cases(position):
            try:
                known.append(attack.row.norms(case, position))
            except NotImplementedError:
                continue
        j = attack.jacobian(position) if any(math.isfinite(hi) or lo for lo, hi in known) else np.zeros((0, 0))
        if not j.size:
            continue
        values = np.linalg.svd(j, compute_uv=False)
        least = float(values.min()) if j.shape[0] <= j.shape[1] else 0.0
        if any(leaves(lo, hi, least, float(values.max())) for lo, hi in known):
            return True
    return False


def leaves_tangent(attack: Attack, share: float) -> bool:
    assert attack.row.tangent is not None
    for position in attack.one.drawn:
        for case in attack.cases(position):
            near = attack.row.tangent(_around(attack, case), position)
            if near is not None and _leaves_map(attack, position, near, share):
                return True
    return False


def _around(attack: Attack, case: Case) -> Case:
    """Drawn inputs depend on data and have the ball around their box, which the enclosure states for rows that ask."""
    balls = []
    for bound in case.ranges:
        if bound is None or not bound.bounded:
            balls.append(None)
            continue
        middle = 0.5 * (bound.lo + bound.hi)
        balls.append((middle.ravel(), float(np.linalg.norm(bound.hi - middle)) * (1.0 + 1e-12)))
    return replace(case, balls=tuple(balls), data=frozenset(attack.one.drawn))


def _leaves_map(attack: Attack, position: int, near: Tangent, share: float) -> bool:
    count = sum(1 for y in attack.outputs if y.dtype.kind == "f")
    size = attack.x[position].size
    pushed = near.map.push(np.eye(size)).T
    count = next((k for k in range(1, count + 1) if sum(y.size for y in attack.outputs[:k]) == len(pushed)), 0)
    if not count:
        return False
    j = attack.jacobian(position, count)
    if near.slopes is not None:
        return _leaves_slopes(j, pushed, near.slopes, share)
    ball = near.ball * (1.0 - share)
    scale = 1.0 - (share if near.ball <= TOLERANCE else 0.0)
    return bool(np.linalg.norm(j - scale * pushed, 2) > ball + TOLERANCE * max(1.0, float(np.linalg.norm(j))))


def _leaves_slopes(j: Array, pushed: Array, slopes: Interval, share: float) -> bool:
    squares = (pushed**2).sum(axis=1)
    rows = squares > 0.0
    found = (j * pushed).sum(axis=1)[rows] / squares[rows]
    bound = slopes.map(lambda end: np.broadcast_to(end.ravel(), squares.shape)[rows])
    return _outside(bound, found, share)


@dataclass(frozen=True)
class Fact:
    """``stated``: which rows state it; ``shown``: whether a sample shows something that can be moved."""

    stated: Callable[[Op], Any]
    leaves: Leaves
    shown: Callable[[Attack], bool]


def _some_norm(attack: Attack, end: int) -> bool:
    assert attack.row.norms is not None
    found = []
    for position in attack.one.drawn:
        for case in attack.cases(position):
            with suppress(NotImplementedError):
                found.append(attack.row.norms(case, position)[end])
    return any(0.0 < norm < math.inf for norm in found)


def _some_map(attack: Attack) -> bool:
    near = attack.row.tangent
    assert near is not None
    return any(near(_around(attack, case), i) is not None for i in attack.one.drawn for case in attack.cases(i))


FACTS: Mapping[str, Fact] = {
    "range": Fact(lambda row: row.range is not None and not row.random, leaves_range, lambda attack: True),
    "slope": Fact(lambda row: row.elementwise, leaves_slope, lambda attack: True),
    "norms above": Fact(lambda row: row.norms and not row.blocked, leaves_norm_above, lambda attack: _some_norm(attack, 1)),
    "norms below": Fact(lambda row: row.norms and not row.blocked, leaves_norm_below, lambda attack: _some_norm(attack, 0)),
    "tangent": Fact(lambda row: row.tangent is not None, leaves_tangent, _some_map),
}


def caught(row: Op, fact: str, share: float = SHARE) -> bool:
    """Whether an attack leaves the row's bound, moved inward by a share."""
    return any(
        FACTS[fact].leaves(attack, share) for attack in attacks(row, POINTS[fact], WIDE if fact in ("range", "slope") else WIDTHS)
    )


def shown(row: Op, fact: str) -> bool:
    """Whether a sample of the row shows something of the fact that can be moved."""
    return any(FACTS[fact].shown(attack) for attack in attacks(row, 1, WIDTHS[:1]))
