"""Pools of the average of each window.

AveragePoolGradient(g, x) -> dx            "tiles" (windows side by side), "spread" (any)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import Interval, down, up
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Dim, Op, sample
from vgcompile.ops.pooling import GLOBAL, channelwise, extent_of, infer, refuses, window_of
from vgcompile.ops.shape import extents, full_shape, reshaped, shaped
from vgcompile.ops.window import Window, cropped, window
from vgcompile.signal import Signal, replace


def _average_vjp(
    op: Any, g: Any, y: Any, x: Any, *, kernel_shape: Any, ceil_mode: int, count_include_pad: int, **rest: Any
) -> Any:
    at = window(extents(x)[2:], kernel_shape, rest)
    facts = {"kernel_shape": kernel_shape, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad, **at.attributes}
    return (op.AveragePoolGradient(g, x, **facts),)


def _is_tiling(case: Case) -> bool:
    """Windows lie side by side and cover everything."""
    at, dims = window_of(case, 1), (case.shapes[1] or ())[2:]
    whole = all(isinstance(dim, int) and dim % k == 0 for dim, k in zip(dims, at.kernel, strict=True))
    return whole and at.strides == at.kernel and not any(at.pads) and set(at.dilations) == {1}


def _tiles(op: Any, g: Any, x: Any, *, kernel_shape: Sequence[int], **_: Any) -> Any:
    lead, spatial = extents(g)[:2], [int(dim) for dim in extents(g)[2:]]
    front = [-1 if isinstance(dim, str) else dim for dim in lead] if sum(isinstance(d, str) for d in lead) < 2 else [0, 0]
    cells = op.Reshape(g * (1.0 / math.prod(kernel_shape)), [*front, *(n for dim in spatial for n in (dim, 1))])
    return reshaped(op, op.Expand(cells, [1, 1, *(n for k in kernel_shape for n in (1, k))]), x)


def _spread(
    op: Any, g: Any, x: Any, *, kernel_shape: Sequence[int], ceil_mode: int, count_include_pad: int, **attributes: Any
) -> Any:
    """Each adjoint over its window's count, handed to every tap: a transposed convolution with ones, channel by channel."""
    dims, channels = extents(x)[2:], extents(x)[1]
    at = window(dims, kernel_shape, attributes)
    rank = len(at.kernel)
    share = _shares(op, g, x, at, bool(ceil_mode), bool(count_include_pad))
    ones = np.ones((int(channels), 1, *at.kernel), x.dtype.numpy())
    static = not ceil_mode and all(isinstance(dim, int) for dim in dims)
    rest = [
        at.remainder(int(d), axis) if static else at.strides[axis] - 1 for axis, d in enumerate(dims if static else at.kernel)
    ]
    pads = at.pads if static else [*at.before, *(0,) * rank]
    strides, dilations = list(at.strides), list(at.dilations)
    dx = op.ConvTranspose(share, ones, group=int(channels), strides=strides, dilations=dilations, pads=pads, output_padding=rest)
    return dx if static else cropped(op, dx, x)


def _shares(op: Any, g: Any, x: Any, at: Window, ceil: bool, padding_counts: bool) -> Any:
    """g over the number of elements in each window. Where a window may hang over an edge, it is counted axis by axis."""
    if not ceil and (padding_counts or not any(at.pads)):
        return g * (1.0 / at.taps)
    into, out = extents(x)[2:], extents(g)[2:]
    if not any(isinstance(dim, str) for dim in (*into, *out)):
        return g * (1.0 / _counts(at, into, out, padding_counts)).astype(x.dtype.numpy())
    for axis in range(len(at.kernel)):
        g = g / _count_at_run_time(op, g, x, at, axis, padding_counts)
    return g


def _limits(at: Window, axis: int, padding_counts: bool) -> tuple[int, int]:
    """Where counted elements begin, and how far beyond the extent they end."""
    return (-at.before[axis], at.after[axis]) if padding_counts else (0, 0)


