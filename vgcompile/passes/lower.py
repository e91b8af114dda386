"""Open every composite: replace it by the operators of one of its bodies.

    g, x, w -> vgcompile::ConvWeightGradient -> dw                              before
    g -> Transpose -> g'  x -> Transpose -> x'  x', g' -> Conv -> Slice -> dw    after, by body "swapped"

A composite is an operator of the internal domain, or a standard one that its row asks to be opened (batch normalization in
training). Of the bodies that apply to a node the profile "fast" takes that of least cost, "portable" that of fewest nodes. The
nodes that it makes stand where the composite stood, keep its layer, role and source, and carry the body's name. The composite's
output values keep their names. Nothing of the internal domain is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import onnx_ir as ir

from vgcompile.graph.case import case_of
from vgcompile.graph.emit import Emitter, arithmetic, constant_of
from vgcompile.graph.provenance import PREFIX, fact, origin
from vgcompile.ops import INTERNAL, lookup
from vgcompile.ops.op import Body, Case, Op

Profile = Literal["portable", "fast"]


def lower(model: ir.Model, profile: Profile = "fast") -> ir.Model:
    """Open the composites of a model and of its subgraphs. Changes ``model`` and returns it."""
    outermost = Emitter(model.graph, model.opset_imports[""])
    for graph in (model.graph, *model.graph.subgraphs()):
        emitter = outermost.inside(graph)
        with arithmetic(emitter):
            while composites := _composites(graph):
                for node, row in composites:
                    _open(emitter, node, row, profile)
    assert not any(node.domain == INTERNAL for node in model.graph.all_nodes()), "a composite has no body"
    model.opset_imports.pop(INTERNAL, None)
    return model


def _composites(graph: ir.Graph) -> list[tuple[ir.Node, Op]]:
    rows = ((node, lookup(node.op_type, node.domain)) for node in graph)
    return [(node, row) for node, row in rows if row is not None and row.bodies and row.opens(case_of(node).attributes)]


def choose(row: Op, case: Case, size: Callable[[Body], int] | None = None) -> Body:
    """Of the bodies that apply the cheapest; given a ``size``, the cheapest of the smallest ones. Of equals the first."""
    bodies = [body for body in row.bodies if body.applies(case)]
    assert bodies, f"{row.name}: no body applies to inputs {case.shapes}"
    if len(bodies) == 1:
        return bodies[0]
    return min(bodies, key=lambda body: (size(body) if size is not None else 0, body.cost(case)))


def node_count(node: ir.Node, opset: int, body: Body) -> int:
    """The number of nodes that a body makes of a node, counted in a graph of their own."""
    scratch = Emitter(ir.Graph([], [], nodes=[], opset_imports={"": opset, INTERNAL: 1}), opset)
    operands = [None if value is None else _twin(value) for value in node.inputs]
    with arithmetic(scratch), scratch.scope(dtype=_working_type(node)):
        body.emit(scratch, *operands, **case_of(node).attributes)
    return sum(1 for _ in scratch.graph.all_nodes())


def _twin(value: ir.Value) -> ir.Value:
    """A value that a rule cannot tell from the given one, of no graph."""
    known = value.const_value if constant_of(value) is not None else None
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=known)


def _open(emitter: Emitter, node: ir.Node, row: Op, profile: Profile) -> None:
    case = case_of(node)
    body = choose(row, case, partial(node_count, node, emitter.opset) if profile == "portable" else None)
    kept = {key: node.metadata_props[PREFIX + key] for key in ("role", "forward") if fact(node, key)}
    name = (node.name or node.op_type).lstrip("/")
    with emitter.scope(name, before=node, dtype=_working_type(node), body=body.name, **kept, **origin(node)):
        made = body.emit(emitter, *node.inputs, **case.attributes)
        _replace(emitter, node, made if isinstance(made, tuple) else (made,))


def _working_type(node: ir.Node) -> ir.DataType:
    values = (value for value in (*node.outputs, *node.inputs) if value is not None and value.dtype is not None)
    return next(
        (value.dtype for value in values if value.dtype is not None and value.dtype.is_floating_point()), ir.DataType.FLOAT
    )


def _replace(emitter: Emitter, node: ir.Node, made: Sequence[ir.Value]) -> None:
    """Let ``made`` stand for the node's outputs, under their names, and take the node out."""
    fresh = _own(emitter, node, made)
    for old, new in zip(node.outputs, fresh, strict=False):
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.shape = old.shape if old.shape is not None else new.shape
        new.metadata_props.update(old.metadata_props)
    names = [value.name for value in node.outputs]
    emitter.graph.remove(node, safe=True)
    for new, taken in zip(fresh, names, strict=False):
        new.name = taken or new.name


def _own(emitter: Emitter, node: ir.Node, made: Iterable[ir.Value]) -> list[ir.Value]:
    """Values that may take a name: what a body hands through, or gives out twice, gets a node of its own."""
    fresh: list[ir.Value] = []
    for value in made:
        handed_through = value in node.inputs or value.producer() is None or value in fresh
        fresh.append(emitter.Identity(value) if handed_through else value)
    return fresh
