"""The worst path: the strongest route from the loss to a layer, spelled out so that its logs add up to the layer's gain.

Crossing an edge multiplies the adjoint by the edge's local factor; where the value it arrives at has other consumers, the sum
differs from this part by the merge factor |sum| / |part|, which is below 1 where parts cancel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

from vgcompile.analysis.result import Edge, Path, Step, TierName, Tiers
from vgcompile.graph.network import Network

PREFERENCE: tuple[TierName, ...] = ("measured", "expected", "sound")


def number(tiers: Tiers, tier: TierName) -> float | None:
    """The one number that a tier gives: a measurement, a mean, or an upper bound."""
    if tier == "measured":
        return tiers.measured
    return tiers.expected.mean if tier == "expected" else tiers.sound.hi


def worst_paths(
    network: Network, edges: Sequence[Edge], values: Mapping[str, str], gains: Mapping[str, Tiers]
) -> dict[str, Path]:
    """For each named layer the strongest route to its value, in the first tier that has a number on every edge of it."""
    found: dict[str, Path] = {}
    for tier in PREFERENCE:
        missing = {name: value for name, value in values.items() if name not in found and number(gains[name], tier) is not None}
        if missing:
            found.update(_paths(network, edges, missing, gains, tier))
    return found


def _paths(
    network: Network, edges: Sequence[Edge], values: Mapping[str, str], gains: Mapping[str, Tiers], tier: TierName
) -> dict[str, Path]:
    producers = {value.name: node.name for node in network.model.graph for value in node.outputs}
    outputs = {producers[name] for name in network.outputs}
    routes = strongest(edges, outputs, tier)
    return {
        name: path
        for name, value in values.items()
        if (path := _spell(routes, outputs, producers.get(value), number(gains[name], tier), tier)) is not None
    }


def strongest(edges: Sequence[Edge], outputs: Set[str | None], tier: TierName) -> Mapping[str, tuple[str, Edge]]:
    """For each node but an output the node, one step nearer to the loss, that its strongest route comes from, and the edge
    between. ``edges`` are in graph order, so that all routes to a node are known before any goes on from it."""
    reached = {output: 0.0 for output in outputs if output is not None}
    routes: dict[str, tuple[str, Edge]] = {}
    for edge in reversed(edges):
        if edge.target not in reached or not _passable(edge, tier):
            continue
        log, known = reached[edge.target] + (number(edge.local, tier) or 0.0), reached.get(edge.source, -math.inf)
        parallel = log == known and edge.source in routes and routes[edge.source][0] == edge.target
        if log > known or parallel:  # of several uses by one node the first
            reached[edge.source], routes[edge.source] = log, (edge.target, edge)
    return routes


def _passable(edge: Edge, tier: TierName) -> bool:
    local = number(edge.local, tier)
    return edge.role == "activation" and local is not None and math.isfinite(local) and number(edge.gain, tier) is not None


def _spell(
    routes: Mapping[str, tuple[str, Edge]], outputs: set[str | None], node: str | None, gain: float | None, tier: TierName
) -> Path | None:
    if node is None or gain is None or (node not in routes and node not in outputs):
        return None
    hops: list[Edge] = []
    while node in routes:
        node, edge = routes[node]
        hops.append(edge)
    hops.reverse()
    steps, at = [], 0.0
    for edge, after in zip(hops, [*hops[1:], None][: len(hops)], strict=True):
        part = number(edge.gain, tier)
        assert part is not None
        # What the next edge starts from is total(value); the last one arrives at the layer's own total.
        local = number(after.local, tier) if after is not None else None
        onward = number(after.gain, tier) if after is not None else None
        total = onward - local if onward is not None and local is not None else gain
        steps.append(Step(edge.id, edge.layer, edge.line, part - at, total - part))
        at = total
    return Path(tuple(steps), gain, tier)
