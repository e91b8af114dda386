"""Looking up: the adjoint goes back to the place that an index names; adjoints that meet there are added."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.ops.cutting import hull_of
from vgcompile.ops.families import layout
from vgcompile.ops.layout import Moved
from vgcompile.ops.moments import scattered, signal_of
from vgcompile.ops.op import Case, Dim, sample
from vgcompile.ops.shape import added_up, constant, extents, is_shared_axis, meeting, shaped, zeros_like
from vgcompile.signal import Signal, replace


def _gather_vjp(op: Any, g: Any, y: Any, x: Any, indices: Any, axis: int = 0) -> tuple[Any, ...]:
    """Rows are added up where they came from: one row, of a known place, between zeros."""
    known, axis = constant(indices), axis % len(extents(x))
    extent = extents(x)[axis]
    if known is not None and known.ndim == 0 and isinstance(extent, int):
        place = int(known) % extent
        pads = np.zeros((2, len(extents(x))), np.int64)
        pads[:, axis] = place, extent - 1 - place
        return shaped(op.Pad(op.Unsqueeze(g, [axis]), pads.ravel()), x), None
    if known is not None:
        return rows_placed(op, x, known.astype(np.int64)[..., None], g, axis, "add"), None
    where = indices if indices.dtype.itemsize == 8 else op.Cast(indices, to=TensorProto.INT64)
    return (rows_placed(op, x, op.Unsqueeze(where, [-1]), g, axis, "add"), None)


def rows_placed(op: Any, x: Any, places: Any, rows: Any, axis: int, reduction: str) -> Any:
    """Rows of an axis of ``x`` put where ``places`` [..., 1] name them, zeros elsewhere; another axis than the first goes to the
    front and back: [before, rows, after] -> [rows, before, after]."""
    rank, count = len(extents(x)), len(places.shape) - 1
    axis %= rank

    def put(rows: Any, zeros: Callable[[], Any]) -> Any:
        def scatter(rows: Any) -> Any:
            return op.ScatterND(zeros(), places, rows, reduction=reduction)

        return added_up(op, rows, scatter) if reduction == "add" else scatter(rows)

    if not axis:
        return shaped(put(rows, lambda: zeros_like(op, x)), x)
    front = [*range(axis, axis + count), *range(axis), *range(axis + count, rank - 1 + count)]
    order = [axis, *range(axis), *range(axis + 1, rank)]
    dims = [extents(x)[i] for i in order]
    shape = op.Gather(op.Shape(x), order) if any(isinstance(dim, str) for dim in dims) else dims
    placed = put(op.Transpose(rows, perm=front), lambda: op.Expand(0.0, shape))
    return shaped(op.Transpose(placed, perm=np.argsort(order).tolist()), x)


def _uses(case: Case, position: int) -> float:
    """How often a lookup may use one and the same element: at worst as often as there are indices."""
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
    return math.inf if dims is None else meeting(case, 0, dims)


def _gather_norms(case: Case, position: int) -> tuple[float, float]:
    """An element that is looked up k times gets the sum of k adjoints, at most sqrt(k) times their norm."""
    uses = _uses(case, position)
    return (1.0 if uses == 1 else 0.0, math.sqrt(uses))


@dataclass(frozen=True)
class LookedUp:
    """Moments of a lookup by indices spread evenly over the rows: two lookups meet in one row with probability 1 / rows. One that
    is known, a position of every sequence, is no draw: the element is moved, and its adjoint is moved back."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        rows = self._rows(case)
        if self._one_place(case) or x.across < x.square * (1.0 - 1e-12) or rows < 2:
            return x
        met = x.square / rows + x.mean**2 * (1.0 - 1.0 / rows)  # a table: different rows are independent draws
        return replace(x, within=met, across=met)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        x, dims = signals[0], case.shapes[0]
        if self._one_place(case) and dims is not None:
            axis = int(case.attributes.get("axis", 0)) % len(dims)
            kept = [1 if i == axis else dim for i, dim in enumerate(dims)]
            return scattered(case, 0, adjoint, kept, {axis: [int(np.ravel(case.values[1])[0])]})  # type: ignore[arg-type]
        if x is None or x.across < x.square * (1.0 - 1e-12):  # a table's statistics are known
            return adjoint.scaled(case.count(case.outputs[0]) / max(case.count(case.shapes[0]), 1))
        rows, lookups = self._rows(case), case.count(case.shapes[1])
        n = case.batch
        p = max(lookups // n, 1)
        pairs = p * (p - 1) * adjoint.within + (n - 1) * p * p * adjoint.across
        square = max((n * p * adjoint.square + n * pairs / rows) / rows, 0.0)
        return replace(adjoint, mean=0.0, square=square, within=square, across=square)

    @staticmethod
    def _one_place(case: Case) -> bool:
        return case.values[1:2] != () and case.values[1] is not None and case.values[1].size == 1

    @staticmethod
    def _rows(case: Case) -> int:
        dims = case.shapes[0]
        assert dims is not None
        axis = int(case.attributes.get("axis", 0))
        return max(case.count([dims[axis]]), 1)


def _rows(case: Case) -> dict[int, int]:
    """The numbers name the rows along the axis."""
    dims = case.shapes[0]
    rows = dims[int(case.attributes.get("axis", 0))] if dims else None
    return {1: rows} if isinstance(rows, int) else {}


Gather = layout(
    "Gather",
    "Rows looked up by their numbers, along one axis: an embedding.",
    vjp=_gather_vjp,
    range=lambda case: hull_of(case),
    norms=_gather_norms,
    moments=LookedUp(),
    classes=_rows,
    samples=(
        sample((5, 3), np.array([[0, 4], [4, -1]])),
        sample(("N", 4, 3), np.array([2, 0, -1]), axis=1),
        sample(("N", 4, "T"), np.array(-2), axis=1),
        sample(("N", 3), np.array(0)),
        sample(("N", 4, 3), np.array(1), axis=-1),
        sample((4, 2), np.array([1, 1, 3], np.int32)),
        sample((2, "T", "H"), np.array([[0, -1, 0]]), axis=1),
    ),
)


def along(case: Case, position: int, dims: Sequence[Dim] | None) -> float:
    """How many single elements may meet in one: all that lie along the axis."""
    if dims is None:
        return math.inf
    axis = int(case.attributes.get("axis", 0)) % len(dims)
    extent = 1 if is_shared_axis(case, position, dims, axis) else dims[axis]
    return math.inf if isinstance(extent, str) else extent


GatherElements = layout(
    "GatherElements",
    "Single elements looked up by their place along one axis.",
    vjp=lambda op, g, y, x, indices, axis=0: (
        shaped(added_up(op, g, lambda g: op.ScatterElements(zeros_like(op, x), indices, g, axis=axis, reduction="add")), x),
        None,
    ),
    range=lambda case: hull_of(case),
    norms=lambda case, position: (0.0, math.sqrt(along(case, 0, case.shapes[1]))),
    moments=Moved(),
    samples=(sample((3, 4), np.array([[0, 2], [1, 1], [-1, 0]]), axis=1), sample((3, 2), np.array([[0, 1], [0, -1]]))),
)


def _gather_nd_vjp(op: Any, g: Any, y: Any, x: Any, indices: Any, batch_dims: int = 0) -> tuple[Any, ...]:
    """An index tuple within a batch is one of the whole tensor with the places along the batch's axes before it."""
    places = [_along_axis(op, indices, axis) for axis in range(batch_dims)]
    full = op.Concat(*places, indices, axis=-1) if places else indices
    return (shaped(added_up(op, g, lambda g: op.ScatterND(zeros_like(op, x), full, g, reduction="add")), x), None)


def _along_axis(op: Any, indices: Any, axis: int) -> Any:
    """For each tuple of ``indices`` its own place along an axis, [..., 1]."""
    dims = extents(indices)
    narrow = [-1 if i == axis else 1 for i in range(len(dims))]
    known = [dim for dim in dims[:-1] if isinstance(dim, int)]
    if len(known) == len(dims) - 1:
        return np.array(np.broadcast_to(np.arange(known[axis]).reshape(narrow), (*known, 1)))
    count = op.Squeeze(op.Shape(indices, start=axis, end=axis + 1), [0])
    shape = op.Concat(op.Shape(indices, end=-1), [1], axis=0)
    return op.Expand(op.Reshape(op.Range(0, count, 1), narrow), shape)


GatherND = layout(
    "GatherND",
    "Slices looked up by index tuples.",
    vjp=_gather_nd_vjp,
    range=lambda case: hull_of(case),
    norms=lambda case, position: (0.0, math.sqrt(meeting(case, 0, (case.shapes[1] or ("",))[:-1]))),
    moments=Moved(),
    samples=(
        sample((3, 4), np.array([[0, 1], [2, 3], [0, 1]])),
        sample((3, "T", 2), np.array([[[2]], [[0]]])),
        sample((2, 3, 4), np.array([[[1], [2]], [[0], [0]]]), batch_dims=1),
        sample((2, 2, 3, "T"), np.array([[[0], [2]], [[1], [1]]]), batch_dims=2),
    ),
)


ROWS = (Gather, GatherElements, GatherND)
