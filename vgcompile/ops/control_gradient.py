"""Gradients of branches and loops: (op, replay, node, g, wanted, captured) -> one adjoint for each wanted value.

``captured`` are those of the wanted that the bodies read of the graph around them. ``replay(emitter, body, arguments, seeds,
wanted)`` runs a body again and back (passes/differentiate.py). What a body needs of its own run, the states that each step began
with, is taped: handed out by the forward node as further outputs.

    h = Loop(n, h0; body)       h, tape = Loop(n, h0; body and what each trip began with)
                                h0', w' = Loop(trips of the tape, h', 0; body run again on tape[trips - 1 - i], and back)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from vgcompile.ops.op import Dim
from vgcompile.ops.shape import extents, is_real, zeros_like

Values = Sequence[Any]


def _given_out(inner: Any, value: Any) -> None:
    """Make a value an output of a body: of a node of its own, for a body hands out nothing that comes from around it."""
    inner.graph.outputs.append(inner.Identity(value))


def _adjoint_or_zeros(inner: Any, adjoint: Any, like: Any, dtype: Any) -> Any:
    return zeros_like(inner, like, dtype) if adjoint is None else adjoint


def if_gradient(
    op: Any, replay: Any, node: ir.Node, g: Sequence[Any], wanted: Sequence[Any], captured: Sequence[Any]
) -> Sequence[Any]:
    """The branch that is taken runs again, and back. The other one gives nothing."""
    branches = {}
    for name in ("then_branch", "else_branch"):
        with op.body(name=name) as (inner, _):
            found = replay(inner, node.attributes[name].as_graph(), [], g, wanted)
            for adjoint, value in zip(found, wanted, strict=True):
                _given_out(inner, _adjoint_or_zeros(inner, adjoint, value, value.dtype))
        branches[name] = inner.graph
    made = op.If(node.inputs[0], outputs=len(wanted), **branches)
    return made if isinstance(made, tuple) else (made,)


def _tape(op: Any, node: ir.Node, body: ir.Graph, first: int, values: Sequence[Any]) -> dict[Any, Any]:
    """Let the node hand out, behind its ``first`` outputs, ``values`` of its body, those of all steps stacked on a new axis."""
    if not values:
        return {}
    inner = op.inside(body)
    with inner.scope("tape", before=None):
        for value in values:
            _given_out(inner, value)
    for key in ("scan_output_axes", "scan_output_directions"):
        if key in node.attributes:
            given = [*node.attributes[key].as_ints(), *(0 for _ in values)]
            node.attributes[key] = ir.convenience.convert_attribute(key, given)
    op.complete(node, first + len(values))
    return dict(zip(values, node.outputs[first:], strict=True))


def _changes(body: ir.Graph, states: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """The states that the body reads and that differ from step to step: those worth a tape."""
    same = {state for state, result in zip(states, results, strict=True) if result is state or _copies(result, state)}
    return [state for state in states if state not in same and (any(state.uses()) or state in body.outputs)]


def _copies(result: Any, state: Any) -> bool:
    producer = result.producer()
    return producer is not None and producer.op_type == "Identity" and producer.inputs[0] is state


def loop_gradient(
    op: Any, replay: Any, node: ir.Node, g: Sequence[Any], wanted: Sequence[Any], captured: Sequence[Any]
) -> Sequence[Any]:
    """A loop over the trips from the last to the first, as many as there were; it carries the adjoints of the states, and of what
    the body captures the sums."""
    body, initial = node.attributes["body"].as_graph(), present(node.inputs[2:])
    trip, _condition, *states = body.inputs
    results = body.outputs[1 : 1 + len(states)]
    outputs = len(body.outputs) - 1
    g = (*g, *(None for _ in range(outputs - len(g))))
    tape = _tape(op, node, body, outputs, [trip, *_changes(body, states, results)])
    trips = op.Size(tape[trip])
    real = [index for index, value in enumerate(initial) if is_real(value)]
    carried = [_adjoint_or_zeros(op, g[index], initial[index], initial[index].dtype) for index in real]
    sums = [zeros_like(op, value, value.dtype) for value in captured]
    types = [(value.dtype, extents(value)) for value in ([initial[index] for index in real] + list(captured))]
    with op.body((ir.DataType.INT64, []), (ir.DataType.BOOL, []), *types, name="back") as (inner, (step, go, *adjoints)):
        place = inner.Sub(inner.Sub(trips, step), 1)
        arguments = [place, go]
        for state, first in zip(states, initial, strict=True):
            arguments.append(inner.Gather(tape[state], place, axis=0) if state in tape else inner.Identity(first))
        seeds: list[Any] = [None, *(None for _ in states)]
        for index, adjoint in zip(real, adjoints, strict=False):
            seeds[1 + index] = adjoint
        seeds.extend(None if h is None else inner.Gather(h, place, axis=0) for h in g[len(states) : outputs])
        seeds.extend(None for _ in body.outputs[len(seeds) :])
        reached = [arguments[2 + index] for index in real] + list(captured)
        found = replay(inner, body, arguments, seeds, reached)
        _given_out(inner, go)
        for position, adjoint in enumerate(found):
            if position < len(real):
                _given_out(inner, _adjoint_or_zeros(inner, adjoint, initial[real[position]], adjoints[position].dtype))
            else:
                _given_out(inner, adjoints[position] if adjoint is None else adjoints[position] + adjoint)
    made = op.Loop(trips, None, *carried, *sums, body=inner.graph, outputs=len(types)) if types else ()
    totals = dict(zip([*real, *captured], made if isinstance(made, tuple) else (made,), strict=True))
    return [_summed(op, [totals.get(value), *(totals[i] for i in real if initial[i] is value)]) for value in wanted]


def _summed(op: Any, parts: Sequence[Any]) -> Any:
    """The sum over the ways in which a value enters: captured, and as an initial state."""
    there = [part for part in parts if part is not None]
    return None if not there else op.Sum(*there) if len(there) > 1 else there[0]


def scan_gradient(
    op: Any, replay: Any, node: ir.Node, g: Sequence[Any], wanted: Sequence[Any], captured: Sequence[Any]
) -> Sequence[Any]:
    """A scan in the other direction; it carries the adjoints of the states, and of what the body captures the sums, and gives out
    the adjoints of the scanned inputs."""
    body, given = node.attributes["body"].as_graph(), scan_attributes(node)
    count = given["num_scan_inputs"]
    operands = present(node.inputs)
    initial, sequences = operands[: len(operands) - count], operands[len(operands) - count :]
    states, outputs = body.inputs[: len(initial)], len(body.outputs)
    g = (*g, *(None for _ in range(outputs - len(g))))
    tape = _tape(op, node, body, outputs, _changes(body, states, body.outputs[: len(states)]))
    real = [index for index, value in enumerate(initial) if is_real(value)]
    moving = [index for index, value in enumerate(sequences) if value in wanted]
    carried = [_adjoint_or_zeros(op, g[index], initial[index], initial[index].dtype) for index in real]
    sums = [zeros_like(op, value, value.dtype) for value in captured]
    seeded = [index for index in range(len(states), outputs) if g[index] is not None]

    lead = [(value.dtype, extents(value)) for value in ([initial[index] for index in real] + list(captured))]
    taped = [(state.dtype, extents(initial[states.index(state)])) for state in tape]
    sliced = [(value.dtype, slice_of(value, axis)) for value, axis in zip(sequences, given["input_axes"], strict=True)]
    axes = [given["output_axes"][index - len(states)] for index in seeded]
    hanging = [(g[index].dtype, slice_of(g[index], axis)) for index, axis in zip(seeded, axes, strict=True)]
    with op.body(*lead, *taped, *sliced, *hanging, name="back") as (inner, values):
        adjoints, rest = values[: len(lead)], values[len(lead) :]
        at = dict(zip(tape, rest, strict=False))
        rows, above = rest[len(tape) : len(tape) + count], rest[len(tape) + count :]
        arguments = [at[s] if s in at else inner.Identity(first) for s, first in zip(states, initial, strict=True)] + rows
        seeds: list[Any] = [None] * len(body.outputs)
        for index, adjoint in (*zip(real, adjoints, strict=False), *zip(seeded, above, strict=True)):
            seeds[index] = adjoint
        reached = [arguments[index] for index in real] + list(captured) + [rows[index] for index in moving]
        found = replay(inner, body, arguments, seeds, reached)
        for position, adjoint in enumerate(found):
            if real and position < len(real):
                _given_out(inner, _adjoint_or_zeros(inner, adjoint, initial[real[position]], adjoints[position].dtype))
            elif position < len(lead):
                _given_out(inner, adjoints[position] if adjoint is None else adjoints[position] + adjoint)
            else:
                row = rows[moving[position - len(lead)]]
                _given_out(inner, _adjoint_or_zeros(inner, adjoint, row, row.dtype))
    made = op.Scan(
        *carried,
        *sums,
        *tape.values(),
        *sequences,
        *(g[index] for index in seeded),
        body=inner.graph,
        outputs=len(reached),
        num_scan_inputs=len(tape) + count + len(seeded),
        scan_input_axes=[*(0 for _ in tape), *given["input_axes"], *axes],
        scan_input_directions=[
            *(1 for _ in tape),
            *(1 - direction for direction in given["input_directions"]),
            *(1 - given["output_directions"][index - len(states)] for index in seeded),
        ],
        scan_output_axes=[given["input_axes"][index] for index in moving] or None,
        scan_output_directions=[1 - given["input_directions"][index] for index in moving] or None,
    )
    made = made if isinstance(made, tuple) else (made,)
    states_and_sums = dict(zip([*real, *captured], made, strict=False))
    scans = dict(zip(moving, made[len(lead) :], strict=True))
    return [
        _summed(
            op,
            [
                states_and_sums.get(value),
                *(states_and_sums[i] for i in real if initial[i] is value),
                *(scans[i] for i in moving if sequences[i] is value),
            ],
        )
        for value in wanted
    ]


def present(values: Sequence[ir.Value | None]) -> list[ir.Value]:
    """States and sequences are never left out."""
    return [value for value in values if value is not None]


def slice_of(value: Any, axis: int) -> list[Dim]:
    dims = list(extents(value))
    dims.pop(axis)
    return dims


def scan_attributes(node: ir.Node) -> dict[str, Any]:
    """Attributes of a Scan, its lists written out."""
    count = node.attributes["num_scan_inputs"].as_int()
    sizes = {"input": count, "output": len(node.attributes["body"].as_graph().outputs) - (len(node.inputs) - count)}
    found: dict[str, Any] = {"num_scan_inputs": count}
    for side, what in itertools.product(sizes, ("axes", "directions")):
        attribute = node.attributes.get(f"scan_{side}_{what}")
        found[f"{side}_{what}"] = [0] * sizes[side] if attribute is None else list(attribute.as_ints())
    return found
