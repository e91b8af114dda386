"""The clean-up list, in order: Identity nodes taken out, sums of parts joined, what nothing reads dropped, stock passes.

Parameters are graph inputs here, so nothing folds them away, and common-subexpression elimination merges nodes only where the
same operator reads the same values; edges have their ids by then.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from vgcompile.graph.view import bodies, graphs_of, operands
from vgcompile.passes.peephole import join


def optimize(model: ir.Model) -> ir.Model:
    """Merge repeated computations, drop what nothing reads. Changes ``model`` and returns it."""
    for graph in graphs_of(model.graph):
        _skip_identities(graph)
    join(model)
    _drop_unread(model.graph)
    passes = ir.passes.Sequential(common.CommonSubexpressionEliminationPass(), common.RemoveUnusedNodesPass())
    return passes(model).model


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


def _drop_unread(graph: ir.Graph) -> None:
    """Take out, in one go, the nodes that no output needs: the stock pass, which also looks into bodies and drops optional
    outputs, looks at every output of the graph for each node that it takes out."""
    read, unread = set(graph.outputs), []
    for node in reversed(graph):
        if any(value in read for value in node.outputs):
            read.update(value for value in operands(node) if value is not None)
        else:
            unread.append(node)
    for node in unread:
        _let_go(node)
    graph.remove(unread, safe=True)


def _let_go(node: ir.Node) -> None:
    """Let the bodies of a node read nothing more: what they read of the graph around them may go with the node."""
    for body in bodies(node):
        for inner in body.all_nodes():
            for place in range(len(inner.inputs)):
                inner.replace_input_with(place, None)
