"""Pools of the largest element of each window.

MaxPoolGradient(g, indices, x) -> dx       "scatter" (windows apart), "scatter add"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval
from vgcompile.ops import flops
from vgcompile.ops.moments import LARGEST, largest_of, signal_of
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Dim, Op, sample
from vgcompile.ops.shape import added_up, extents, reshaped, shaped, zeros_like
from vgcompile.ops.window import Window, disputed, same_extents, window
from vgcompile.signal import Signal, replace


def window_of(case: Case, position: int = 0) -> Window:
    dims = case.shapes[position]
    assert dims is not None
    return window(dims[2:], case.attributes["kernel_shape"], case.attributes)


def _first(g: Any) -> Any:
    """The adjoint of the pooled values; indices have none."""
    return g[0] if isinstance(g, tuple) else g


def infer(x: Any, *, kernel_shape: Sequence[int], **attributes: Any) -> Any:
    return same_extents(x, kernel_shape, attributes)


def _scatter(op: Any, g: Any, indices: Any, x: Any, **_: Any) -> Any:
    """Indices count through the whole flattened tensor; no two name the same element."""
    flat = op.ScatterElements(_flat_zeros(op, x), op.Reshape(indices, [-1]), op.Reshape(g, [-1]), axis=0)
    return reshaped(op, flat, x)


def _scatter_add(op: Any, g: Any, indices: Any, x: Any, **_: Any) -> Any:
    """An element that wins in several windows gets the sum of their adjoints."""
    places = op.Unsqueeze(indices, [-1])
    return reshaped(op, added_up(op, g, lambda g: op.ScatterND(_flat_zeros(op, x), places, g, reduction="add")), x)


def _flat_zeros(op: Any, x: Any) -> Any:
    dims = extents(x)
    static = all(isinstance(dim, int) for dim in dims)
    return op.Expand(0.0, [math.prod(int(dim) for dim in dims)] if static else op.Reshape(op.Size(x), [1]))


def _max_vjp(op: Any, g: Any, y: Any, x: Any, **attributes: Any) -> tuple[Any, ...]:
    """By the operator's own indices, where they count as memory does; else by those of the pool that counts so."""
    at = window(extents(x)[2:], attributes["kernel_shape"], attributes)
    row_major = {**attributes, "storage_order": 0}
    indices = op.MaxPool(x, outputs=2, **row_major)[1] if attributes.get("storage_order") else y[1]
    return (op.MaxPoolGradient(_first(g), indices, x, overlap=at.overlap),)


def refuses(case: Case) -> str:
    given = case.attributes
    if (given.get("auto_pad") or "NOTSET").startswith("SAME") and set(given.get("dilations") or (1,)) != {1}:
        return "auto_pad SAME with dilations is read in two ways by the runtimes; give explicit pads"
    return disputed((case.shapes[0] or ())[2:], given["kernel_shape"], given) or _overhang(case) or _blind(case)


def _blind(case: Case) -> str:
    """Taps far apart may step over a small tensor altogether."""
    at, dims = window_of(case), (case.shapes[0] or ())[2:]
    apart = [d for d, b, a in zip(at.dilations, at.before, at.after, strict=True) if b + a and d > 1]
    if not apart or any(isinstance(dim, str) for dim in (*dims, *(case.outputs[0] or ())[2:])):
        return ""
    inside = windows_of(at, dims, (case.outputs[0] or ())[2:])
    return "a window holds nothing but padding; choose other pads or dilations" if (inside == 0).any() else ""


def windows_of(at: Window, into: Sequence[Dim], out: Sequence[Dim], padding_counts: bool = False) -> Array:
    """How many elements each window holds, [1, 1, out...]; padding among them where it counts."""
    found = np.ones((1, 1))
    for axis, (k, s, d) in enumerate(zip(at.kernel, at.strides, at.dilations, strict=True)):
        low, beyond = (-at.before[axis], at.after[axis]) if padding_counts else (0, 0)
        place = np.arange(int(out[axis]))[:, None] * s - at.before[axis] + np.arange(k) * d
        inside = ((place >= low) & (place < int(into[axis]) + beyond)).sum(axis=1)
        found = found[..., None] * inside
    return found


