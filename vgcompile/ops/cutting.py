"""Cutting and padding: what was cut off gets zeros, what was padded on is cut off again.

Where no simple form exists the operator itself finds the places: run on a counting tensor, it says for each output element which
element of the input it is, and ``ScatterElements`` adds the adjoints up there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto

from vgcompile.interval import WHOLE, Interval, interval, point
from vgcompile.ops.families import layout
from vgcompile.ops.layout import Moved
from vgcompile.ops.maps import rearranged
from vgcompile.ops.moments import signal_of
from vgcompile.ops.op import Array, Case, sample
from vgcompile.ops.shape import added_up, constant, extents, meeting, reshaped, shaped
from vgcompile.signal import Signal, replace

LAST = np.iinfo(np.int64).max


def _scattered(op: Any, g: Any, x: Any, move: Callable[[Any], Any]) -> Any:
    """The adjoint of a ``move`` that copies elements, whatever it does."""
    count = op.Size(x)
    sources = move(op.Reshape(op.Range(0, count, 1), op.Shape(x)))
    places, length = op.Reshape(sources, [-1]), op.Reshape(count, [1])
    flat = added_up(
        op, op.Reshape(g, [-1]), lambda g: op.ScatterElements(op.Expand(0.0, length), places, g, axis=0, reduction="add")
    )
    return reshaped(op, flat, x)


def hull_of(case: Case, *others: Interval) -> Interval:
    found = (case.ranges[0] or WHOLE).scalar()
    for other in others:
        found = found.hull(other.scalar())
    return found


def bound_of(case: Case, position: int) -> Interval:
    value = case.values[position]
    return case.ranges[position] or (WHOLE if value is None else point(value))


def _slice_vjp(op: Any, g: Any, y: Any, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[Any, ...]:
    """With step 1 a Pad with zeros, by sizes that may be known at run time only."""
    step = None if steps is None else constant(steps)
    if steps is not None and (step is None or (step != 1).any()):
        return (_scattered(op, g, x, lambda count: op.Slice(count, starts, ends, axes, steps)),)
    before = _leading(x, starts, axes)
    if before is None:
        if axes is None:
            count = extents(starts)[0]
            axes = list(range(count)) if isinstance(count, int) else op.Range(0, op.Size(starts), 1)
        return (shaped(op.Pad(g, _counted(op, x, y, starts, axes), None, axes), x),)
    dims, out = extents(x), extents(y)
    after = [
        0 if have == want and not b else have - want - b if isinstance(have, int) and isinstance(want, int) else None
        for have, want, b in zip(dims, out, before, strict=True)
    ]
    if None not in after:
        pads: Any = [*before, *(a for a in after if a is not None)]
    else:
        pads = op.Concat(np.asarray(before), op.Shape(x) - op.Shape(y) - np.asarray(before), axis=0)
    return (shaped(op.Pad(g, pads), x),)


def _counted(op: Any, x: Any, y: Any, starts: Any, axes: Any) -> Any:
    """How many elements a slice with step 1 drops at both ends of its axes, as a run tells: no more than are missing."""
    shape, first = op.Shape(x), constant(starts)
    missing = op.Gather(op.Sub(shape, op.Shape(y)), axes, axis=0)
    begins = starts if starts.dtype == ir.DataType.INT64 else op.Cast(starts, to=TensorProto.INT64)
    if first is None or (first < 0).any():
        from_end = op.Add(begins, op.Gather(shape, axes, axis=0))
        begins = from_end if first is not None and (first < 0).all() else op.Where(op.Less(begins, 0), from_end, begins)
    before = op.Max(op.Min(begins, missing), 0)
    return op.Concat(before, op.Sub(missing, before), axis=0)


def _leading(x: Any, starts: Any, axes: Any) -> list[int] | None:
    """How many elements a slice with step 1 drops at the beginning of each axis; None where it is not known."""
    first = constant(starts)
    if first is None or (axes is not None and constant(axes) is None):
        return None
    dims = extents(x)
    along = range(len(first)) if axes is None else (np.asarray(constant(axes)) % len(dims)).tolist()
    before = [0] * len(dims)
    for axis, start in zip(along, first.tolist(), strict=True):
        extent = dims[axis]
        if isinstance(extent, str):
            if start < 0:
                return None
            before[axis] = start
        else:
            before[axis] = min(max(start + extent if start < 0 else start, 0), extent)
    return before


def _slice_numpy(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    along = range(len(starts)) if axes is None else [int(axis) for axis in axes]
    index = [slice(None)] * x.ndim
    for i, axis in enumerate(along):
        step, end = 1 if steps is None else int(steps[i]), int(ends[i])
        beyond = step < 0 and end < -x.shape[axis]
        index[axis] = slice(int(starts[i]), None if beyond else end, step)
    return x[tuple(index)]


def _sliced(x: Array, given: Sequence[Any]) -> Array:
    """Raises ValueError where starts or ends are computed."""
    if any(value is None for value in given[:2]):
        raise ValueError("starts and ends are not known")
    starts, ends, *rest = given
    return _slice_numpy(x, starts, ends, *rest)


def _slice_range(case: Case) -> Interval:
    """Axes of known extent are cut; a symbolic axis that is cut leaves the hull."""
    dims, given, values = case.shapes[0], case.ranges[0] or WHOLE, case.values
    known = len(values) > 2 and all(value is not None for value in values[1:])
    if dims is None or given.lo.ndim != len(dims) or not known:
        return given.scalar()
    axes = values[3] if len(values) > 3 else np.arange(len(np.asarray(values[1])))
    if any(isinstance(dims[int(axis)], str) for axis in np.asarray(axes)):
        return given.scalar()
    full = [1 if isinstance(dim, str) else dim for dim in dims]
    cut = given.map(lambda x: _slice_numpy(np.broadcast_to(x, full), *(np.asarray(v) for v in values[1:] if v is not None)))
    return cut if cut.lo.size else given.scalar()


def _places(case: Case) -> dict[int, list[int]]:
    """Which places of each axis of known extent are read; nothing where that is computed."""
    dims, found = case.shapes[0] or (), {}
    for axis, extent in enumerate(dims):
        if isinstance(extent, int):
            shape = [extent if i == axis else 1 for i in range(len(dims))]
            numbers = np.broadcast_to(np.arange(extent).reshape(shape), [d if isinstance(d, int) else 1 for d in dims])
            try:
                found[axis] = np.unique(_sliced(numbers, case.values[1:])).tolist()
            except (ValueError, IndexError):
                return {}
    return found


Slice = layout(
    "Slice",
    "A part of a tensor, by starts, ends and steps along its axes.",
    vjp=_slice_vjp,
    range=_slice_range,
    tangent=lambda case, position: rearranged(case, 0, lambda x: _sliced(x, case.values[1:])),
    moments=Moved(_places),
    samples=(
        sample(("N", 6), np.array([1]), np.array([4]), np.array([1])),
        sample(("N", 6), np.array([-1]), np.array([-7]), np.array([1]), np.array([-2])),
        sample((4, "T", 3), np.array([1, 0]), np.array([3, 9]), np.array([0, 2])),
        sample((6, "T"), np.array([0, 0]), np.array([-1, 1]), np.array([0, 1])),
        sample((6, "T"), np.array([-9, -1]), np.array([5, 9])),
        sample(("N", "T"), np.array([-2]), np.array([9]), np.array([1])),
        sample(("N", "T", 2), np.array([-9, 1]), np.array([-1, 2])),
    ),
)


def _pad_vjp(
    op: Any, g: Any, y: Any, x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant"
) -> tuple[Any, ...]:
    """Constant: the pads turned around cut the padding off again, and what was cut off belongs to the padding value."""
    if mode != "constant":
        return (_scattered(op, g, x, lambda count: op.Pad(count, pads, None, axes, mode=mode)),)
    dx = shaped(_unpadded(op, g, pads, axes), x)
    dvalue = None if value is None else op.Sub(op.ReduceSum(g, keepdims=0), op.ReduceSum(dx, keepdims=0))
    return (dx, None, dvalue)


def _unpadded(op: Any, g: Any, pads: Any, axes: Any) -> Any:
    """Cut what was added, add zeros where something was cut."""
    known = constant(pads)
    if known is None:
        return op.Pad(g, op.Neg(pads), None, axes)
    half = len(known) // 2
    if (known > 0).any():
        along = np.arange(half) if axes is None else axes
        ends = [-int(after) if after > 0 else LAST for after in known[half:]]
        g = op.Slice(g, np.maximum(known[:half], 0), ends, along)
    return op.Pad(g, np.maximum(-known, 0), None, axes) if (known < 0).any() else g


def _pad_range(case: Case) -> Interval:
    if case.attributes.get("mode", "constant") != "constant":
        return hull_of(case)
    given = len(case.shapes) > 2 and case.shapes[2] is not None
    return hull_of(case, bound_of(case, 2) if given else interval(0.0, 0.0))


def _pad_norms(case: Case, position: int) -> tuple[float, float]:
    """A constant pad's adjoint keeps a part of g; another mode adds the copies of an element up."""
    if position == 2:
        out = case.outputs[0]
        return (0.0, math.inf if out is None else math.sqrt(meeting(case, 2, out)))
    if case.attributes.get("mode", "constant") == "constant":
        return (0.0, 1.0)
    pads, dims = case.values[1], case.shapes[0]
    if pads is None or dims is None or any(isinstance(dim, str) for dim in dims):
        return (0.0, math.inf)
    count = np.arange(math.prod(int(d) for d in dims)).reshape([int(d) for d in dims])
    axes = case.values[3] if len(case.values) > 3 and case.values[3] is not None else np.arange(len(dims))
    width = [(0, 0)] * len(dims)
    for i, axis in enumerate(np.asarray(axes)):
        width[int(axis)] = (int(pads[i]), int(pads[i + len(pads) // 2]))
    if min(min(pair) for pair in width) < 0:
        return (0.0, math.inf)
    mode: Any = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[case.attributes["mode"]]
    copies = np.bincount(np.pad(count, width, mode=mode).ravel())
    return (0.0, math.sqrt(float(copies.max())))


@dataclass(frozen=True)
class Padded:
    """Moments of a tensor among constants: averages weighted by the number of elements; the adjoint's core is kept."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        given = len(case.shapes) > 2 and case.shapes[2] is not None
        zeros = not given or (case.values[2] is not None and not case.values[2].any())
        if case.attributes.get("mode", "constant") != "constant" or not zeros:
            raise NotImplementedError("only padding with zeros is predicted")
        share = case.count(case.shapes[0]) / case.count(case.outputs[0])
        pairs = share * share
        return replace(x, mean=x.mean * share, square=x.square * share, within=x.within * pairs, across=x.across * pairs)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position or case.attributes.get("mode", "constant") != "constant":
            raise NotImplementedError("only padding with zeros is predicted")
        return adjoint


Pad = layout(
    "Pad",
    "A tensor with elements added at its ends (or, for negative pads, taken away).",
    vjp=_pad_vjp,
    range=_pad_range,
    norms=_pad_norms,
    moments=Padded(),
    samples=(
        sample(("N", 3), np.array([0, 1, 0, 2])),
        sample(("N", 4, 3), np.array([1, 0, 2, 1]), (), np.array([1, 2])),
        sample((3, 4), np.array([1, 2, 2, 3]), mode="reflect"),
        sample((3, "T", 2), np.array([0, 1, 0, 0, 2, 0]), mode="edge"),
        sample((3, 4), np.array([2, 3, 1, 0]), mode="wrap"),
    ),
)


def _center_vjp(op: Any, g: Any, y: Any, x: Any, shape: Any, *, axes: Sequence[int] | None) -> tuple[Any, ...]:
    """Back to the old extents by the same centres: what was cut off gets zeros, what was padded on is cut off."""
    dims = extents(x)
    along = list(range(len(dims))) if axes is None else [axis % len(dims) for axis in axes]
    if all(isinstance(dims[axis], int) for axis in along):
        target: Any = [dims[axis] for axis in along]
    else:
        target = op.Shape(x) if axes is None else op.Gather(op.Shape(x), along, axis=0)
    return shaped(op.CenterCropPad(g, target, axes=axes), x), None


CenterCropPad = layout(
    "CenterCropPad",
    "A tensor cut, or padded with zeros, around its centre.",
    unpredicted="what is kept follows from a shape that only a run tells",
    vjp=_center_vjp,
    range=lambda case: hull_of(case, interval(0.0, 0.0)),
    norms=lambda case, position: (0.0, 1.0),
    moments=None,
    samples=(
        sample((5, 4), np.array([2, 7])),
        sample(("N", 4, 3), np.array([7, 2]), axes=[1, -1]),
        sample((2, "H", "W"), np.array([4, 3]), axes=[2, 1]),
        sample(("N", 3), np.array([4, 2])),
    ),
)

ROWS = (Slice, Pad, CenterCropPad)
