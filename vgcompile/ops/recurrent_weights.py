"""The weights of one direction of a recurrent operator over ranges, and the interval arithmetic of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vgcompile.interval import Interval, corners, down, matmul, product, up
from vgcompile.ops.linear import interval_product
from vgcompile.ops.op import Case
from vgcompile.ops.reading import slope_range
from vgcompile.ops.recurrent_activation import Activation

Blocks = tuple[Interval, ...]  # one for each gate


@dataclass(frozen=True)
class Weights:
    """Of one direction: ``w`` [G H, I], ``r`` [G H, H], the biases of inputs and of states [G H]; ``p`` [H] for the gates i, o
    and f.

    A run may compute gates and slopes with an error of ``unit`` times their largest term.
    """

    w: Interval
    r: Interval
    of_inputs: Interval
    of_states: Interval
    p: Blocks | None
    functions: tuple[Activation, ...]
    unit: float = 0.0

    @property
    def hidden(self) -> int:
        return int(self.r.lo.shape[-1])

    @property
    def gates(self) -> int:
        return len(self.r.lo) // self.hidden

    def blocks(self, x: Interval) -> Blocks:
        """Rows [G H, n] gate by gate."""
        return tuple(Interval(*ends) for ends in zip(*(np.split(end, self.gates) for end in (x.lo, x.hi)), strict=True))

    def driven(self, x: Interval) -> Interval:
        """W x + b of the inputs, for all gates: [..., G H]."""
        return plus(times_matrix(x, self.w), self.of_inputs)

    def fed(self, h: Interval, gates: slice) -> Interval:
        """R h + b of the states, for some gates."""
        rows = slice((gates.start or 0) * self.hidden, None if gates.stop is None else gates.stop * self.hidden)
        return plus(times_matrix(h, self.r.map(lambda end: end[rows])), self.of_states.map(lambda end: end[rows]))

    def gate(self, a: Interval, k: int) -> Interval:
        """One gate's share of the last axis."""
        return a.map(lambda end: end[..., k * self.hidden : (k + 1) * self.hidden])

    def value(self, function: int, a: Interval, clipped: bool = True) -> Interval:
        f = self.functions[function]
        assert f.row.range is not None
        found = f.row.range(Case(f.attributes, ranges=(_cut(f, a) if clipped else a,)))
        assert isinstance(found, Interval)
        return self._blurred(found)

    def slope(self, function: int, a: Interval, clipped: bool = True) -> Interval:
        """0 where something was cut off."""
        from vgcompile.ops import NUMPY  # the table, of which this is a part

        f = self.functions[function]
        found = slope_range(NUMPY, f.row, 0, Case(f.attributes, ranges=(_cut(f, a) if clipped else a,)))
        if clipped and f.clip is not None:
            cut = a.magnitude > f.clip
            found = Interval(
                np.where(cut, np.minimum(found.lo, 0.0), found.lo), np.where(cut, np.maximum(found.hi, 0.0), found.hi)
            )
        return self._blurred(found)

    def _blurred(self, x: Interval) -> Interval:
        room = self.unit * np.maximum(np.where(np.isfinite(x.magnitude), x.magnitude, 0.0), 1.0)
        return Interval(x.lo - room, x.hi + room)


def _cut(f: Activation, a: Interval) -> Interval:
    return a if f.clip is None else a.map(lambda end: np.clip(end, -float(f.clip or 0.0), float(f.clip or 0.0)))


def plus(first: Interval, *others: Interval) -> Interval:
    for other in others:
        first = Interval(down(first.lo + other.lo), up(first.hi + other.hi))
    return first


def times(*factors: Interval) -> Interval:
    found = factors[0]
    for factor in factors[1:]:
        found = product(found, factor)
    return found


def minus(x: Interval) -> Interval:
    return Interval(-x.hi, -x.lo)


def one_minus(x: Interval) -> Interval:
    return corners(lambda a: 1.0 - a, [x])


def times_matrix(x: Interval, m: Interval) -> Interval:
    """M x."""
    if np.array_equal(m.lo, m.hi):
        return matmul(x, m.lo.T)
    if not (x.bounded and m.bounded):
        anything = np.full((*x.lo.shape[:-1], len(m.lo)), np.inf)
        return Interval(-anything, anything)
    return interval_product(x, m.map(np.transpose), x.lo.shape[-1])
