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
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import Emitter, arithmetic, constant_of
from vgcompile.graph.provenance import PREFIX, fact, origin
from vgcompile.graph.specified import specified
from vgcompile.graph.view import graphs_of
from vgcompile.ops import INTERNAL, lookup
from vgcompile.ops.op import Body, Case, Op
from vgcompile.passes.alike import Parts, Recipes

Profile = Literal["portable", "fast"]


@dataclass(frozen=True)
class Openings:
    """The bodies that were chosen so far in one model and profile, and what they emitted, for composites that are alike."""

    recipes: Recipes = field(default_factory=Recipes)
    bodies: dict[Hashable, Body] = field(default_factory=dict)

    def question(self, node: ir.Node) -> Hashable:
        """What a composite has in common with those that it is like; None for one that its definition opens, node by node."""
        return self.recipes.likeness(node, (), ()) if lookup(node.op_type, node.domain) is not None else None


def lower(model: ir.Model, profile: Profile = "fast") -> ir.Model:
    """Open the composites of a model and of its subgraphs. Changes ``model`` and returns it."""
    emitter: Emitter | None = None  # made where there is something to open: it looks at every name of the model
    openings = Openings()
    while closed := [(graph, nodes) for graph in graphs_of(model.graph) if (nodes := _composites(graph))]:
        emitter = emitter or Emitter(model.graph, model.opset_imports[""])
        for graph, nodes in closed:
            inner = emitter.inside(graph)
            with arithmetic(inner):
                for node in nodes:
                    open_node(inner, node, profile, openings)
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
    emitter: Emitter, node: ir.Node, profile: Profile = "fast", openings: Openings | None = None
) -> dict[ir.Value, ir.Value]:
    """Replace a composite, in the emitter's graph, by the operators of its cheapest body; returns what stands for its outputs.

    ``openings`` are those made so far in this model and profile, and take in this one.
    """
    openings = openings or Openings()
    question = openings.question(node)
    body = openings.bodies.get(question) or _chosen(node, emitter.opset, profile)
    kept = {key: node.metadata_props[PREFIX + key] for key in ("role", "forward") if fact(node, key)}
    name = (node.name or node.op_type).lstrip("/")
    with emitter.scope(name, before=node, dtype=_working_type(node), body=body.name, **kept, **origin(node)):
        made = _written(emitter, node, body, openings.recipes, question)
        if question is not None:
            openings.bodies[question] = body
        return _replace(emitter, node, made)


def _chosen(node: ir.Node, opset: int, profile: Profile) -> Body:
    row = lookup(node.op_type, node.domain) or specified(node, opset)
    assert row is not None, f"{node.op_type} has no body"
    return choose(row, case_of(node), partial(node_count, node, opset) if profile == "portable" else None)


def _written(emitter: Emitter, node: ir.Node, body: Body, recipes: Recipes, question: Hashable) -> Sequence[ir.Value]:
    """By what the body emitted for a composite like this one, or else by the body."""

    def asked() -> Parts:
        made = body.emit(emitter, *node.inputs, **attributes_of(node))
        return list(enumerate(made if isinstance(made, tuple) else (made,)))

    return [value for _, value in recipes.answered(emitter, question, (*node.inputs, *node.outputs), asked)]


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
