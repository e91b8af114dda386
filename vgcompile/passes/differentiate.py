"""Reverse mode over the operator table: appends the gradient of a graph to the graph.

    x, w -> Gemm -> z -> Sigmoid -> h -> loss
    loss' = 1;  h' = ...;  z' = h' * h * (1 - h);  w' = Gemm(x^T, z')

The sweep walks the nodes between the wanted values and the seeds, from the seeds down. For each node it asks the operator's
row for the adjoints of the inputs, sums a broadcast adjoint to its value's shape, adds the contributions of a value's uses,
and names and stamps what it made. Rules stay formulas; this is the boring work. An operator that holds graphs gets the sweep
itself as a tool (``replay``), for its bodies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vgcompile.errors import GradientRefused, ModelError
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.case import case_of, draws
from vgcompile.graph.emit import Emitter, Step, arithmetic, dims, is_real
from vgcompile.graph.provenance import origin
from vgcompile.graph.view import bodies, captured, operands
from vgcompile.ops import require
from vgcompile.ops.op import Op
from vgcompile.passes.alike import Parts, Recipes
from vgcompile.passes.lower import open_node, opens_for_gradient


@dataclass(frozen=True)
class Adjoints:
    """What a sweep leaves: for each value the sum over its uses, and for each use (node, input position) its own part."""

    totals: Mapping[ir.Value, ir.Value]
    parts: Mapping[tuple[ir.Node, int], ir.Value]


def differentiate(model: ir.Model, seeds: Mapping[ir.Value, ir.Value], wanted: Iterable[ir.Value], emitter: Emitter) -> Adjoints:
    """Append the adjoints of ``wanted`` to ``model``, given the adjoints ``seeds`` of some of its values.

    Raises GradientRefused where an operator on the way has no rule, or its rule does not cover the case.
    """
    return _sweep(model.graph, seeds, list(wanted), emitter)


def _sweep(graph: ir.Graph, seeds: Mapping[ir.Value, ir.Value], wanted: Sequence[ir.Value], emitter: Emitter) -> Adjoints:
    active, stands = _opened(emitter, graph, seeds, wanted)
    seeds, wanted = {stands.get(v, v): seed for v, seed in seeds.items()}, [stands.get(v, v) for v in wanted]
    parts: dict[tuple[ir.Node, int], ir.Value] = {}
    contributions: dict[ir.Value, list[ir.Value]] = defaultdict(list)
    totals: dict[ir.Value, ir.Value] = {}
    recipes = Recipes()
    for value, seed in seeds.items():
        contributions[value].append(seed)

    def total(value: ir.Value) -> ir.Value | None:
        if value not in totals and contributions[value]:
            totals[value] = _accumulate(emitter, value, contributions[value])
        return totals.get(value)

    with arithmetic(emitter):
        for node in reversed(list(graph)):
            if node not in active.nodes:
                continue
            with _backward_scope(emitter, node):
                adjoints = [total(output) for output in node.outputs]
                if all(adjoint is None for adjoint in adjoints):
                    continue
                read = operands(node)
                for position, part in _fitted(emitter, node, adjoints, active.values, recipes):
                    operand = read[position]
                    assert operand is not None
                    parts[node, position] = part
                    contributions[operand].append(part)
        for value in wanted:
            total(value)
    return Adjoints(totals, parts)


def _opened(
    emitter: Emitter, graph: ir.Graph, seeds: Iterable[ir.Value], wanted: Sequence[ir.Value]
) -> tuple[_Active, dict[ir.Value, ir.Value]]:
    """Open every node on the way that has no vjp but a body, to a fixed point; returns what is then on the way, and what now
    stands for a seeded or wanted value."""
    stands: dict[ir.Value, ir.Value] = {}
    roots = list(seeds)
    while True:
        now = [[stands.get(value, value) for value in values] for values in (roots, wanted)]
        active = _active(graph, *now)
        closed = [node for node in graph if node in active.nodes and opens_for_gradient(node, emitter.opset)]
        if not closed:
            return active, stands
        for node in closed:
            with arithmetic(emitter):
                replaced = open_node(emitter, node)
            stands = {value: replaced.get(new, new) for value, new in (stands | {v: v for v in replaced}).items()}


def replay(
    emitter: Emitter, body: ir.Graph, arguments: Sequence[ir.Value], seeds: Sequence[ir.Value | None], wanted: Sequence[ir.Value]
) -> list[ir.Value | None]:
    """Run ``body`` again in the emitter's graph, on ``arguments`` for its inputs, and back from ``seeds``, the adjoints of its
    outputs; returns the adjoints of ``wanted``: arguments, all different, or values that the body captures.
    """
    outputs = _inserted(emitter, body, arguments)
    given: dict[ir.Value, ir.Value] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        if seed is not None:
            given[output] = emitter.Add(given[output], seed) if output in given else seed
    totals = _sweep(emitter.graph, given, wanted, emitter).totals
    return [totals.get(value) for value in wanted]


def _inserted(emitter: Emitter, body: ir.Graph, arguments: Sequence[ir.Value]) -> list[ir.Value]:
    """Append a copy of a body's nodes, under names of their own; returns its outputs."""
    copy = body.clone(allow_outer_scope_values=True)
    outputs = list(copy.outputs)
    for stands, argument in zip(copy.inputs, arguments, strict=True):
        outputs = [argument if output is stands else output for output in outputs]
        stands.replace_all_uses_with(argument, replace_graph_outputs=True)
    for value in list(copy.initializers.values()):
        held = emitter.constant(value.const_value.numpy(), value.name or "")  # type: ignore[union-attr]
        outputs = [held if output is value else output for output in outputs]
        value.replace_all_uses_with(held, replace_graph_outputs=True)
    for scope in (copy, *copy.subgraphs()):
        for node in scope:
            node.name = emitter.fresh_node_name(node.name or node.op_type)
            for value in node.outputs:
                value.name = emitter.fresh_value_name(value.name) if value.name else ""
        if scope is not copy:
            for value in scope.inputs:
                value.name = emitter.fresh_value_name(value.name or "")
    nodes = list(copy)
    copy.outputs.clear()
    copy.remove(nodes)
    emitter.graph.extend(nodes)
    return outputs


