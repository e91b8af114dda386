"""Ways of the gradient through an annotated graph: NetworkX's algorithms, on the graph turned around.

The gradient enters at the operators that make the outputs, and goes from a consumer to what it reads. It passes an edge unless
a tier says that nothing does: an integer, an operator that blocks, a zero of this batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vgcompile.analysis.paths import strongest
from vgcompile.analysis.result import Edge, TierName
from vgcompile.errors import UserError, nearest

if TYPE_CHECKING:
    import networkx as nx

ROOT = ""  # where the gradient comes from; no node is called so


def backward(graph: nx.MultiDiGraph) -> nx.DiGraph:
    """The ways of the gradient, from ``ROOT``. Every edge is a node as well, ``(source, target, key)``, so that NetworkX's
    functions for plain graphs tell parallel edges apart, and find edges where they look for nodes."""
    import networkx as nx

    ways: nx.DiGraph = nx.DiGraph()
    ways.add_node(ROOT)
    ways.add_nodes_from(graph)
    ways.add_edges_from((ROOT, node) for node, output in graph.nodes(data="output") if output)
    for source, target, key, edge in graph.edges(keys=True, data="edge"):
        if passes(edge):
            nx.add_path(ways, [target, (source, target, key), source])
    return ways


def passes(edge: Edge) -> bool:
    """Whether any gradient goes along an edge, as far as the tiers know."""
    return edge.role != "none" and "zero" not in (edge.gain.why.get("sound.hi"), edge.gain.why.get("measured"))


def worst_path(graph: nx.MultiDiGraph, node: str, tier: TierName = "measured") -> tuple[Edge, ...]:
    """The edges of the strongest way to a node, from an output on: that of the greatest product of a tier's local factors.

    Empty where none leads there. Raises UserError for a node that the graph lacks.
    """
    _known(graph, node)
    place = {name: index for index, name in enumerate(graph)}  # operators stand in graph order
    edges = sorted((edge for _, _, edge in graph.edges(data="edge")), key=lambda edge: place[edge.target])
    return along(strongest(edges, {name for name, output in graph.nodes(data="output") if output}, tier), node)


def along(ways: Mapping[str, tuple[str, Edge]], node: str) -> tuple[Edge, ...]:
    """The edges by which a way found by ``strongest`` comes to a node."""
    edges = []
    while node in ways:
        node, edge = ways[node]
        edges.append(edge)
    return tuple(reversed(edges))


def bottlenecks(graph: nx.MultiDiGraph, node: str) -> tuple[Edge, ...]:
    """The edges that every gradient of a node has crossed, from the output on: those among its dominators (Cooper, Harvey and
    Kennedy 2001, as NetworkX has it). Raises UserError for a node that the graph lacks."""
    import networkx as nx

    _known(graph, node)
    above = nx.immediate_dominators(backward(graph), ROOT)
    edges: list[Edge] = []
    at = above.get(node)
    while at is not None and at != ROOT:
        if isinstance(at, tuple):
            edges.append(graph.edges[at]["edge"])
        at = above[at]
    return tuple(reversed(edges))


def disjoint_routes(graph: nx.MultiDiGraph, node: str) -> tuple[tuple[Edge, ...], ...]:
    """As many ways as there are from the outputs to a node without a common edge (a maximum flow), the shortest first.

    Raises UserError for a node that the graph lacks.
    """
    import networkx as nx

    _known(graph, node)
    ways = backward(graph)
    outputs = list(ways.successors(ROOT))
    if node in outputs or not nx.has_path(ways, ROOT, node):
        return ()
    entered = nx.relabel_nodes(ways, dict.fromkeys(outputs, ROOT))  # any number of ways may begin at one output
    paths = nx.edge_disjoint_paths(entered, ROOT, node)
    found = [tuple(graph.edges[step]["edge"] for step in path if isinstance(step, tuple)) for path in paths]
    return tuple(sorted(found, key=lambda way: (len(way), [edge.id for edge in way])))


def condensed(graph: nx.MultiDiGraph) -> nx.DiGraph:
    """The layers as nodes, those that read each other in a circle as one: a cell that is unrolled over time, weights shared up
    and down the net. Nodes hold ``layers``, a tuple of names; NetworkX's ``condensation``, so that the result has no circle."""
    import networkx as nx

    layers: nx.DiGraph = nx.DiGraph()
    home = {node: layer for node, layer in graph.nodes(data="layer") if layer is not None}
    layers.add_nodes_from(home.values())
    layers.add_edges_from((home[u], home[v]) for u, v in graph.edges() if u in home and v in home and home[u] != home[v])
    whole = nx.condensation(layers)
    order = {layer: place for place, layer in enumerate(layers)}
    for _, data in whole.nodes(data=True):
        data["layers"] = tuple(sorted(data.pop("members"), key=order.__getitem__))
    return whole


def _known(graph: nx.MultiDiGraph, node: str) -> None:
    if node not in graph:
        raise UserError(f"the graph has no node {node!r}" + (f"; {hint}" if (hint := nearest(node, graph)) else ""))
