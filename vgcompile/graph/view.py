"""The graph as NetworkX sees it. Views are made fresh, never stored, never edited back."""

from __future__ import annotations

import networkx as nx
import onnx_ir as ir


def as_networkx(model: ir.Model) -> nx.MultiDiGraph:
    """Operators, inputs and parameters as nodes (by name), and one edge per use of a value, keyed by the input position.

    Node attribute ``ir`` is the ``ir.Node`` or, for a graph input or an initializer, the ``ir.Value``; edge attribute ``value``
    is the value that flows. A ``Mul(t, t)`` has two edges.
    """
    graph: nx.MultiDiGraph = nx.MultiDiGraph()
    for node in model.graph:
        graph.add_node(node.name, ir=node)
        for position, value in enumerate(node.inputs):
            if value is None:
                continue
            producer = value.producer()
            source = producer.name if producer is not None else value.name
            if producer is None:
                graph.add_node(source, ir=value)
            graph.add_edge(source, node.name, key=position, value=value)
    return graph


def dependencies(graph: ir.Graph) -> nx.DiGraph:
    """Values and nodes as one bipartite graph: value -> node that uses it -> value that it makes."""
    result: nx.DiGraph = nx.DiGraph()
    for node in graph:
        result.add_edges_from((value, node) for value in node.inputs if value is not None)
        result.add_edges_from((node, value) for value in node.outputs)
    return result
