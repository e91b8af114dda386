"""The annotated graph as NetworkX sees it, and files of it: a view, made fresh from an analysis and never read back.

    graph = vgcompile.analyze("models/deep_relu.yaml").graph
    weak = [(u, v, key) for u, v, key, gain in graph.edges(keys=True, data="gain_measured", default=0.0) if gain < -6.0]

docs/graph-api.md lists the attributes. Flat ones are strings, numbers and truths, and one that is not known is absent; ``edge``
and ``operator`` hold the same as the typed data of :mod:`vgcompile.analysis.result`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from vgcompile.analysis.result import Edge, Elements, Operator, Tiers

if TYPE_CHECKING:
    import networkx as nx

Flat = str | int | float | bool
Form = Literal["graphml", "json"]
TYPED = ("edge", "operator")
DECIMALS = 9


def as_networkx(edges: Iterable[Edge], operators: Iterable[Operator] = (), flat: bool = True) -> nx.MultiDiGraph:
    """Operators, inputs and parameters as nodes, by name, and one edge for each use of a value, keyed by its id, from the
    producer to the consumer. A ``Mul(t, t)`` has two edges. Without ``flat`` there are the typed attributes alone."""
    import networkx as nx  # slow to import, and most commands do without

    graph: nx.MultiDiGraph = nx.MultiDiGraph()
    for operator in operators:
        graph.add_node(operator.name, operator=operator, **(_node(operator) if flat else {}))
    for edge in edges:
        if flat and edge.source not in graph:
            graph.add_node(edge.source, kind="parameter" if edge.role == "parameter" else "input")
        graph.add_edge(edge.source, edge.target, key=edge.id, edge=edge, **(_edge(edge) if flat else {}))
    return graph


def flat(graph: nx.MultiDiGraph) -> nx.MultiDiGraph:
    """A copy with the flat attributes alone: what a file can hold."""
    import networkx as nx

    copy: nx.MultiDiGraph = nx.MultiDiGraph(**graph.graph)
    copy.add_nodes_from((node, _without_typed(data)) for node, data in graph.nodes(data=True))
    copy.add_edges_from((u, v, key, _without_typed(data)) for u, v, key, data in graph.edges(keys=True, data=True))
    return copy


def export(graph: nx.MultiDiGraph, form: Form) -> str:
    """The graph as GraphML, or as JSON in NetworkX's node-link form: the same graph, the same bytes."""
    import networkx as nx

    if form == "graphml":
        return "\n".join(nx.generate_graphml(flat(graph))) + "\n"
    return json.dumps(nx.node_link_data(flat(graph), edges="edges"), indent=1, allow_nan=False) + "\n"


def _without_typed(data: Mapping[str, Any]) -> dict[str, Flat]:
    return {name: value for name, value in data.items() if name not in TYPED}


def _node(operator: Operator) -> dict[str, Flat]:
    where: dict[str, Flat] = {} if operator.line is None else {"line": operator.line}
    return {
        "kind": "operator",
        "type": operator.type,
        "layer": operator.layer,
        "output": operator.output,
        **where,
        **dict(_tiers("total", operator.total)),
    }


def _edge(edge: Edge) -> dict[str, Flat]:
    where: dict[str, Flat] = {} if edge.line is None else {"line": edge.line}
    return {
        "value": edge.value,
        "layer": edge.layer,
        "role": edge.role,
        "shape": " x ".join(map(str, edge.shape)),
        **where,
        **dict(_tiers("gain", edge.gain)),
        **dict(_tiers("local", edge.local)),
        **dict(_elements(edge.elements)),
    }


def _tiers(name: str, tiers: Tiers) -> Iterator[tuple[str, Flat]]:
    numbers = {
        "measured": tiers.measured,
        "expected": tiers.expected.mean,
        "sd": tiers.expected.sd,
        "lo": tiers.sound.lo,
        "hi": tiers.sound.hi,
    }
    yield from ((f"{name}_{field}", round(float(x), DECIMALS) + 0.0) for field, x in numbers.items() if x is not None)
    if tiers.expected.mean is not None:
        yield f"{name}_confidence", tiers.expected.confidence
    for field, reason in tiers.why.items():
        yield f"{name}_{field.removeprefix('sound.')}_why", reason


def _elements(elements: Elements | None) -> Iterator[tuple[str, Flat]]:
    if elements is None:
        return
    if elements.peak is not None:
        yield "peak", round(elements.peak, DECIMALS) + 0.0
    yield "zeros", round(elements.zeros, DECIMALS)
    yield "undefined", round(elements.undefined, DECIMALS)
