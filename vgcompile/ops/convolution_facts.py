"""What the analyses read of both convolutions: their ranges, norms and moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile import interval
from vgcompile.interval import EPSILON, WHOLE, Interval, corners, point
from vgcompile.norms import convolution_norm
from vgcompile.ops.linear import interval_product
from vgcompile.ops.maps import one_sample
from vgcompile.ops.moments import signal_of
from vgcompile.ops.op import Array, Case, Tangent
from vgcompile.ops.shape import meeting, summed
from vgcompile.ops.tapped import Tapped, flattened
from vgcompile.ops.window import Window
from vgcompile.signal import Profile, Signal, independent_sum, replace


def _channel_hulls(case: Case, padded: bool) -> Interval:
    """The range of each channel of the input, [C]; zeros belong to it where the tensor is padded."""
    dims = case.shapes[0]
    assert dims is not None and isinstance(dims[1], int)
    given = case.ranges[0] or WHOLE
    least = (1, dims[1], *(1,) * (len(dims) - 2))
    full = given.map(lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, least)))
    axes = (0, *range(2, len(dims)))
    hull = Interval(full.lo.min(axis=axes), full.hi.max(axis=axes))
    return hull.hull(point(0.0)) if padded else hull


def value_range(case: Case, padded: bool, transposed: bool) -> Interval:
    """Each output channel is an interval dot product of its kernel with the hulls of its input channels; [1, M, 1...]."""
    dims, kernel = case.shapes[0], _kernel(case)
    if dims is None or isinstance(dims[1], str) or kernel is None:
        return WHOLE
    group, hull = case.attributes["group"], _channel_hulls(case, padded)
    if case.values[1] is None and not hull.bounded:
        return WHOLE
    w = kernel.map(lambda x: x.reshape(*x.shape[:2], -1))
    parts = []
    for index in range(group):
        c, m = int(dims[1]) // group, w.lo.shape[0] // group

        def columns(x: Array, rows: slice = slice(index * m, (index + 1) * m), m: int = m) -> Array:
            mine = x[rows]
            return mine.transpose(0, 2, 1).reshape(-1, x.shape[1]) if transposed else mine.transpose(1, 2, 0).reshape(-1, m)

        lo, hi = (np.repeat(end[index * c : (index + 1) * c], w.lo.shape[2]) for end in (hull.lo, hull.hi))
        matrix, x = w.map(columns), Interval(lo, hi)
        parts.append(interval.matmul(x, matrix.lo) if case.values[1] is not None else interval_product(x, matrix, len(lo)))
    lead = (1, -1, *(1,) * (len(dims) - 2))
    y = Interval(np.concatenate([p.lo for p in parts]).reshape(lead), np.concatenate([p.hi for p in parts]).reshape(lead))
    if len(case.shapes) < 3 or case.shapes[2] is None:
        return y
    bias = case.ranges[2] or (WHOLE if case.values[2] is None else point(case.values[2]))
    return corners(np.add, [y, bias.map(lambda b: b.reshape(lead) if b.ndim else b)])


def _kernel(case: Case) -> Interval | None:
    """The kernel, or where it lies; None where no bound of it is known."""
    dims, known, bound = case.shapes[1], case.values[1], case.ranges[1]
    if known is not None:
        return interval.point(known)
    if dims is None or bound is None or not bound.bounded or any(isinstance(dim, str) for dim in dims):
        return None
    return bound.map(lambda x: np.broadcast_to(x, [int(dim) for dim in dims]))


def _kernel_norm(case: Case, at: Window) -> float:
    """Of the convolution: no kernel has a larger one than that of its greatest magnitudes, tap by tap. One of known singular
    values reads windows in which an element stands at most ``overlap`` times."""
    kernel = _kernel(case)
    if kernel is None:
        return math.inf
    known = case.values[1] is not None
    hi = convolution_norm(kernel.lo if known else kernel.magnitude, at.strides, at.dilations, case.attributes["group"])
    singular = case.singular[1] if case.singular else None
    return hi if singular is None else min(hi, float(interval.up(np.asarray(math.sqrt(at.overlap) * singular[1]))))


def _input_norm(case: Case) -> float:
    """A bound of the Euclidean norm of the input, from its range: of one sample of it, where the kernel is shared by all."""
    dims, bound = case.shapes[0], case.ranges[0]
    if dims is None or bound is None or not bound.bounded or math.isinf(meeting(case, 1, dims)):
        return math.inf
    extents = [1 if isinstance(dim, str) else dim for dim in dims]
    squares = np.broadcast_to(bound.magnitude, extents) ** 2
    return float(np.sqrt(squares.sum()) * (1.0 + squares.size * EPSILON))


def norms(case: Case, position: int, at: Window) -> tuple[float, float]:
    """The map of the input is a convolution; the kernel sees an element of x once for each tap over it; a bias, all positions."""
    if position == 0:
        return (0.0, _kernel_norm(case, at))
    if position == 1:
        return (0.0, math.sqrt(at.overlap) * _input_norm(case))
    positions = meeting(case, 2, case.outputs[0] or ("",)) / case.count(case.shapes[2])
    return (1.0 if positions == 1 else 0.0, math.sqrt(positions))


def tangent(case: Case, position: int, at: Window, transposed: bool = False) -> Tangent | None:
    """The map of the input, for a known kernel and known extents."""
    conv = tapped(case, at, transposed)
    return None if conv is None or position else Tangent(flattened(conv, transposed))


def tapped(case: Case, at: Window, transposed: bool = False) -> Tapped | None:
    """The convolution of a node; a transposed one visits its output."""
    weight, into, out = case.values[1], one_sample(case.shapes[0]), one_sample(case.outputs[0])
    if weight is None or into is None or out is None or min(at.pads, default=0) < 0:
        return None
    visited, positions = (out, into) if transposed else (into, out)
    return Tapped(np.asarray(weight), visited[2:], positions[2:], at, case.attributes["group"])


@dataclass(frozen=True)
class Windows:
    """Mean-field moments of a convolution, zero padding counted exactly.

    Of the taps of a window ``seen`` fall inside the tensor on average, and ``over`` windows lie over an element; each window
    element meets every channel of its group, with independent weights. Windows at the edges see less, layer after layer, so that
    squares differ along an axis: an average over windows is one over what they see (`along`).
    """

    window: Callable[[Case], Window]
    transposed: bool = False

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x, w = signal_of(signals, 0), signal_of(signals, 1)
        seen, over = self._pairs(case)
        met, along = self._through(case, x.along, forward=True)
        channels = self._channels(case, 0) / case.attributes["group"]
        terms, weighted = channels * (over if self.transposed else seen), channels * met
        cross = terms * max(terms - 1.0, 0.0) * (w.mean * x.mean) ** 2
        y = Signal(
            mean=terms * w.mean * x.mean,
            square=weighted * w.square * x.square + cross,
            within=weighted * w.square * x.within + cross,
            across=weighted * w.square * x.across + cross,
            alignment=x.alignment,
            along=along,
            doubt=x.doubt,
        )
        biased = len(case.shapes) > 2 and case.shapes[2] is not None
        return independent_sum(y, signal_of(signals, 2)) if biased else y

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position == 0:
            w = signal_of(signals, 1)
            met, along = self._through(case, adjoint.along, forward=False)
            terms = self._channels(case, None) / case.attributes["group"] * met
            return replace(adjoint.scaled(terms * w.square), mean=0.0, along=along)
        seen, _ = self._pairs(case)
        x = signal_of(signals, 0) if position == 1 else Signal(1.0, 1.0, 1.0, 1.0)
        out = case.count((case.outputs[0] or ())[2:])
        visits = case.count((case.shapes[0] or ())[2:]) if self.transposed else out
        met = visits * seen / self.window(case).taps if position == 1 else float(out)
        return summed(adjoint, x, case.batch, met)

    def _through(self, case: Case, along: Profile, forward: bool) -> tuple[float, Profile]:
        """How many taps, or windows, an element meets, weighted by the squares at their other ends; and the squares' profile."""
        into, out = (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
        if any(isinstance(dim, str) for dim in (*into, *out)):
            seen, over = self._pairs(case)
            return (seen if forward != self.transposed else over), ()
        starts, at, met, found = into if forward else out, self.window(case), 1.0, []
        known = along if tuple(map(len, along)) == starts else tuple((1.0,) * int(dim) for dim in starts)
        for axis, (i, o, given) in enumerate(zip(into, out, known, strict=True)):
            meets = at.meets(int(o), int(i), axis).T if self.transposed else at.meets(int(i), int(o), axis)
            reached = (meets if forward else meets.T) @ np.array(given)
            mean = float(reached.mean())
            met *= mean
            found.append(tuple((reached / mean).tolist()) if mean > 0 else (1.0,) * len(reached))
        return met, tuple(found)

    @staticmethod
    def _channels(case: Case, position: int | None) -> int:
        dims = case.outputs[0] if position is None else case.shapes[position]
        assert dims is not None
        return case.count(dims[1:2])

    def _pairs(self, case: Case) -> tuple[float, float]:
        at = self.window(case)
        into, out = (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
        into, out = (out, into) if self.transposed else (into, out)
        pairs = [at.pairs(i, o, axis) for axis, (i, o) in enumerate(zip(into, out, strict=True))]
        return math.prod(seen for seen, _ in pairs), math.prod(over for _, over in pairs)
