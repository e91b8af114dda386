"""Pools: the largest or the average element of each window.

MaxPoolGradient(g, indices, x) -> dx       "scatter" (windows apart), "scatter add"
AveragePoolGradient(g, x) -> dx            "tiles" (windows side by side), "spread" (any)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from vgcompile.interval import WHOLE, Interval, down, up
from vgcompile.ops.shape import extents, full_shape, reshaped, shaped, zeros_like
from vgcompile.ops.op import INTERNAL, Body, Case, Dim, Op, sample
from vgcompile.ops.window import Window, cropped, same_extents, unresolved, window
from vgcompile.signal import Signal, replace


def _window(case: Case, position: int = 0) -> Window:
    dims = case.shapes[position]
    assert dims is not None
    return window(dims[2:], case.attributes["kernel_shape"], case.attributes)


def _first(g: Any) -> Any:
    """The adjoint of the pooled values; indices have none."""
    return g[0] if isinstance(g, tuple) else g


def _infer(x: Any, *, kernel_shape: Sequence[int], **attributes: Any) -> Any:
    return same_extents(x, kernel_shape, attributes)


# ---- max


def _max_gradient(reduction: str) -> Any:
    def emit(op: Any, g: Any, indices: Any, x: Any, **_: Any) -> Any:
        """Indices count through the whole flattened tensor."""
        zeros = op.Expand(0.0, op.Reshape(op.Size(x), [1]))
        flat = op.ScatterElements(zeros, op.Reshape(indices, [-1]), op.Reshape(g, [-1]), axis=0, reduction=reduction)
        return reshaped(op, flat, x)

    return emit


def _max_vjp(op: Any, g: Any, y: Any, x: Any, **attributes: Any) -> tuple[Any, ...]:
    at = window(extents(x)[2:], attributes["kernel_shape"], attributes)
    return (op.MaxPoolGradient(_first(g), y[1], x, overlap=at.overlap),)


def _refuses(case: Case) -> str:
    given = case.attributes
    if given.get("storage_order"):
        return "storage_order 1 counts indices column by column"
    if (given.get("auto_pad") or "NOTSET").startswith("SAME") and set(given.get("dilations") or (1,)) != {1}:
        return "auto_pad SAME with dilations is read in two ways by the runtimes; give explicit pads"
    return unresolved(case, given["kernel_shape"])


def _channelwise(case: Case) -> Interval:
    """The hull of each channel's range, in a shape that holds for any spatial extents."""
    dims, given = case.shapes[0], case.ranges[0] or WHOLE
    if dims is None or given.lo.ndim < len(dims):
        return given.scalar() if given.lo.ndim else given
    axes = tuple(range(2, len(dims)))
    return Interval(given.lo.min(axis=axes, keepdims=True), given.hi.max(axis=axes, keepdims=True))


def _max_norms(case: Case, position: int) -> tuple[float, float]:
    """Windows that do not overlap have different winners; else one element may win in as many windows as hold it."""
    overlap = _window(case).overlap
    return (1.0 if overlap == 1 else 0.0, math.sqrt(overlap))


@lru_cache(maxsize=256)
def largest_of(k: int) -> tuple[float, float]:
    """Mean and variance of the largest of k independent standard normal numbers, by quadrature."""
    x = np.linspace(-12.0, 12.0, 6001)
    density = k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1)
    mean = float(np.trapezoid(x * density, x))
    return mean, float(np.trapezoid(x * x * density, x)) - mean * mean


def _extent(dims: Sequence[Dim] | None) -> int:
    """Number of positions. Raises NotImplementedError where a symbol hides it."""
    if dims is None or any(isinstance(dim, str) for dim in dims[2:]):
        raise NotImplementedError("the statistics of a pool need its spatial extents")
    return math.prod(int(dim) for dim in dims[2:])


