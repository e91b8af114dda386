"""Cutting, padding, looking up and scattering: the adjoint goes back to the place that an index names.

Where no simple form exists the operator itself finds the places: run on a counting tensor, it says for each output element which
element of the input it is (its source), and ``ScatterElements`` adds the adjoints up there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, interval, point
from vgcompile.ops.families import isometry, layout
from vgcompile.ops.shape import Moved, extents, is_sample_axis, per_sample, reshaped, restriction, shaped, zeros_like
from vgcompile.ops.op import Array, Case, Op, sample
from vgcompile.signal import Signal, replace


LAST = np.iinfo(np.int64).max


def _constant(x: Any) -> Array | None:
    """The array that an operand is known to hold, or None."""
    return None if x is None or x.const_value is None or x.is_graph_input() else np.asarray(x.const_value.numpy())


def _scattered(op: Any, g: Any, x: Any, move: Callable[[Any], Any]) -> Any:
    """The adjoint of a ``move`` that copies elements, whatever it does."""
    count = op.Size(x)
    sources = move(op.Reshape(op.Range(0, count, 1), op.Shape(x)))
    zeros = op.Expand(0.0, op.Reshape(count, [1]))
    flat = op.ScatterElements(zeros, op.Reshape(sources, [-1]), op.Reshape(g, [-1]), axis=0, reduction="add")
    return reshaped(op, flat, x)


def _hull(case: Case, *others: Interval) -> Interval:
    found = (case.ranges[0] or WHOLE).scalar()
    for other in others:
        found = found.hull(other.scalar())
    return found


def _bound(case: Case, position: int) -> Interval:
    value = case.values[position]
    return case.ranges[position] or (WHOLE if value is None else point(value))


# ---- Slice and Pad


def _slice_vjp(op: Any, g: Any, y: Any, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[Any, ...]:
    """With known starts and step 1 a Pad with zeros, by sizes that may be known at run time only."""
    before = _leading(x, starts, axes, steps)
    if before is None:
        return (_scattered(op, g, x, lambda count: op.Slice(count, starts, ends, axes, steps)),)
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


def _leading(x: Any, starts: Any, axes: Any, steps: Any) -> list[int] | None:
    """How many elements a slice drops at the beginning of each axis; None where it is not known, or its step is not 1."""
    first, step = _constant(starts), None if steps is None else _constant(steps)
    if (
        first is None
        or (axes is not None and _constant(axes) is None)
        or (steps is not None and (step is None or (step != 1).any()))
    ):
        return None
    dims = extents(x)
    along = range(len(first)) if axes is None else (np.asarray(_constant(axes)) % len(dims)).tolist()
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


Slice = layout(
    "Slice",
    "A part of a tensor, by starts, ends and steps along its axes.",
    vjp=_slice_vjp,
    range=_slice_range,
    moments=Moved(),
    samples=(
        sample(("N", 6), np.array([1]), np.array([4]), np.array([1])),
        sample(("N", 6), np.array([-1]), np.array([-7]), np.array([1]), np.array([-2])),
        sample((4, "T", 3), np.array([1, 0]), np.array([3, 9]), np.array([0, 2])),
        sample((6, "T"), np.array([0, 0]), np.array([-1, 1]), np.array([0, 1])),
        sample((6, "T"), np.array([-9, -1]), np.array([5, 9])),
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
    known = _constant(pads)
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
        return _hull(case)
    given = len(case.shapes) > 2 and case.shapes[2] is not None
    return _hull(case, _bound(case, 2) if given else interval(0.0, 0.0))


def _pad_norms(case: Case, position: int) -> tuple[float, float]:
    """A constant pad's adjoint keeps a part of g; another mode adds the copies of an element up."""
    if position == 2:
        out = case.outputs[0]
        return (0.0, math.inf if out is None else math.sqrt(per_sample(out, case.batch)))
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
        x = signals[0]
        assert x is not None
        if case.attributes.get("mode", "constant") != "constant" or (len(case.shapes) > 2 and case.shapes[2] is not None):
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


# ---- looking up