@dataclass(frozen=True)
class _Active:
    nodes: set[ir.Node]
    values: set[ir.Value]


def _active(graph: ir.Graph, seeds: Iterable[ir.Value], wanted: Sequence[ir.Value]) -> _Active:
    """Nodes and values that lie on a way from a wanted value to a seed: nodes stand in topological order, so one look downwards
    and one upwards find them."""
    below, reached = set(wanted), set()
    for node in graph:
        if not below.isdisjoint(operands(node)):
            reached.add(node)
            below.update(node.outputs)
    above: set[ir.Value | None] = set(seeds)
    between = set()
    for node in reversed(graph):
        if not above.isdisjoint(node.outputs):
            above.update(operands(node))
            if node in reached:
                between.add(node)
    return _Active(between, below & above)


def _fitted(
    emitter: Emitter, node: ir.Node, adjoints: Sequence[ir.Value | None], active: Set[ir.Value], recipes: Recipes
) -> Parts:
    """The adjoint of each active operand that the node sends something to, by its position, in the operand's shape."""
    row = require(node.op_type, node.name or "", node.domain)
    if row.blocked:
        return ()
    try:
        if row.nested is not None:
            return _fit(emitter, operands(node), active, _through_bodies(emitter, row, node, adjoints, active))
        return _alike(emitter, row, node, adjoints, active, recipes)
    except ModelError as error:
        hint = "export the model with shapes that are known, or exclude this part from the gradient"
        raise GradientRefused(node.op_type, node.name or "", str(error), hint) from error


def _alike(
    emitter: Emitter, row: Op, node: ir.Node, adjoints: Sequence[ir.Value | None], active: Set[ir.Value], recipes: Recipes
) -> Parts:
    """By what the row's rule emitted for a node like this one, or else by the rule."""
    question = recipes.likeness(node, adjoints, [operand in active for operand in node.inputs])
    if not recipes.knows(question):
        _refuse_uncovered(row, node)
    outputs = _with_saved(emitter, row, node)

    def asked() -> Parts:
        return _fit(emitter, node.inputs, active, _by_rule(emitter, row, node, outputs, adjoints))

    return recipes.answered(emitter, question, (*node.inputs, *outputs, *adjoints), asked)


def _fit(
    emitter: Emitter, read: Sequence[ir.Value | None], active: Set[ir.Value], parts: Iterable[tuple[int, ir.Value]]
) -> list[tuple[int, ir.Value]]:
    """The parts that are asked for, each in its operand's shape."""
    found = ((position, read[position], part) for position, part in parts)
    return [
        (at, fit(emitter, part, value)) for at, value, part in found if value is not None and value in active and is_real(value)
    ]


def _by_rule(
    emitter: Emitter, row: Op, node: ir.Node, outputs: tuple[ir.Value, ...], adjoints: Sequence[ir.Value | None]
) -> Iterable[tuple[int, ir.Value]]:
    g = adjoints[0] if len(outputs) == 1 or all(a is None for a in adjoints[1:]) else None
    single = len(outputs) == 1 or (row.saved and g is not None)
    first = next(a for a in adjoints if a is not None)
    assert row.vjp is not None and first.dtype is not None
    with emitter.scope(dtype=first.dtype):
        results = row.vjp(
            emitter,
            g if single else tuple(adjoints) + (None,) * (len(outputs) - len(adjoints)),
            outputs[0] if len(outputs) == 1 else outputs,
            *node.inputs,
            **attributes_of(node),
        )
    for position, result in enumerate(results):
        if result is not None:
            yield position, result if isinstance(result, ir.Value) else emitter.constant(np.asarray(result, first.dtype.numpy()))


