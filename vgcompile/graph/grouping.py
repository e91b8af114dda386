"""Layers for a foreign model, which states none: every node is stamped with a layer and a kind, as a YAML model's nodes are.

A node that combines data with a parameter starts a layer; one that only adds (or multiplies by) a vector right behind such a node joins
it, for that is a bias. Every other node goes with the latest layer that it reads, what prepares a parameter with the node that uses
it, and what lies between the outputs and the loss is the layer ``loss``. No operator is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass

import networkx as nx
import onnx_ir as ir

from vgcompile.graph.emit import dims
from vgcompile.graph.objective import Objective
from vgcompile.graph.provenance import PREFIX
from vgcompile.graph.view import dependencies, downstream


@dataclass(frozen=True, order=True)
class _Layer:
    """``start`` is the place in the graph of the node that it starts with: a node reads no layer that is later than its own."""

    start: int
    name: str
    kind: str


def group(model: ir.Model, parameters: Set[str], objective: Objective) -> None:
    """Stamp ``layer`` and ``kind`` on every node of ``model``."""
    graph = model.graph
    reach = dependencies(graph)
    learned = [value for value in graph.inputs if value.name in parameters]
    fed = downstream(reach, [value for value in graph.inputs if value.name not in parameters])
    weights = downstream(reach, learned) - fed
    losing = _between(reach, objective)
    layers: dict[ir.Node, _Layer] = {}
    for place, node in enumerate(graph):
        if node in losing:
            layers[node] = _Layer(len(graph), "loss", _loss_kind(objective))
        elif node in fed:
            layers[node] = _layer(place, node, weights, layers)
    for place, node in reversed(list(enumerate(graph))):
        if node not in layers:
            users = (layers[user] for value in node.outputs for user in value.consumers() if user in layers)
            layers[node] = next(users, None) or _own(place, node)
        node.metadata_props[PREFIX + "layer"] = layers[node].name
        node.metadata_props[PREFIX + "kind"] = layers[node].kind


def _between(reach: nx.DiGraph, objective: Objective) -> set[object]:
    """Behind the outputs, before the loss, and on no way from one output to another."""
    if objective.loss is None:
        return set()
    to_outputs = set().union(*(nx.ancestors(reach, output) for output in objective.outputs))
    return (downstream(reach, objective.outputs) & nx.ancestors(reach, objective.loss)) - to_outputs


def _loss_kind(objective: Objective) -> str:
    producer = objective.loss.producer() if objective.loss is not None else None
    return producer.op_type if producer is not None else ""


def _layer(place: int, node: ir.Node, weights: Set[object], layers: Mapping[ir.Node, _Layer]) -> _Layer:
    held = [value for value in node.inputs if value is not None and value in weights]
    read = [layers[maker] for value in node.inputs if value is not None and (maker := value.producer()) in layers]
    if held and not _joins(node, held, layers):
        taken = {layer.name for layer in layers.values()}
        name = _parameter_group(held)
        return _Layer(place, name if name and name not in taken else _bare(node), node.op_type)
    return max(read, default=None) or _own(place, node)


def _joins(node: ir.Node, held: list[ir.Value], layers: Mapping[ir.Node, _Layer]) -> bool:
    """Whether a node puts one vector on what a layer's first node has just made, and changes no shape."""
    others = [value for value in node.inputs if value is not None and value not in held]
    makers = [value.producer() for value in others]
    if len(held) != 1 or len(others) != 1 or makers[0] not in layers:
        return False
    vector = sum(dim != 1 for dim in dims(held[0])) <= 1
    starter = makers[0].graph is not None and layers[makers[0]].start == list(makers[0].graph).index(makers[0])
    return vector and starter and dims(node.outputs[0]) == dims(others[0])


def _parameter_group(held: list[ir.Value]) -> str:
    """``encoder.fc1`` for a node that holds ``encoder.fc1.weight``, or nothing where names are not made so."""
    value = max(held, key=lambda v: len(dims(v)))
    while (maker := value.producer()) is not None:
        value = next(v for v in maker.inputs if v is not None)
    parts = re.split(r"[./]", str(value.name))
    return str(value.name)[: -len(parts[-1]) - 1] if len(parts) > 1 and all(parts) else ""


def _bare(node: ir.Node) -> str:
    return (node.name or "").lstrip("/")


def _own(place: int, node: ir.Node) -> _Layer:
    return _Layer(place, _bare(node), node.op_type)
