"""The annotated graph as NetworkX sees it: a view, made fresh from an analysis and never edited back.

graph = as_networkx(analysis.edges)
weak = [(u, v) for u, v, edge in graph.edges(data="edge") if (edge.gain.measured or 0.0) < -6.0]
"""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from vgcompile.analysis.result import Edge


def as_networkx(edges: Iterable[Edge]) -> nx.MultiDiGraph:
    """Operators, inputs and parameters as nodes, by name, and one edge per use of a value, keyed by its id.

    Edge attribute ``edge`` is the :class:`~vgcompile.analysis.result.Edge` with its three tiers. A ``Mul(t, t)`` has two edges.
    """
    graph: nx.MultiDiGraph = nx.MultiDiGraph()
    for edge in edges:
        graph.add_edge(edge.source, edge.target, key=edge.id, edge=edge)
    return graph
