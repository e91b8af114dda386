"""The graph as NetworkX sees it. Views are made fresh, never stored, never edited back."""

from __future__ import annotations

import networkx as nx
import onnx_ir as ir


def dependencies(graph: ir.Graph) -> nx.DiGraph:
    """Values and nodes as one bipartite graph: value -> node that uses it -> value that it makes."""
    result: nx.DiGraph = nx.DiGraph()
    for node in graph:
        result.add_edges_from((value, node) for value in node.inputs if value is not None)
        result.add_edges_from((node, value) for value in node.outputs)
    return result