def _through_bodies(
    emitter: Emitter, row: Op, node: ir.Node, adjoints: Sequence[ir.Value | None], active: Set[ir.Value]
) -> Iterable[tuple[int, ir.Value]]:
    """By the row of an operator that holds graphs, which are run again."""
    _refuse_uncovered(row, node)
    drawn = {inner.op_type for body in bodies(node) for inner in body.all_nodes() if draws(inner)}
    if drawn:
        reason = f"its body draws random numbers ({', '.join(sorted(drawn))}), and its gradient runs the body again"
        raise GradientRefused(
            row.name, node.name or "", reason, "export the model in inference mode, or draw outside of the body"
        )
    read = operands(node)
    wanted = list(dict.fromkeys(value for value in read if value is not None and value in active and is_real(value)))
    assert row.nested is not None
    inside = set(captured(node))
    given = row.nested(emitter, replay, node, tuple(adjoints), wanted, [value for value in wanted if value in inside])
    found = dict(zip(wanted, given, strict=True))
    for value, adjoint in found.items():
        if adjoint is not None:
            yield read.index(value), adjoint


def _refuse_uncovered(row: Op, node: ir.Node) -> None:
    if row.bodies and row.vjp is None:
        raise GradientRefused(row.name, node.name or "", "its gradient goes through its body", "run the lower pass first")
    reason = row.uncovered or (row.refuses(case_of(node)) if row.refuses is not None else "")
    if reason:
        reason, _, hint = reason.partition("; ")
        hint = hint or "rewrite this part of the model or exclude it from the gradient"
        raise GradientRefused(row.name, node.name or "", reason, hint)


def _with_saved(emitter: Emitter, row: Op, node: ir.Node) -> tuple[ir.Value, ...]:
    """The node's outputs, with those that the rule reads added where the node lacks them."""
    missing = [index for index in row.saved if index >= len(node.outputs) or not node.outputs[index].name]
    if missing:
        emitter.complete(node, max(row.saved) + 1)
    return tuple(node.outputs)


def _accumulate(emitter: Emitter, value: ir.Value, parts: Sequence[ir.Value]) -> ir.Value:
    result = parts[0]
    for part in parts[1:]:  # all of the value's type and shape: there is nothing to infer
        (result,) = emitter.repeat(Step("", "Add", (), "Add", ((part.type, value.shape),)), (result, part))
    return result


def stamp(adjoint: ir.Value, value: ir.Value) -> ir.Value:
    """An adjoint has, by definition, its value's shape."""
    adjoint.shape = value.shape
    return adjoint


def fit(emitter: Emitter, adjoint: ir.Value, value: ir.Value) -> ir.Value:
    """Give an adjoint its value's shape: sum it over the axes along which the value was broadcast, spread it along those
    where a rule left it narrow.

    Extents and symbols that are equal prove that an axis was neither; an extent 1 against any other tells which of the two.
    Where two different symbols meet, a run finds out.
    """
    if adjoint.shape is None:
        return _fit_at_run_time(emitter, adjoint, value)
    if adjoint.shape is value.shape or adjoint.shape == value.shape:
        return adjoint
    have, want = dims(adjoint), dims(value)
    extra = len(have) - len(want)
    differ = [(-1 - i, h, w) for i, (h, w) in enumerate(zip(reversed(have), reversed(want), strict=False)) if h != w]
    if any(1 not in (h, w) for _, h, w in differ):
        return _fit_at_run_time(emitter, adjoint, value)
    summed = [axis for axis, _, w in differ if w == 1]
    if summed:
        adjoint = emitter.ReduceSum(adjoint, summed, keepdims=1)
    if extra > 0:
        adjoint = emitter.ReduceSum(adjoint, list(range(extra)), keepdims=0)
    if extra < 0 or any(h == 1 for _, h, _ in differ):
        shape = list(want) if all(isinstance(dim, int) for dim in want) else emitter.Shape(value)
        adjoint = emitter.Expand(adjoint, shape)
    return stamp(adjoint, value)


def _fit_at_run_time(emitter: Emitter, adjoint: ir.Value, value: ir.Value) -> ir.Value:
    """Pad the value's shape with ones on the left, sum where it is 1, restore the rank."""
    shape = emitter.Shape(value)
    rank = len(adjoint.shape) if adjoint.shape is not None else len(dims(value))
    extra = rank - len(dims(value))
    if extra < 0:
        adjoint, extra = emitter.Unsqueeze(adjoint, list(range(-extra))), 0
    padded = emitter.Concat(np.ones(extra, np.int64), shape, axis=0) if extra else shape
    axes = emitter.Squeeze(emitter.NonZero(emitter.Equal(padded, np.ones(1, np.int64))), [0])
    summed = emitter.ReduceSum(adjoint, axes, keepdims=1, noop_with_empty_axes=1)
    # An adjoint that was returned narrower than its value (a constant slope) is spread out by the same step.
    spread = emitter.Expand(summed, padded)
    return stamp(emitter.Reshape(spread, shape) if extra else spread, value)


def _backward_scope(emitter: Emitter, node: ir.Node) -> AbstractContextManager[Emitter]:
    name = "grad/" + (node.name or node.op_type).lstrip("/").rsplit("/", 1)[0]
    return emitter.scope(name, before=None, dtype=None, role="backward", forward=node.name or "", **origin(node))
