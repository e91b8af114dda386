"""The graph as NetworkX sees it, and what a node reads. Views are made fresh, never stored, never edited back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import networkx as nx

_ONE, _SEVERAL = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs that a node holds: the branches of an If, the body of a Loop or Scan."""
    held: list[ir.Graph] = []
    for attribute in node.attributes.data.values():  # of the plain dictionary: every node is asked, over and over
        if attribute.type is _ONE:
            held.append(attribute.as_graph())
        elif attribute.type is _SEVERAL:
            held.extend(attribute.as_graphs())
    return held


def graphs_of(graph: ir.Graph) -> list[ir.Graph]:
    """A graph and all graphs inside it, the outer ones first."""
    found = [graph]
    for outer in found:  # grows as it goes
        for node in outer:
            for attribute in node.attributes.data.values():
                if attribute.type is _ONE or attribute.type is _SEVERAL:
                    found.extend(bodies(node))
                    break
    return found


def captured(node: ir.Node) -> list[ir.Value]:
    """What a node's bodies read of the graphs around them, each value once, in the order of reading."""
    return list(dict.fromkeys(value for body in bodies(node) for value in _free(body)))


def _free(graph: ir.Graph) -> list[ir.Value]:
    """Values that a graph, or a graph inside it, reads and none of its nodes makes."""
    own = {*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)}
    read = [value for node in graph for value in operands(node) if value is not None]
    return [value for value in (*read, *graph.outputs) if value not in own]


def operands(node: ir.Node) -> Sequence[ir.Value | None]:
    """All that a node reads: its inputs, then what its bodies capture."""
    if not node.attributes.data or not bodies(node):
        return node.inputs
    return [*node.inputs, *captured(node)]


def leading_to(graph: ir.Graph, values: Iterable[ir.Value]) -> set[ir.Node]:
    """The nodes from which one of these values is reached: nodes stand in topological order, so one look upwards finds them."""
    read: set[ir.Value | None] = set(values)
    found = set()
    for node in reversed(graph):
        if not read.isdisjoint(node.outputs):
            found.add(node)
            read.update(operands(node))
    return found


def dependencies(graph: ir.Graph) -> nx.DiGraph:
    """Values and nodes as one bipartite graph: value -> node that uses it -> value that it makes."""
    import networkx as nx  # slow to import, and most models never ask

    result: nx.DiGraph = nx.DiGraph()
    for node in graph:
        result.add_edges_from((value, node) for value in operands(node) if value is not None)
        result.add_edges_from((node, value) for value in node.outputs)
    return result
