"""Branches and loops: operators that hold graphs.

What they give out is typed by their bodies' outputs; `infer` says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from vgcompile.ops.op import Dim, Op
from vgcompile.ops.shape import extents


def _typed(like: Any, dims: Sequence[Dim] | None) -> ir.Value:
    """A value that stands for an output's type and dimensions."""
    return ir.Value(name=like.name, shape=None if dims is None else ir.Shape(dims), type=like.type)


def _stacked(value: Any, axis: int, extent: Dim) -> ir.Value:
    """What every step gives out, along a new axis."""
    dims = list(extents(value))
    axis %= len(dims) + 1
    return _typed(value, [*dims[:axis], extent, *dims[axis:]])


def _scan_types(
    *inputs: Any,
    body: ir.Graph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    **_: Any,
) -> tuple[ir.Value, ...]:
    """States keep their shapes; scan outputs have the scanned axis's extent."""
    states = len(inputs) - num_scan_inputs
    first = inputs[states]
    axis = (scan_input_axes or [0])[0]
    length = extents(first)[axis]
    axes = scan_output_axes or [0] * (len(body.outputs) - states)
    kept = [_typed(value, extents(given)) for value, given in zip(body.outputs, inputs[:states], strict=False)]
    return (*kept, *(_stacked(value, axis, length) for value, axis in zip(body.outputs[states:], axes, strict=True)))


def _loop_types(trips: Any, condition: Any, *states: Any, body: ir.Graph) -> tuple[ir.Value, ...]:
    """The number of trips is known when it runs: a symbol of its own."""
    kept = [_typed(value, extents(given)) for value, given in zip(body.outputs[1:], states, strict=False)]
    length = f"{body.name}.trips"
    return (*kept, *(_stacked(value, 0, length) for value in body.outputs[1 + len(states) :]))


def _if_types(condition: Any, *, then_branch: ir.Graph, else_branch: ir.Graph) -> tuple[ir.Value, ...]:
    """An extent in which the branches differ is a symbol."""
    found = []
    for index, (a, b) in enumerate(zip(then_branch.outputs, else_branch.outputs, strict=True)):
        if len(a.shape or ()) != len(b.shape or ()):
            found.append(_typed(a, None))
            continue
        pairs = enumerate(zip(extents(a), extents(b), strict=True))
        found.append(_typed(a, [x if x == y else f"{then_branch.name}.{index}.{axis}" for axis, (x, y) in pairs]))
    return tuple(found)


def _unset(case: Any) -> str:
    return "branches and loops have no gradient yet"


Scan = Op(
    "Scan",
    "Runs a body over the slices of its inputs, states handed from step to step.",
    vjp=_unset,
    infer=_scan_types,
    refuses=_unset,
)
Loop = Op("Loop", "Runs a body again and again, states handed from trip to trip.", vjp=_unset, infer=_loop_types, refuses=_unset)
If = Op("If", "Runs one of two bodies.", vjp=_unset, infer=_if_types, refuses=_unset)

ROWS = (Scan, Loop, If)