def _overhang(case: Case) -> str:
    """With ceil_mode the last window may start beyond the tensor: it counts in one version of ONNX and not in another."""
    at, into, out = window_of(case), (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
    for axis, (have, windows) in enumerate(zip(into, out, strict=True)):
        if isinstance(have, int) and isinstance(windows, int) and (windows - 1) * at.strides[axis] - at.before[axis] >= have:
            return "with ceil_mode a window would start beyond the end; choose other pads or strides"
    return ""


def channelwise(case: Case) -> Interval:
    """The hull of each channel's range, in a shape that holds for any spatial extents."""
    dims, given = case.shapes[0], case.ranges[0] or WHOLE
    if dims is None or given.lo.ndim < len(dims):
        return given.scalar() if given.lo.ndim else given
    axes = tuple(range(2, len(dims)))
    return Interval(given.lo.min(axis=axes, keepdims=True), given.hi.max(axis=axes, keepdims=True))


def _max_norms(case: Case, position: int) -> tuple[float, float]:
    """Windows that do not overlap have different winners; else one element may win in as many windows as hold it."""
    overlap = window_of(case).overlap
    return (1.0 if overlap == 1 else 0.0, math.sqrt(overlap))


def extent_of(dims: Sequence[Dim] | None) -> int:
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
        x = signal_of(signals, 0)
        shared = min(max(x.within - x.mean**2, 0.0), x.variance)
        top, rest = largest_of(self.taps(case))
        mean = x.mean + math.sqrt(x.variance - shared) * top
        square = mean**2 + shared + (x.variance - shared) * rest
        across = mean**2 + min(max(x.across - x.mean**2, 0.0), x.variance)
        return replace(x, mean=mean, square=square, within=mean**2 + shared, across=across, doubt=x.doubt or LARGEST)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        share = extent_of(case.outputs[0]) / max(extent_of(case.shapes[0]), 1)
        return replace(adjoint, square=adjoint.square * share, within=adjoint.within * share**2, across=adjoint.across * share**2)


MaxPool = Op(
    "MaxPool",
    "The largest element of each window; among equals the first.",
    flops=flops.pool,
    vjp=_max_vjp,
    saved=(1,),
    range=lambda case: (channelwise(case), WHOLE)[: len(case.outputs)],
    norms=_max_norms,
    moments=Largest(lambda case: window_of(case).taps),
    infer=infer,
    refuses=refuses,
    samples=(
        sample(("N", 2, 4, 6), kernel_shape=[2, 2], strides=[2, 2]),
        sample(("N", 2, 4, 5), kernel_shape=[2, 3], strides=[1, 2]),
        sample(("N", 2, 7), kernel_shape=[3], strides=[2], ceil_mode=1),
        sample((2, 2, 6, 5), kernel_shape=[2, 2], dilations=[2, 1], strides=[1, 2]),
        sample(("N", 1, 3, 4, 5), kernel_shape=[2, 2, 2], strides=[1, 2, 1]),
        sample(("N", 2, "H", "W"), kernel_shape=[3, 2], strides=[2, 3], auto_pad="SAME_LOWER"),
        sample(("N", 2, 4, 5), kernel_shape=[2, 2], strides=[2, 1], storage_order=1),
        sample(("N", 2, "T"), kernel_shape=[3], strides=[3], pads=[1, 1], ceil_mode=1),
    ),
)

MaxPoolGradient = Op(
    "MaxPoolGradient",
    "Each adjoint at the place of its window's winner: g and indices [N, C, out...], x only for its shape.",
    unpredicted="it stands in gradients alone, which are predicted from the forward operators",
    domain=INTERNAL,
    vjp=lambda op, h, y, g, indices, x, **_: (shaped(op.Gather(op.Reshape(h, [-1]), indices, axis=0), g), None, None),
    bodies=(
        Body("scatter", _scatter, lambda case: case.attributes["overlap"] == 1),
        Body("scatter add", _scatter_add),
    ),
    infer=lambda g, indices, x, **_: x,
    samples=(
        sample((1, 1, 2, 2), np.array([[[[0, 3], [9, 15]]]]), (1, 1, 4, 4), overlap=1),
        sample((1, 2, 3), np.array([[[1, 1, 2], [4, 6, 6]]]), (1, 2, 4), overlap=2),
    ),
)


def _global_max_vjp(op: Any, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    rows = op.Reshape(x, [0, 0, -1])
    winner = op.ArgMax(rows, axis=2, keepdims=1)
    placed = op.ScatterElements(zeros_like(op, rows), winner, op.Reshape(g, [0, 0, -1]), axis=2)
    return (reshaped(op, placed, x),)


GLOBAL = (sample(("N", 2, 3, 4)), sample(("N", 2, "H", "W")))


GlobalMaxPool = Op(
    "GlobalMaxPool",
    "The largest element over all positions; among equals the first.",
    flops=flops.read(),
    vjp=_global_max_vjp,
    range=channelwise,
    norms=lambda case, position: (1.0, 1.0),
    moments=Largest(lambda case: extent_of(case.shapes[0])),
    samples=GLOBAL,
)

ROWS = (MaxPool, MaxPoolGradient, GlobalMaxPool)
