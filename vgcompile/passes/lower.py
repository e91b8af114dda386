"""Open every composite: replace it by the operators of one of its bodies.

    g, x, w -> vgcompile::ConvWeightGradient -> dw                              before
    g -> Transpose -> g'  x -> Transpose -> x'  x', g' -> Conv -> Slice -> dw    after, by body "swapped"

A composite is an operator of the internal domain, or a standard one that its row asks to be opened (batch normalization in
training). Of the bodies that apply to a node the profile "fast" takes that of least cost, "portable" that of fewest nodes. The
nodes that it makes stand where the composite stood, keep its layer, role and source, and carry the body's name. The composite's
output values keep their names. Nothing of the internal domain is left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import Emitter, arithmetic, constant_of
from vgcompile.graph.inference import freeze, signature
from vgcompile.graph.provenance import PREFIX, fact, origin
from vgcompile.graph.specified import specified
from vgcompile.graph.view import bodies, graphs_of
from vgcompile.ops import INTERNAL, lookup
from vgcompile.ops.op import Body, Case, Op

Profile = Literal["portable", "fast"]
Choices = dict[Hashable, Body]  # by what they depend on: a deep net repeats its layers


def lower(model: ir.Model, profile: Profile = "fast") -> ir.Model:
    """Open the composites of a model and of its subgraphs. Changes ``model`` and returns it."""
    emitter: Emitter | None = None  # made where there is something to open: it looks at every name of the model
    choices: Choices = {}
    while closed := [(graph, nodes) for graph in graphs_of(model.graph) if (nodes := _composites(graph))]:
        emitter = emitter or Emitter(model.graph, model.opset_imports[""])
        for graph, nodes in closed:
            inner = emitter.inside(graph)
            with arithmetic(inner):
                for node in nodes:
                    open_node(inner, node, profile, choices)
    model.opset_imports.pop(INTERNAL, None)
    return model


def _composites(graph: ir.Graph) -> list[ir.Node]:
    rows = ((node, lookup(node.op_type, node.domain)) for node in graph)
    return [node for node, row in rows if row is not None and row.bodies and _opens(node, row)]


def _opens(node: ir.Node, row: Op) -> bool:
    """What the file's opset has whole stays so, if the row does not ask otherwise."""
    return not (row.since and node.domain != row.domain) and row.opens(attributes_of(node))


def opens_for_gradient(node: ir.Node, opset: int) -> bool:
    """Whether a node is differentiated through what it is made of: its row has bodies and no vjp, and does not block, or it has
    no row but a definition."""
    row = lookup(node.op_type, node.domain) or specified(node, opset)
    return row is not None and bool(row.bodies) and row.vjp is None and not row.blocked


def choose(row: Op, case: Case, size: Callable[[Body], int] | None = None) -> Body:
    """Of the bodies that apply the cheapest; given a ``size``, the cheapest of the smallest ones. Of equals the first."""
    bodies = [body for body in row.bodies if body.applies(case)]
    assert bodies, f"{row.name}: no body applies to inputs {case.shapes}"
    if len(bodies) == 1:
        return bodies[0]
    return min(bodies, key=lambda body: (size(body) if size is not None else 0, body.cost(case)))


def _chosen(row: Op, node: ir.Node, case: Case, opset: int, profile: Profile, choices: Choices) -> Body:
    """The body for a node; looked for once for all nodes that a rule cannot tell from each other."""
    question = _question(node, case)
    if question is not None and question in choices:
        return choices[question]
    body = choose(row, case, partial(node_count, node, opset) if profile == "portable" else None)
    if question is not None:
        choices[question] = body
    return body


def _question(node: ir.Node, case: Case) -> Hashable:
    """Operator, attributes, operands and shapes; None where a node holds more than that: graphs, or large constants."""
    operands = tuple([None if value is None else signature(value) for value in node.inputs])
    large = any(a is not None and (s is None or s[2] is None) for a, s in zip(case.values, operands, strict=True))
    if large or lookup(node.op_type, node.domain) is None or bodies(node):
        return None
    attributes = tuple([(name, freeze(value)) for name, value in case.attributes.items() if value is not None])
    return node.op_identifier(), attributes, operands, case.outputs


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


def open_node(
    emitter: Emitter, node: ir.Node, profile: Profile = "fast", choices: Choices | None = None
) -> dict[ir.Value, ir.Value]:
    """Replace a composite, in the emitter's graph, by the operators of its cheapest body; returns what stands for its outputs.

    ``choices`` are those made so far in this model and profile, and take in this one.
    """
    row, case = lookup(node.op_type, node.domain) or specified(node, emitter.opset), case_of(node)
    assert row is not None, f"{node.op_type} has no body"
    body = _chosen(row, node, case, emitter.opset, profile, {} if choices is None else choices)
    kept = {key: node.metadata_props[PREFIX + key] for key in ("role", "forward") if fact(node, key)}
    name = (node.name or node.op_type).lstrip("/")
    with emitter.scope(name, before=node, dtype=_working_type(node), body=body.name, **kept, **origin(node)):
        made = body.emit(emitter, *node.inputs, **case.attributes)
        return _replace(emitter, node, made if isinstance(made, tuple) else (made,))


def _working_type(node: ir.Node) -> ir.DataType:
    values = (value for value in (*node.outputs, *node.inputs) if value is not None and value.dtype is not None)
    return next(
        (value.dtype for value in values if value.dtype is not None and value.dtype.is_floating_point()), ir.DataType.FLOAT
    )


def _replace(emitter: Emitter, node: ir.Node, made: Sequence[Any]) -> dict[ir.Value, ir.Value]:
    """Let ``made`` stand for the node's outputs, under their names, and take the node out."""
    fresh = _own(emitter, node, made[: len(node.outputs)])
    for old, new in zip(node.outputs, fresh, strict=False):
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.shape = old.shape if old.shape is not None else new.shape
        new.metadata_props.update(old.metadata_props)
    stands = dict(zip(node.outputs, fresh, strict=False))
    names = [value.name for value in node.outputs]
    emitter.graph.remove(node, safe=True)
    for new, taken in zip(fresh, names, strict=False):
        new.name = taken or new.name
    return stands


def _own(emitter: Emitter, node: ir.Node, made: Iterable[ir.Value]) -> list[ir.Value]:
    """Values that may take a name: what a body hands through, or gives out twice, gets a node of its own."""
    fresh: list[ir.Value] = []
    for value in made:
        handed_through = value in node.inputs or value.producer() is None or value in fresh
        fresh.append(emitter.Identity(value) if handed_through else value)
    return fresh
