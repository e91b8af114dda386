"""Branches and loops: operators that hold graphs.

What they give out is typed by their bodies' outputs; `infer` says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.ops.control_gradient import if_gradient, loop_gradient, present, scan_attributes, scan_gradient, slice_of
from vgcompile.ops.op import Case, Dim, Op, sample
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
    """The number of trips is known when it runs: a symbol of its own, named after a value, for graphs share names. A state may
    change its shape on the way."""
    kept = [_typed(value, extents(value)) for value in body.outputs[1 : 1 + len(states)]]
    length = f"{body.outputs[0].name}.trips"
    return (*kept, *(_stacked(value, 0, length) for value in body.outputs[1 + len(states) :]))


def _if_types(condition: Any, *, then_branch: ir.Graph, else_branch: ir.Graph) -> tuple[ir.Value, ...]:
    """An extent in which the branches differ is a symbol."""
    found = []
    for a, b in zip(then_branch.outputs, else_branch.outputs, strict=True):
        if len(a.shape or ()) != len(b.shape or ()):
            found.append(_typed(a, None))
            continue
        pairs = enumerate(zip(extents(a), extents(b), strict=True))
        found.append(_typed(a, [x if x == y else f"{a.name}.{axis}" for axis, (x, y) in pairs]))
    return tuple(found)


def _uncovered(case: Case) -> str:
    """States must keep their ranks, for the steps' tapes are tensors. A loop's first two inputs may be absent."""
    if any(dims is None for dims in (*case.shapes[2:], *case.outputs)):
        return "it holds values that are no tensors of a known rank"
    return ""


# ---- what enters a body: type and dimensions of each of its inputs, and the output that hands it on to the next step, or None


def _entering(value: ir.Value, dims: Sequence[Dim] | None, handed: int | None) -> tuple[Any, Any, int | None]:
    return value.dtype, None if value.shape is None else dims, handed


def _known(value: ir.Value) -> tuple[Dim, ...]:
    return () if value.shape is None else extents(value)


def _scan_enters(node: ir.Node) -> list[tuple[Any, Any, int | None]]:
    operands, given = present(node.inputs), scan_attributes(node)
    states = len(operands) - given["num_scan_inputs"]
    sliced = zip(operands[states:], given["input_axes"], strict=True)
    return [
        *(_entering(value, _known(value), index) for index, value in enumerate(operands[:states])),
        *(_entering(value, slice_of(value, axis) if value.shape is not None else None, None) for value, axis in sliced),
    ]


def _loop_enters(node: ir.Node) -> list[tuple[Any, Any, int | None]]:
    states = [_entering(value, _known(value), 1 + index) for index, value in enumerate(present(node.inputs[2:]))]
    return [(ir.DataType.INT64, (), None), (ir.DataType.BOOL, (), None), *states]


# ---- samples: an attribute that is a function makes its graph, with an emitter


def _recurrence(op: Any, dtype: Any) -> ir.Graph:
    """h, a -> tanh(h * a), its square."""
    with op.body((dtype, (2,)), (dtype, (2,)), name="step") as (inner, (h, a)):
        y = inner.Tanh(h * a)
        inner.graph.outputs.extend([y, y * y])
    return inner.graph  # type: ignore[no-any-return]


def _iteration(op: Any, dtype: Any) -> ir.Graph:
    """h -> sin(h), what it was."""
    kinds = ((ir.DataType.INT64, ()), (ir.DataType.BOOL, ()), (dtype, ("N", 2)))
    with op.body(*kinds, name="trip") as (inner, (_, go, h)):
        inner.graph.outputs.extend([inner.Identity(go), inner.Sin(h), inner.Identity(h)])
    return inner.graph  # type: ignore[no-any-return]


def _constant(number: float) -> Any:
    def make(op: Any, dtype: Any) -> ir.Graph:
        with op.body(name="branch") as (inner, _):
            inner.graph.outputs.append(inner.Expand(number, [2]))
        return inner.graph  # type: ignore[no-any-return]

    return make


Scan = Op(
    "Scan",
    "A body run over the slices of its inputs, states handed from step to step; it runs again, step by step, for its gradient.",
    unpredicted="a body's moments are not followed from step to step",
    nested=scan_gradient,
    infer=_scan_types,
    enters=_scan_enters,
    samples=(
        sample((2,), ("N", 2), outputs=2, num_scan_inputs=1, body=_recurrence),
        sample((2,), (2, "N"), outputs=2, num_scan_inputs=1, body=_recurrence, scan_input_axes=[1], scan_input_directions=[1]),
    ),
    refuses=_uncovered,
)

Loop = Op(
    "Loop",
    "A body run again and again, states handed from trip to trip; it runs again, trip by trip, for its gradient.",
    unpredicted="how often it runs, only a run tells",
    nested=loop_gradient,
    infer=_loop_types,
    enters=_loop_enters,
    samples=(sample(np.array(3), np.array(True), ("N", 2), outputs=2, body=_iteration),),
    refuses=_uncovered,
)

If = Op(
    "If",
    "One of two bodies; the gradient flows through the one that is taken.",
    unpredicted="which branch runs, only a run tells",
    nested=if_gradient,
    infer=_if_types,
    refuses=_uncovered,
    samples=(sample(np.array(True), then_branch=_constant(1.0), else_branch=_constant(2.0)),),
)

ROWS = (Scan, Loop, If)