def _counts(at: Window, into: Sequence[Dim], out: Sequence[Dim], padding_counts: bool) -> Any:
    """How many elements each window averages over, [1, 1, out...]."""
    counts = np.ones((1, 1))
    for axis, (k, s, d) in enumerate(zip(at.kernel, at.strides, at.dilations, strict=True)):
        low, beyond = _limits(at, axis, padding_counts)
        place = np.arange(int(out[axis]))[:, None] * s - at.before[axis] + np.arange(k) * d
        inside = ((place >= low) & (place < int(into[axis]) + beyond)).sum(axis=1)
        counts = counts[..., None] * inside
    return counts


def _count_at_run_time(op: Any, g: Any, x: Any, at: Window, axis: int, padding_counts: bool) -> Any:
    """The same along one axis whose extent is only known then, in a shape that divides g."""
    low, beyond = _limits(at, axis, padding_counts)
    windows = op.Range(0, op.Squeeze(op.Shape(g, start=2 + axis, end=3 + axis)), 1)
    taps = np.arange(at.kernel[axis], dtype=np.int64) * at.dilations[axis] - at.before[axis]
    place = op.Unsqueeze(windows * at.strides[axis], [1]) + taps
    end = op.Shape(x, start=2 + axis, end=3 + axis) + beyond
    inside = op.Where(op.Less(place, end), op.Where(op.Less(place, low), 0.0, 1.0), 0.0)
    behind = len(at.kernel) - 1 - axis
    count = op.ReduceSum(inside, [1], keepdims=0)
    return op.Unsqueeze(count, list(range(1, 1 + behind))) if behind else count


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
    least = at.taps if full else int(_counts(at, into, out, bool(case.attributes["count_include_pad"])).min()) if known else 1
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
        x = signals[0]
        assert x is not None
        inside, count = self.windows(case)
        share = float((inside / count).mean())
        square = float(((inside * x.square + inside * (inside - 1.0) * x.within) / count**2).mean())
        return replace(x, mean=x.mean * share, square=square, within=x.within * share**2, across=x.across * share**2)

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
    inside = _counts(at, into, out, padding_counts=False)
    return inside, _counts(at, into, out, bool(case.attributes["count_include_pad"]))


def _whole(case: Case) -> tuple[Array, Array]:
    count = np.full(1, float(extent_of(case.shapes[0])))
    return count, count


AveragePool = Op(
    "AveragePool",
    "The average of each window, over its elements or, where padding counts, over all its taps.",
    vjp=_average_vjp,
    range=_average_range,
    norms=_average_norms,
    moments=Average(_windows),
    infer=infer,
    refuses=lambda case: (
        refuses(case)
        or ("" if isinstance((case.shapes[0] or ("",) * 2)[1], int) else "the number of channels is not known when compiling")
    ),
    samples=(
        sample(("N", 2, 4, 6), kernel_shape=[2, 3], strides=[2, 3]),
        sample(("N", 2, 5, 5), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
        sample(("N", 2, "H", "W"), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        sample(("N", 2, "H", 4), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        sample(("N", 1, 5, 5), kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        sample(("N", 1, 5, 5), kernel_shape=[2, 2], dilations=[2, 1]),
    ),
)

AveragePoolGradient = Op(
    "AveragePoolGradient",
    "Each adjoint dealt out over its window: g [N, C, out...], x only for its shape.",
    domain=INTERNAL,
    vjp=lambda op, h, y, g, x, **attributes: (shaped(op.AveragePool(h, **attributes), g), None),
    bodies=(Body("tiles", _tiles, _is_tiling), Body("spread", _spread, cost=lambda case: float(case.count(case.shapes[1])))),
    infer=lambda g, x, **_: x,
    samples=(
        sample(
            ("N", 2, 2), ("N", 2, 4), kernel_shape=[2], strides=[2], dilations=[1], pads=[0, 0], ceil_mode=0, count_include_pad=0
        ),
        sample(
            ("N", 2, 3), ("N", 2, 5), kernel_shape=[3], strides=[2], dilations=[1], pads=[1, 1], ceil_mode=0, count_include_pad=0
        ),
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
    vjp=_global_average_vjp,
    range=lambda case: _averaged(channelwise(case)),
    norms=lambda case, position: _global_average_norms(case),
    moments=Average(_whole),
    samples=GLOBAL,
)

ROWS = (AveragePool, AveragePoolGradient, GlobalAveragePool)
