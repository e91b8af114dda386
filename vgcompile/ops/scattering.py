"""Scattering: elements of a tensor overwritten by, or joined with, updates at places that indices name.

Both operators, by places along one axis and by index tuples, share their rules: ``look`` reads a tensor at the places, ``put``
joins updates into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval
from vgcompile.ops.cutting import bound_of
from vgcompile.ops.families import isometry, uncovered
from vgcompile.ops.indexing import along
from vgcompile.ops.layout import restriction
from vgcompile.ops.op import Case, Op, sample
from vgcompile.ops.shape import constant, meeting, shaped, zeros_like


@dataclass(frozen=True)
class _Places:
    """``look(x)`` is x at the places, ``put(x, updates, reduction)`` is x with updates joined in; ``distinct`` says that no two
    updates are known to meet in one place."""

    look: Callable[[Any], Any]
    put: Callable[..., Any]
    distinct: bool


def _adjoints(op: Any, g: Any, y: Any, x: Any, updates: Any, reduction: str, places: _Places) -> tuple[Any, ...]:
    """Of x and of the updates.

    none: what is overwritten gets nothing, an update the adjoint of its place. add: g, and g at the places.
    """
    if reduction == "add":
        dx, dupdates = g, places.look(g)
    elif reduction == "mul":
        dx = g * places.put(op.Expand(1.0, op.Shape(x)), updates, "mul")
        dupdates = _others(op, g, x, updates, places)
    elif reduction in ("max", "min"):
        dx, dupdates = _winners(op, g, y, x, updates, places)
    else:
        dx, dupdates = places.put(g, zeros_like(op, updates)), places.look(g)
    return shaped(dx, x), None, shaped(dupdates, updates)


def _winners(op: Any, g: Any, y: Any, x: Any, updates: Any, places: _Places) -> tuple[Any, Any]:
    """x and the updates of one place that tie share its adjoint equally."""
    kept, taken = op.Equal(x, y), op.Equal(updates, places.look(y))
    count = places.put(op.Where(kept, 1.0, 0.0), op.Where(taken, 1.0, 0.0), "add")
    part = g / op.Max(count, 1.0)
    return op.Where(kept, part, 0.0), op.Where(taken, places.look(part), 0.0)


def _others(op: Any, g: Any, x: Any, updates: Any, places: _Places) -> Any:
    """g times what each update multiplies: the element of x, and the other updates of its place. Where those are known not to
    exist, no division; else the product of all is divided by the update, and a zero that is alone gets the product of what is
    not zero (the gradient of the gradient misses pairs of zeros)."""
    if places.distinct:
        return places.look(g * x)
    zero = op.Equal(updates, 0.0)
    filled = op.Where(zero, 1.0, updates)
    product = places.look(places.put(g * x, updates, "mul"))
    rest = places.look(places.put(g * x, filled, "mul"))
    zeros = places.look(places.put(zeros_like(op, x), op.Where(zero, 1.0, 0.0), "add"))
    return op.Where(zero, op.Where(op.Equal(zeros, 1.0), rest, 0.0), product / filled)


def _elements_vjp(
    op: Any, g: Any, y: Any, x: Any, indices: Any, updates: Any, axis: int = 0, reduction: str = "none"
) -> tuple[Any, ...]:
    def put(base: Any, values: Any, how: str = "none") -> Any:
        return op.ScatterElements(base, indices, values, axis=axis, reduction=how)

    known = constant(indices)
    distinct = known is not None and bool((known >= 0).all() and (np.diff(np.sort(known, axis), axis=axis) > 0).all())
    return _adjoints(op, g, y, x, updates, reduction, _Places(lambda v: op.GatherElements(v, indices, axis=axis), put, distinct))


def _nd_vjp(op: Any, g: Any, y: Any, x: Any, indices: Any, updates: Any, reduction: str = "none") -> tuple[Any, ...]:
    def put(base: Any, values: Any, how: str = "none") -> Any:
        return op.ScatterND(base, indices, values, reduction=how)

    known = constant(indices)
    tuples = None if known is None else known.reshape(-1, known.shape[-1])
    distinct = tuples is not None and bool((tuples >= 0).all()) and len(np.unique(tuples, axis=0)) == len(tuples)
    return _adjoints(op, g, y, x, updates, reduction, _Places(lambda v: op.GatherND(v, indices), put, distinct))


def _mode(case: Case) -> str:
    return str(case.attributes.get("reduction", "none"))


def _range(case: Case) -> Interval:
    """Overwritten, or the extreme of both: the hull. Added: several updates may meet, of which at most all do."""
    base, updates = bound_of(case, 0).scalar(), bound_of(case, 2).scalar()
    if _mode(case) in ("none", "max", "min"):
        return base.hull(updates)
    size = _updates(case)
    if _mode(case) != "add" or not math.isfinite(size) or not updates.bounded:
        return WHOLE
    most = float(updates.magnitude) * size * (1.0 + 1e-12)
    return Interval(base.lo - most * (1.0 + 1e-12), base.hi + most * (1.0 + 1e-12))


def _norms(case: Case, position: int) -> tuple[float, float]:
    """To the base: g itself (added) or a part of it. To the updates: g at their places, once for each that names it (added), for
    one of them (else)."""
    mode = _mode(case)
    if mode == "mul":
        raise NotImplementedError("the factors are not bounded")
    if position == 0:
        return isometry(case, 0) if mode == "add" else restriction(case, 0)
    return (0.0, math.sqrt(_updates(case)) if mode == "add" else 1.0)


def _updates(case: Case) -> float:
    """How many updates may name one and the same element."""
    if "axis" in case.attributes:
        return along(case, 2, case.shapes[1])
    return meeting(case, 2, (case.shapes[1] or ("",))[:-1])


_TWICE, _TUPLES = np.array([[0, 1], [0, -1], [2, 1]]), np.array([[1], [3], [1]])

ScatterElements = Op(
    "ScatterElements",
    "Single elements overwritten by (at distinct places), or joined with, updates along one axis; what ties shares the gradient.",
    unpredicted="how often each place is written, only a run tells",
    vjp=_elements_vjp,
    range=_range,
    norms=_norms,
    samples=(
        sample((3, 4), np.array([[0, 2], [1, 3], [3, 0]]), (3, 2), axis=1),
        sample((3, 2), np.array([[0, 1], [0, -1]]), (2, 2), reduction="add"),
        sample((3, "T"), np.array([[0], [2]], np.int32), (2, 1), reduction="mul"),
        sample((3, 2), _TWICE, (3, 2), reduction="mul"),
        sample((3, 2), _TWICE, (3, 2), reduction="max"),
        sample((3, 2), _TWICE, (3, 2), reduction="min"),
    ),
)

ScatterND = Op(
    "ScatterND",
    "Slices overwritten by (at distinct places), or joined with, updates at index tuples; what ties shares the gradient.",
    unpredicted="how often each place is written, only a run tells",
    vjp=_nd_vjp,
    range=_range,
    norms=_norms,
    samples=(
        sample((4, "T"), np.array([[1], [3]]), (2, "T")),
        sample((4, 3), _TUPLES, (3, 3), reduction="add"),
        sample((4, "T"), np.array([[1], [3]]), (2, "T"), reduction="mul"),
        sample((4, 3), _TUPLES, (3, 3), reduction="mul"),
        sample((4, "T"), _TUPLES, (3, "T"), reduction="max"),
        sample((4, 3), _TUPLES, (3, 3), reduction="min"),
    ),
)

Scatter = uncovered(
    "Scatter",
    "Single elements overwritten by updates along one axis, in files of opset 10 and older.",
    "deprecated since opset 11, where ScatterElements does the same; a file that is read is converted",
)

ROWS = (ScatterElements, ScatterND, Scatter)
