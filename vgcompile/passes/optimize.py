"""The clean-up list, in order: Identity nodes taken out, and transposes that undo each other, sums of parts joined, what nothing
reads dropped, equal nodes merged, the stock pass for outputs and inputs that are left idle.

Parameters are graph inputs here, so nothing folds them away, and nodes are merged only where the same operator reads the same
values; edges have their ids by then.
"""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir
from onnx_ir.passes import common

from vgcompile.graph.attributes import frozen
from vgcompile.graph.view import bodies, graphs_of, leading_to
from vgcompile.ops import lookup
from vgcompile.passes.peephole import cancel, join


def optimize(model: ir.Model) -> ir.Model:
    """Merge repeated computations, drop what nothing reads. Changes ``model`` and returns it."""
    graphs = graphs_of(model.graph)
    for graph in graphs:
        _skip_identities(graph)
        cancel(graph)
    join(model)
    _drop_unread(model.graph)
    _merge_repeats(model.graph)
    if len(graphs) > 1 or any(len(node.outputs) > 1 for node in model.graph):
        return common.RemoveUnusedNodesPass()(model).model  # also inside bodies, and outputs that are optional
    _drop_idle_weights(model.graph)
    return model


def _skip_identities(graph: ir.Graph) -> None:
    """Let a copy's readers read what it copies.

    onnx_ir's own pass also does so where a graph gives the copy out: of two outputs that hold one value it loses a name, and of a
    subgraph it makes the output a value of the graph around it, which ONNX Runtime refuses.
    """
    skipped = [node for node in graph if node.op_type == "Identity" and not node.outputs[0].is_graph_output()]
    for node in skipped:
        value, copied = node.outputs[0], node.inputs[0]
        assert copied is not None
        copied.shape = copied.shape if copied.shape is not None else value.shape
        value.replace_all_uses_with(copied)
    graph.remove(skipped, safe=True)  # in one go: it costs a look at all outputs


def _merge_repeats(graph: ir.Graph) -> None:
    """Let the first of equal nodes stand for the others. An output of the graph keeps its name, by a copy where the first gives
    out one as well.

    The stock pass looks at every output of the graph for each node that it takes out, and takes two draws for one.
    """
    first: dict[Hashable, ir.Node] = {}
    places: dict[ir.Value, list[int]] = {}
    for index, value in enumerate(graph.outputs):
        places.setdefault(value, []).append(index)
    merged = []
    for node in graph:
        kept = node if (key := _likeness(node)) is None else first.setdefault(key, node)
        if kept is node:
            continue
        for old, new in zip(node.outputs, kept.outputs, strict=True):
            for index in places.pop(old, ()):
                stands = _under_name(graph, node, old, new)
                graph.outputs[index] = stands
                places.setdefault(stands, []).append(index)
            old.replace_all_uses_with(new)
        merged.append(node)
    graph.remove(merged, safe=True)


def _under_name(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """``new``, or a copy of it before ``node``, called as ``old`` was."""
    if not new.is_graph_output() and not new.is_graph_input():
        new.name = old.name
        return new
    copy = ir.node("Identity", [new], outputs=[ir.Value(name=old.name, type=old.type, shape=old.shape)])
    graph.insert_before(node, copy)
    return copy.outputs[0]


def _likeness(node: ir.Node) -> Hashable:
    """What nodes that compute the same have in common; None for a node that is like no other: it draws, or holds graphs or large
    tensors."""
    row = lookup(node.op_type, node.domain)
    if row is not None and row.random:
        return None
    given = frozen(node)
    return None if given is None else (node.op_identifier(), len(node.outputs), tuple(map(id, node.inputs)), given)


def _drop_unread(graph: ir.Graph) -> None:
    """Take out, in one go, the nodes that no output needs: the stock pass, which also looks into bodies and drops optional
    outputs, looks at every output of the graph for each node that it takes out."""
    needed = leading_to(graph, graph.outputs)
    unread = [node for node in reversed(graph) if node not in needed]
    for node in unread:
        _let_go(node)
    graph.remove(unread, safe=True)


def _drop_idle_weights(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]


def _let_go(node: ir.Node) -> None:
    """Let the bodies of a node read nothing more: what they read of the graph around them may go with the node."""
    for body in bodies(node):
        for inner in body.all_nodes():
            for place in range(len(inner.inputs)):
                inner.replace_input_with(place, None)