@dataclass(frozen=True)
class Largest:
    """Moments of the largest of k entries, taken as Gaussian with one correlation between positions, the part that they share.

    An adjoint lands on one of the k: two samples, or two windows, choose independently.
    """

    taps: Any  # (case) -> k

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signals[0]
        assert x is not None
        shared = min(max(x.within - x.mean**2, 0.0), x.variance)
        top, rest = largest_of(self.taps(case))
        mean = x.mean + math.sqrt(x.variance - shared) * top
        square = mean**2 + shared + (x.variance - shared) * rest
        across = mean**2 + min(max(x.across - x.mean**2, 0.0), x.variance)
        return replace(x, mean=mean, square=square, within=mean**2 + shared, across=across, reliable=False)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        share = _extent(case.outputs[0]) / max(_extent(case.shapes[0]), 1)
        return replace(adjoint, square=adjoint.square * share, within=adjoint.within * share**2, across=adjoint.across * share**2)


MaxPool = Op(
    "MaxPool",
    "The largest element of each window; among equals the first.",
    vjp=_max_vjp,
    saved=(1,),
    range=lambda case: (_channelwise(case), WHOLE)[: len(case.outputs)],
    norms=_max_norms,
    moments=Largest(lambda case: _window(case).taps),
    infer=_infer,
    refuses=_refuses,
    samples=(
        sample(("N", 2, 4, 6), kernel_shape=[2, 2], strides=[2, 2]),
        sample(("N", 2, 4, 5), kernel_shape=[2, 3], strides=[1, 2]),
        sample(("N", 2, 7), kernel_shape=[3], strides=[2], ceil_mode=1),
        sample((2, 2, 6, 5), kernel_shape=[2, 2], dilations=[2, 1], strides=[1, 2]),
        sample(("N", 1, 3, 4, 5), kernel_shape=[2, 2, 2], strides=[1, 2, 1]),
    ),
)

MaxPoolGradient = Op(
    "MaxPoolGradient",
    "Each adjoint at the place of its window's winner: g and indices [N, C, out...], x only for its shape.",
    domain=INTERNAL,
    vjp=lambda op, h, y, g, indices, x, **_: (shaped(op.Gather(op.Reshape(h, [-1]), indices, axis=0), g), None, None),
    bodies=(
        Body("scatter", _max_gradient("none"), lambda case: case.attributes["overlap"] == 1),
        Body("scatter add", _max_gradient("add")),
    ),
    infer=lambda g, indices, x, **_: x,
    samples=(
        sample((1, 1, 2, 2), np.array([[[[0, 3], [9, 15]]]]), (1, 1, 4, 4), overlap=1),
        sample((1, 2, 3), np.array([[[1, 1, 2], [4, 6, 6]]]), (1, 2, 4), overlap=2),
    ),
)


# ---- average


def _average_vjp(
    op: Any, g: Any, y: Any, x: Any, *, kernel_shape: Any, ceil_mode: int, count_include_pad: int, **rest: Any
) -> Any:
    at = window(extents(x)[2:], kernel_shape, rest)
    facts = {"kernel_shape": kernel_shape, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad, **at.attributes}
    return (op.AveragePoolGradient(g, x, **facts),)


def _is_tiling(case: Case) -> bool:
    """Windows lie side by side and cover everything."""
    at, dims = _window(case, 1), (case.shapes[1] or ())[2:]
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
    """Each adjoint, divided by its window's count, handed to every tap: a transposed convolution with ones, channel by channel."""
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
    x = _channelwise(case)
    if case.attributes.get("count_include_pad") and any(_window(case).pads):
        x = x.hull(Interval(np.zeros(()), np.zeros(())))
    return _averaged(x)


def _averaged(x: Interval) -> Interval:
    return Interval(down(x.lo, x.magnitude), up(x.hi, x.magnitude)) if x.bounded else x