def _gather_vjp(op: Any, g: Any, y: Any, x: Any, indices: Any, axis: int = 0) -> tuple[Any, ...]:
    """Rows are added up where they came from. Another axis is moved to the front first: [before, rows, after] -> [rows, before, after]."""
    rank, count = len(extents(x)), len(extents(indices))
    axis %= rank
    if axis:
        front = [*range(axis, axis + count), *range(axis), *range(axis + count, rank - 1 + count)]
        order = [axis, *range(axis), *range(axis + 1, rank)]
        moved = op.Transpose(x, perm=order)
        rows = _add_rows(op, moved, indices, op.Transpose(g, perm=front))
        return (shaped(op.Transpose(rows, perm=np.argsort(order).tolist()), x), None)
    return (shaped(_add_rows(op, x, indices, g), x), None)


def _add_rows(op: Any, x: Any, indices: Any, g: Any) -> Any:
    where = indices if indices.dtype.itemsize == 8 else op.Cast(indices, to=7)
    return op.ScatterND(zeros_like(op, x), op.Unsqueeze(where, [-1]), g, reduction="add")


def _uses(case: Case, position: int) -> float:
    """How often, in one sample, a lookup may use one and the same element: as often as there are indices, if nothing better is known."""
    indices, dims = case.values[1], case.shapes[1]
    if indices is not None and indices.size:
        x = case.shapes[0]
        extent = x[int(case.attributes.get("axis", 0))] if x else None
        wrapped = indices % extent if isinstance(extent, int) else indices
        return (
            float(np.unique(wrapped, return_counts=True)[1].max())
            if isinstance(extent, int) or (indices >= 0).all()
            else float(indices.size)
        )
    return math.inf if dims is None else per_sample(dims, case.batch)


def _gather_norms(case: Case, position: int) -> tuple[float, float]:
    """An element that is looked up k times gets the sum of k adjoints, at most sqrt(k) times their norm."""
    uses = _uses(case, position)
    return (1.0 if uses == 1 else 0.0, math.sqrt(uses))


