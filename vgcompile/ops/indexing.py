"""Looking up and scattering: the adjoint goes back to the place that an index names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval
from vgcompile.ops.cutting import bound_of, hull_of
from vgcompile.ops.families import isometry, layout
from vgcompile.ops.layout import Moved, restriction
from vgcompile.ops.op import Case, Dim, Op, sample
from vgcompile.ops.shape import extents, is_shared_axis, meeting, shaped, zeros_like
from vgcompile.signal import Signal, replace


def _gather_vjp(op: Any, g: Any, y: Any, x: Any, indices: Any, axis: int = 0) -> tuple[Any, ...]:
    """Rows are added up where they came from; another axis goes to the front: [before, rows, after] -> [rows, before, after]."""
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
        sample(("N", 4, 3), np.array(1), axis=-1),
        sample((4, 2), np.array([1, 1, 3], np.int32)),
    ),
)


def _along(case: Case, position: int, dims: Sequence[Dim] | None) -> float:
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
        shaped(op.ScatterElements(zeros_like(op, x), indices, g, axis=axis, reduction="add"), x),
        None,
    ),
    range=lambda case: hull_of(case),
    norms=lambda case, position: (0.0, math.sqrt(_along(case, 0, case.shapes[1]))),
    moments=Moved(),
    samples=(sample((3, 4), np.array([[0, 2], [1, 1], [-1, 0]]), axis=1), sample((3, 2), np.array([[0, 1], [0, -1]]))),
)


def _without_batch(case: Case) -> str:
    return "batch_dims is not supported by its gradient" if case.attributes.get("batch_dims") else ""


GatherND = layout(
    "GatherND",
    "Slices looked up by index tuples.",
    vjp=lambda op, g, y, x, indices, **_: (shaped(op.ScatterND(zeros_like(op, x), indices, g, reduction="add"), x), None),
    range=lambda case: hull_of(case),
    norms=lambda case, position: (0.0, math.sqrt(meeting(case, 0, (case.shapes[1] or ("",))[:-1]))),
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
    base, updates = bound_of(case, 0).scalar(), bound_of(case, 2).scalar()
    if case.attributes.get("reduction", "none") == "none":
        return base.hull(updates)
    size = _updates(case)
    most = float(updates.magnitude) * size * (1.0 + 1e-12) if math.isfinite(size) and updates.bounded else math.inf
    return Interval(base.lo - most * (1.0 + 1e-12), base.hi + most * (1.0 + 1e-12)) if math.isfinite(most) else WHOLE


def _scatter_norms(case: Case, position: int) -> tuple[float, float]:
    """To the base: g itself (added) or a part of it. To the updates: g at their places, once for each that names it."""
    if position == 0:
        return isometry(case, 0) if case.attributes.get("reduction", "none") == "add" else restriction(case, 0)
    if case.attributes.get("reduction", "none") == "none":
        return (0.0, 1.0)
    return (0.0, math.sqrt(_updates(case)))


def _updates(case: Case) -> float:
    """How many updates may name one and the same element."""
    if "axis" in case.attributes:
        return _along(case, 2, case.shapes[1])
    return meeting(case, 2, (case.shapes[1] or ("",))[:-1])


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

ROWS = (Gather, GatherElements, GatherND, ScatterElements, ScatterND)