def _average_norms(case: Case, position: int) -> tuple[float, float]:
    """Schur's test: rows sum to 1 at most, columns to overlap / least count. It is exact where windows are full and apart."""
    at = _window(case)
    into, out = (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
    full = not case.attributes.get("ceil_mode") and (case.attributes.get("count_include_pad") or not any(at.pads))
    known = not any(isinstance(dim, str) for dim in (*into, *out))
    least = at.taps if full else int(_counts(at, into, out, bool(case.attributes["count_include_pad"])).min()) if known else 1
    hi = math.sqrt(at.overlap / least)
    return (hi if at.overlap == 1 and full and not any(at.pads) else 0.0, hi)


@dataclass(frozen=True)
class Average:
    """Moments of the mean of k entries, of which two correlate by ``within``.

    Backward, every adjoint is dealt out in equal shares: sums over positions are kept, and the rest follows from the number of pairs.
    """

    taps: Any  # (case) -> k

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x, k = signals[0], self.taps(case)
        assert x is not None
        return replace(x, square=(x.square + (k - 1) * x.within) / k)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        k, into, out = self.taps(case), _extent(case.shapes[0]), _extent(case.outputs[0])
        over = out * k / into
        square = (over * adjoint.square + over * max(over - 1.0, 0.0) * adjoint.within) / k**2
        pairs = out * adjoint.square + out * (out - 1) * adjoint.within - into * square
        within = pairs / (into * (into - 1)) if into > 1 else square
        return replace(adjoint, square=square, within=within, across=adjoint.across * (out / into) ** 2)


AveragePool = Op(
    "AveragePool",
    "The average of each window, over its elements or, where padding counts, over all its taps.",
    vjp=_average_vjp,
    range=_average_range,
    norms=_average_norms,
    moments=Average(lambda case: _window(case).taps),
    infer=_infer,
    refuses=lambda case: (
        _refuses(case)
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


# ---- over everything


def _all_positions(op: Any, g: Any, x: Any) -> Any:
    """1 / the number of positions."""
    spatial = extents(x)[2:]
    if all(isinstance(dim, int) for dim in spatial):
        return 1.0 / math.prod(int(dim) for dim in spatial)
    return op.Reciprocal(op.Cast(op.Div(op.Size(x), op.Size(g)), to=int(x.dtype)))


def _global_average_vjp(op: Any, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    return (shaped(op.Expand(g * _all_positions(op, g, x), full_shape(op, x)), x),)


def _global_max_vjp(op: Any, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    rows = op.Reshape(x, [0, 0, -1])
    winner = op.ArgMax(rows, axis=2, keepdims=1)
    placed = op.ScatterElements(zeros_like(op, rows), winner, op.Reshape(g, [0, 0, -1]), axis=2)
    return (reshaped(op, placed, x),)


_GLOBAL = (sample(("N", 2, 3, 4)), sample(("N", 2, "H", "W")))

GlobalAveragePool = Op(
    "GlobalAveragePool",
    "The average over all positions.",
    vjp=_global_average_vjp,
    range=lambda case: _averaged(_channelwise(case)),
    norms=lambda case, position: _global_average_norms(case),
    moments=Average(lambda case: _extent(case.shapes[0])),
    samples=_GLOBAL,
)


def _global_average_norms(case: Case) -> tuple[float, float]:
    """g over n positions, n times: 1 / sqrt(n)."""
    spatial = (case.shapes[0] or ("", "", ""))[2:]
    if any(isinstance(dim, str) for dim in spatial):
        return (0.0, 1.0)
    norm = 1.0 / math.sqrt(math.prod(int(dim) for dim in spatial))
    return (norm, norm)


GlobalMaxPool = Op(
    "GlobalMaxPool",
    "The largest element over all positions; among equals the first.",
    vjp=_global_max_vjp,
    range=_channelwise,
    norms=lambda case, position: (1.0, 1.0),
    moments=Largest(lambda case: _extent(case.shapes[0])),
    samples=_GLOBAL,
)

ROWS = (MaxPool, MaxPoolGradient, AveragePool, AveragePoolGradient, GlobalAveragePool, GlobalMaxPool)