@dataclass(frozen=True)
class LookedUp:
    """Moments of a lookup by indices spread evenly over the rows: two lookups meet in one row with probability 1 / rows."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signals[0]
        assert x is not None
        rows = self._rows(case)
        if x.across < x.square * (1.0 - 1e-12) or rows < 2:
            return x
        met = x.square / rows + x.mean**2 * (1.0 - 1.0 / rows)  # a table: different rows are independent draws
        return replace(x, within=met, across=met)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        x = signals[0]
        if x is not None and x.across < x.square * (1.0 - 1e-12):
            return adjoint.scaled(case.count(case.outputs[0]) / max(case.count(case.shapes[0]), 1))
        rows, lookups = self._rows(case), case.count(case.shapes[1])
        n = case.batch
        p = max(lookups // n, 1)
        pairs = p * (p - 1) * adjoint.within + (n - 1) * p * p * adjoint.across
        square = max((n * p * adjoint.square + n * pairs / rows) / rows, 0.0)
        return replace(adjoint, mean=0.0, square=square, within=square, across=square)

    @staticmethod
    def _rows(case: Case) -> int:
        dims = case.shapes[0]
        assert dims is not None
        axis = int(case.attributes.get("axis", 0))
        return max(case.count([dims[axis]]), 1)


Gather = layout(
    "Gather",
    "Rows looked up by their numbers, along one axis: an embedding.",
    vjp=_gather_vjp,
    range=lambda case: _hull(case),
    norms=_gather_norms,
    moments=LookedUp(),
    samples=(
        sample((5, 3), np.array([[0, 4], [4, -1]])),
        sample(("N", 4, 3), np.array([2, 0, -1]), axis=1),
        sample(("N", 4, 3), np.array(1), axis=-1),
        sample((4, 2), np.array([1, 1, 3], np.int32)),
    ),
)

GatherElements = layout(
    "GatherElements",
    "Single elements looked up by their place along one axis.",
    vjp=lambda op, g, y, x, indices, axis=0: (
        shaped(op.ScatterElements(zeros_like(op, x), indices, g, axis=axis, reduction="add"), x),
        None,
    ),
    range=lambda case: _hull(case),
    norms=lambda case, position: (0.0, math.sqrt(per_sample(case.outputs[0] or ("",)))),
    moments=Moved(),
    samples=(sample((3, 4), np.array([[0, 2], [1, 1], [-1, 0]]), axis=1), sample((3, 2), np.array([[0, 1], [0, -1]]))),
)


def _without_batch(case: Case) -> str:
    return "batch_dims is not supported by its gradient" if case.attributes.get("batch_dims") else ""


GatherND = layout(
    "GatherND",
    "Slices looked up by index tuples.",
    vjp=lambda op, g, y, x, indices, **_: (shaped(op.ScatterND(zeros_like(op, x), indices, g, reduction="add"), x), None),
    range=lambda case: _hull(case),
    norms=lambda case, position: (0.0, math.sqrt(per_sample((case.shapes[1] or ("",))[:-1]))),
    moments=Moved(),
    refuses=_without_batch,
    samples=(sample((3, 4), np.array([[0, 1], [2, 3], [0, 1]])), sample((3, "T", 2), np.array([[[2]], [[0]]]))),
)


# ---- scattering


def _scatter_elements_vjp(
    op: Any, g: Any, y: Any, x: Any, indices: Any, updates: Any, axis: int = 0, reduction: str = "none"
) -> tuple[Any, ...]:
    """An overwritten element gets nothing; an update gets the adjoint of its place."""
    dx = g if reduction == "add" else op.ScatterElements(g, indices, zeros_like(op, updates), axis=axis)
    return shaped(dx, x), None, shaped(op.GatherElements(g, indices, axis=axis), updates)


def _scatter_nd_vjp(op: Any, g: Any, y: Any, x: Any, indices: Any, updates: Any, reduction: str = "none") -> tuple[Any, ...]:
    dx = g if reduction == "add" else op.ScatterND(g, indices, zeros_like(op, updates))
    return shaped(dx, x), None, shaped(op.GatherND(g, indices), updates)


def _additive(case: Case) -> str:
    mode = case.attributes.get("reduction", "none")
    return "" if mode in ("none", "add") else f"reduction {mode!r} is not linear in its updates"


def _scatter_range(case: Case) -> Interval:
    """Overwritten: the hull of both. Added: several updates may meet, of which at most all do."""
    base, updates = _bound(case, 0).scalar(), _bound(case, 2).scalar()
    if case.attributes.get("reduction", "none") == "none":
        return base.hull(updates)
    size = per_sample(case.shapes[2] or ("",))
    most = float(updates.magnitude) * size * (1.0 + 1e-12) if math.isfinite(size) and updates.bounded else math.inf
    return Interval(base.lo - most * (1.0 + 1e-12), base.hi + most * (1.0 + 1e-12)) if math.isfinite(most) else WHOLE


def _scatter_norms(case: Case, position: int) -> tuple[float, float]:
    """To the base: g itself (added) or a part of it. To the updates: g at their places, once for each that names it."""
    if position == 0:
        return isometry(case, 0) if case.attributes.get("reduction", "none") == "add" else restriction(case, 0)
    if case.attributes.get("reduction", "none") == "none":
        return (0.0, 1.0)
    dims = case.shapes[1] or ("",)
    sizes = [1 if is_sample_axis(dims, axis, case.batch) else dim for axis, dim in enumerate(dims)]
    return (0.0, math.inf if any(isinstance(d, str) for d in sizes) else math.sqrt(math.prod(int(d) for d in sizes)))


ScatterElements = Op(
    "ScatterElements",
    "Single elements overwritten, or added to, at places along one axis.",
    vjp=_scatter_elements_vjp,
    range=_scatter_range,
    norms=_scatter_norms,
    refuses=_additive,
    samples=(
        sample((3, 4), np.array([[0, 2], [1, 3], [3, 0]]), (3, 2), axis=1),
        sample((3, 2), np.array([[0, 1], [0, -1]]), (2, 2), reduction="add"),
    ),
)

ScatterND = Op(
    "ScatterND",
    "Slices overwritten, or added to, at index tuples.",
    vjp=_scatter_nd_vjp,
    range=_scatter_range,
    norms=_scatter_norms,
    refuses=_additive,
    samples=(
        sample((4, "T"), np.array([[1], [3]]), (2, "T")),
        sample((4, 3), np.array([[1], [3], [1]]), (3, 3), reduction="add"),
    ),
)

ROWS = (Slice, Pad, Gather, GatherElements, GatherND, ScatterElements, ScatterND)
