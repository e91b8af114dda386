"""The graphs inside nodes: branches and loop bodies."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

_ONE, _SEVERAL = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == _ONE:
            yield attribute.as_graph()
        elif attribute.type == _SEVERAL:
            yield from attribute.as_graphs()


def graphs_of(graph: ir.Graph) -> list[ir.Graph]:
    """A graph and all graphs inside it, the outer ones first."""
    found = [graph]
    for outer in found:  # grows as it goes
        for node in outer:
            if node.attributes:
                found.extend(bodies_of(node))
    return found
