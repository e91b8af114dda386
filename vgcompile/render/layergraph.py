"""THE graph seen from further away: one vertex per layer (or graph input), one arrow per use of a value across layers.

Operators of one layer are one vertex, parameters are counted in it and not drawn. What holds no real numbers that depend on an
input (constants, shape arithmetic) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from vgcompile.analysis.result import Analysis, Elements, Layer, Sound, Tiers
from vgcompile.analysis.uses import layer_of, uses
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact, line_of
from vgcompile.ops.op import Dim


@dataclass(frozen=True)
class Vertex:
    """A layer or a graph input; ``order`` is its place on the way to the loss, ``parameters`` counts its trainable numbers."""

    order: int
    name: str
    kind: str
    role: Literal["input", "target", "layer", "loss"]
    line: int | None = None
    parameters: int = 0
    found: Layer | None = None  # what the analysis says of it, for a layer that holds parameters


@dataclass(frozen=True)
class Arrow:
    """One use of a value by another layer than the one that makes it; ``gain`` is None where no gradient flows.

    What enters the loss is y itself, which every bound is stated against: there is none on y.
    """

    source: int
    target: int
    shape: tuple[Dim, ...]
    gain: Tiers | None
    elements: Elements | None = None


@dataclass(frozen=True)
class LayerGraph:
    vertices: tuple[Vertex, ...]  # in order from the inputs to the loss
    arrows: tuple[Arrow, ...]


def layer_graph(network: Network, analysis: Analysis | None = None) -> LayerGraph:
    """The network at the level of layers, with what the analysis found on its edges; linear in the number of operators."""
    home = {name: name for name in network.inputs} | {node.name or "": layer_name(node) for node in network.model.graph}
    vertices = _vertices(network, home, analysis)
    found = {edge.id: edge for edge in analysis.edges} if analysis else {}
    arrows = []
    for use in uses(network):
        start, end = vertices.get(home.get(use.source, "")), vertices.get(home[use.node.name or ""])
        if start is None or end is None or start is end:
            continue
        flows = use.role == "activation" and start.role != "target" and any(map(is_real, use.node.outputs))  # not into a shape
        edge = found.get(use.id) if flows else None
        gain = edge.gain if edge is not None else Tiers() if flows else None
        if gain is not None and end.role == "loss":
            gain = Tiers(Sound(vacuous=False), gain.expected, gain.measured, {**gain.why, "sound.hi": "undefined"})
        arrows.append(Arrow(start.order, end.order, use.shape, gain, edge.elements if edge is not None else None))
    return LayerGraph(tuple(vertices.values()), tuple(arrows))


def layer_name(node: ir.Node) -> str:
    """The layer that a node is stamped with; one without a stamp is a layer of its own."""
    return layer_of(node) or node.name or ""


def _vertices(network: Network, home: Mapping[str, str], analysis: Analysis | None) -> dict[str, Vertex]:
    members = _members(network, home)
    layers = {layer.name: layer for layer in analysis.layers} if analysis else {}
    loss = _loss_layer(network)
    counted = _parameters(network, home)
    vertices: dict[str, Vertex] = {}
    for name, nodes in members.items():
        order = len(vertices)
        if not nodes:
            given = network.inputs[name]
            vertices[name] = Vertex(order, name, given.role, given.role)
            continue
        kind = fact(nodes[0], "kind") or "+".join(dict.fromkeys(node.op_type for node in nodes))
        if name == loss and network.parts:
            kind = _terms(network)
        role: Literal["loss", "layer"] = "loss" if name == loss else "layer"
        vertices[name] = Vertex(order, name, kind, role, line_of(nodes[0]), counted.get(name, 0), layers.get(name))
    return vertices


def _members(network: Network, home: Mapping[str, str]) -> dict[str, list[ir.Node]]:
    """Each drawn layer's nodes, in the order of the graph; an input has none and stands before its first use."""
    reached = {value for value in network.model.graph.inputs if value.name in network.inputs}
    nodes_of: dict[str, list[ir.Node]] = {}
    real: set[str] = set()
    for node in network.model.graph:
        used = [value for value in node.inputs if value in reached]
        if not used:
            continue
        reached.update(node.outputs)
        for value in used:
            if value.producer() is None:
                assert value.name is not None
                nodes_of.setdefault(value.name, [])
                real.add(value.name)
        assert node.name is not None
        nodes_of.setdefault(home[node.name], []).append(node)
        if any(output.dtype is None or output.dtype.is_floating_point() for output in node.outputs):
            real.add(home[node.name])
    return {name: nodes for name, nodes in nodes_of.items() if name in real}


def _loss_layer(network: Network) -> str | None:
    for node in network.model.graph:
        if any(output.name == network.loss for output in node.outputs):
            return layer_name(node)
    return None


def _terms(network: Network) -> str:
    """What a loss is the sum of: ``cross_entropy + side (cross_entropy) + penalty``."""
    kinds = {value.name: fact(node, "kind") or "" for node in network.model.graph for value in node.outputs}
    names = {part: part.rsplit("/", 1)[-1] for part in network.parts}
    return " + ".join(name if name.startswith(kinds[part]) else f"{name} ({kinds[part]})" for part, name in names.items())


def _parameters(network: Network, home: Mapping[str, str]) -> dict[str, int]:
    """Trainable numbers by layer; one that several layers use counts where it is used first."""
    wanted = set(network.parameters)
    counts: dict[str, int] = {}
    for node in network.model.graph:
        for value in node.inputs:
            if value is not None and value.name in wanted:
                wanted.discard(value.name)
                assert node.name is not None
                size = math.prod(dim for dim in dims(value) if isinstance(dim, int))
                counts[home[node.name]] = counts.get(home[node.name], 0) + size
    return counts
