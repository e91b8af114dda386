"""Pools of the average of each window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import Interval, down, up
from vgcompile.ops import flops
from vgcompile.ops.maps import after, one_sample, summed_over
from vgcompile.ops.moments import signal_of
from vgcompile.ops.op import Array, Case, Op, Tangent, sample
from vgcompile.ops.pooling import GLOBAL, channelwise, extent_of, infer, refuses, window_of, windows_of
from vgcompile.ops.shape import extents, full_shape, shaped
from vgcompile.ops.tapped import Tapped, flattened
from vgcompile.ops.window import placed
from vgcompile.ops.window_spread import hangs, shares, spread
from vgcompile.signal import Signal, replace


def _average_vjp(
    op: Any, g: Any, y: Any, x: Any, *, kernel_shape: Any, ceil_mode: int, count_include_pad: int, **rest: Any
) -> Any:
    ready, ceil = placed(op, x, kernel_shape, rest), hangs(rest, ceil_mode)
    share, divisor = shares(op, g, x, ready, ceil, bool(count_include_pad))
    return (spread(op, share, ready, divisor, ceil),)


def _average_range(case: Case) -> Interval:
    """Between the smallest and the largest element; padding counts as zeros where it counts."""
    x = channelwise(case)
    if case.attributes.get("count_include_pad") and any(window_of(case).pads):
        x = x.hull(Interval(np.zeros(()), np.zeros(())))
    return _averaged(x)


def _averaged(x: Interval) -> Interval:
    return Interval(down(x.lo, x.magnitude), up(x.hi, x.magnitude)) if x.bounded else x


def _average_norms(case: Case, position: int) -> tuple[float, float]:
    """Schur's test: rows sum to 1 at most, columns to overlap / least count. It is exact where windows are full and apart."""
    at = window_of(case)
    into, out = (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
    full = not case.attributes.get("ceil_mode") and (case.attributes.get("count_include_pad") or not any(at.pads))
    known = not any(isinstance(dim, str) for dim in (*into, *out))
    least = at.taps if full else int(windows_of(at, into, out, bool(case.attributes["count_include_pad"])).min()) if known else 1
    hi = math.sqrt(at.overlap / least)
    return (hi if at.overlap == 1 and full and not any(at.pads) else 0.0, hi)


@dataclass(frozen=True)
class Average:
    """Moments of averages: of a window's elements, of which two correlate by ``within``, over the count that divides them.

    Backward, every adjoint is dealt out in equal shares: sums over positions are kept, and the rest follows from the number of
    pairs.
    """

    windows: Callable[[Case], tuple[Array, Array]]  # the elements in each window, and its divisor

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        inside, count = self.windows(case)
        share = float((inside / count).mean())
        square = float(((inside * x.square + inside * (inside - 1.0) * x.within) / count**2).mean())
        apart = min(x.across, x.within)  # two samples at different positions share no more than one sample does
        across = float(((inside * x.across + inside * (inside - 1.0) * apart) / count**2).mean())
        return replace(x, mean=x.mean * share, square=square, within=x.within * share**2, across=across)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        inside, count = self.windows(case)
        into, out = extent_of(case.shapes[0]), extent_of(case.outputs[0])
        over = out * float(inside.mean()) / into  # windows over an element, on average
        share = float((inside / count).mean())
        square = out / into * float((inside / count**2).mean()) * (adjoint.square + max(over - 1.0, 0.0) * adjoint.within)
        pairs = share**2 * (out * adjoint.square + out * (out - 1) * adjoint.within) - into * square
        within = pairs / (into * (into - 1)) if into > 1 else square
        return replace(adjoint, square=square, within=within, across=adjoint.across * (share * out / into) ** 2)


def _windows(case: Case) -> tuple[Array, Array]:
    """Counted exactly where the extents are known; else as if every window were full."""
    at, into, out = window_of(case), (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
    if any(isinstance(dim, str) for dim in (*into, *out)):
        return np.full(1, float(at.taps)), np.full(1, float(at.taps))
    inside = windows_of(at, into, out, padding_counts=False)
    return inside, windows_of(at, into, out, bool(case.attributes["count_include_pad"]))


def _whole(case: Case) -> tuple[Array, Array]:
    count = np.full(1, float(extent_of(case.shapes[0])))
    return count, count


def _average_tangent(case: Case, position: int) -> Tangent | None:
    """Ones for each tap, over the number that counts."""
    at, into, out = window_of(case), one_sample(case.shapes[0]), one_sample(case.outputs[0])
    if into is None or out is None or min(at.pads, default=0) < 0:
        return None
    ones = flattened(Tapped(np.ones((into[1], 1, *at.kernel)), into[2:], out[2:], at, into[1]))
    return Tangent(after(ones, np.broadcast_to(1.0 / _windows(case)[1], out).ravel()))


def _whole_tangent(case: Case, position: int) -> Tangent | None:
    into = one_sample(case.shapes[0])
    if into is None:
        return None
    return Tangent(summed_over(into, range(2, len(into)), 1.0 / math.prod(into[2:])))


AveragePool = Op(
    "AveragePool",
    "The average of each window, over its elements or, where padding counts, over all its taps.",
    flops=flops.pool,
    vjp=_average_vjp,
    range=_average_range,
    norms=_average_norms,
    tangent=_average_tangent,
    moments=Average(_windows),
    infer=infer,
    refuses=refuses,
    samples=(
        sample(("N", 2, 4, 6), kernel_shape=[2, 3], strides=[2, 3]),
        sample(("N", 2, 5, 5), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
        sample(("N", 2, "H", "W"), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        sample(("N", 2, "H", 4), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        sample(("N", 1, 5, 5), kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        sample(("N", 1, 5, 5), kernel_shape=[2, 2], dilations=[2, 1]),
        sample(("N", "C", "H", 4), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        sample(("N", 2, "H", "W"), kernel_shape=[3, 2], strides=[2, 3], auto_pad="SAME_LOWER"),
        sample(("N", 2, "T"), kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER", count_include_pad=1),
        sample(("N", 1, 6, 7), kernel_shape=[3, 3], strides=[2, 3], pads=[1, 0, 1, 1], ceil_mode=1, count_include_pad=1),
        sample(("N", 1, 6, 7), kernel_shape=[3, 3], strides=[2, 3], pads=[1, 0, 1, 1], ceil_mode=1),
        sample(("N", 1, 3, 4, 5), kernel_shape=[2, 3, 2], strides=[1, 2, 2], pads=[1, 1, 0, 0, 1, 1]),
    ),
)


def _all_positions(op: Any, g: Any, x: Any) -> Any:
    """1 / the number of positions."""
    spatial = extents(x)[2:]
    if all(isinstance(dim, int) for dim in spatial):
        return 1.0 / math.prod(int(dim) for dim in spatial)
    return op.Reciprocal(op.Cast(op.Div(op.Size(x), op.Size(g)), to=int(x.dtype)))


def _global_average_vjp(op: Any, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    return (shaped(op.Expand(g * _all_positions(op, g, x), full_shape(op, x)), x),)


def _global_average_norms(case: Case) -> tuple[float, float]:
    """g over n positions, n times: 1 / sqrt(n)."""
    spatial = (case.shapes[0] or ("", "", ""))[2:]
    if any(isinstance(dim, str) for dim in spatial):
        return (0.0, 1.0)
    norm = 1.0 / math.sqrt(math.prod(int(dim) for dim in spatial))
    return (norm, norm)


GlobalAveragePool = Op(
    "GlobalAveragePool",
    "The average over all positions.",
    flops=flops.read(),
    vjp=_global_average_vjp,
    range=lambda case: _averaged(channelwise(case)),
    norms=lambda case, position: _global_average_norms(case),
    tangent=_whole_tangent,
    moments=Average(_whole),
    samples=GLOBAL,
)

ROWS = (AveragePool, GlobalAveragePool)
