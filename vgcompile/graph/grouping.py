"""Layers for a foreign model, which states none: every node is stamped with a layer and a kind, as a YAML model's nodes are.

A node that combines data with a parameter starts a layer; one that only adds (or multiplies by) a vector right behind such a node
joins it, for that is a bias. Every other node goes with the latest layer that it reads, what prepares a parameter with the node
that uses it, and what lies between the outputs and the loss is the layer ``loss``. No operator is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import networkx as nx
import onnx_ir as ir

from vgcompile.graph.emit import dims
from vgcompile.graph.objective import Objective, downstream
from vgcompile.graph.provenance import PREFIX
from vgcompile.graph.view import dependencies


@dataclass(frozen=True, order=True)
class _Layer:
    """``place`` is where in the graph it starts: a node is never stamped with a layer earlier than one that it reads."""

    place: int
    name: str = field(compare=False)
    kind: str = field(compare=False)
    starter: ir.Node | None = field(compare=False, default=None)


def group(model: ir.Model, parameters: Set[str], objective: Objective) -> None:
    """Stamp ``layer`` and ``kind`` on every node of ``model``."""
    graph = model.graph
    reach = dependencies(graph)
    fed = downstream(reach, [value for value in graph.inputs if value.name not in parameters])
    weights = downstream(reach, [value for value in graph.inputs if value.name in parameters]) - fed
    losing = _between(reach, objective)
    layers: dict[ir.Node, _Layer] = {}
    taken = {"loss"}
    for place, node in enumerate(graph):
        if node in losing:
            layers[node] = _Layer(len(graph), "loss", _loss_kind(objective))
        elif node in fed:
            layers[node] = _upstream(node, weights, layers) or _start(place, node, weights, taken)
            taken.add(layers[node].name)
    for node in reversed(list(graph)):
        layer = layers.get(node) or _downstream(node, layers) or _start(0, node, weights, taken)
        layers[node] = layer
        node.metadata_props[PREFIX + "layer"] = layer.name
        node.metadata_props[PREFIX + "kind"] = layer.kind


def _between(reach: nx.DiGraph, objective: Objective) -> set[object]:
    """Behind the outputs, before the loss, and on no way from one output to another."""
    if objective.loss is None:
        return set()
    to_outputs: set[object] = set().union(*(nx.ancestors(reach, output) for output in objective.outputs))
    to_loss: set[object] = nx.ancestors(reach, objective.loss)
    return (downstream(reach, objective.outputs) & to_loss) - to_outputs


def _loss_kind(objective: Objective) -> str:
    producer = objective.loss.producer() if objective.loss is not None else None
    return producer.op_type if producer is not None else ""


def _upstream(node: ir.Node, weights: Set[object], layers: Mapping[ir.Node, _Layer]) -> _Layer | None:
    """The latest layer that a node reads, unless the node starts one itself."""
    held = [value for value in node.inputs if value is not None and value in weights]
    others = [value for value in node.inputs if value is not None and value not in weights]
    read = [layers[maker] for value in others if (maker := value.producer()) is not None and maker in layers]
    return None if held and not _is_bias(node, held, others, read) else max(read, default=None)


def _is_bias(node: ir.Node, held: list[ir.Value], others: list[ir.Value], read: list[_Layer]) -> bool:
    """Whether a node puts one vector on what a layer's first node has just made, and changes no shape."""
    if len(held) != 1 or len(read) != 1 or read[0].starter is None:
        return False
    made = [value for value in others if value.producer() is read[0].starter]
    return len(made) == 1 and sum(dim != 1 for dim in dims(held[0])) <= 1 and dims(node.outputs[0]) == dims(made[0])


def _downstream(node: ir.Node, layers: Mapping[ir.Node, _Layer]) -> _Layer | None:
    return next((layers[user] for value in node.outputs for user in value.consumers() if user in layers), None)


def _start(place: int, node: ir.Node, weights: Set[object], taken: Set[str]) -> _Layer:
    held = [value for value in node.inputs if value is not None and value in weights]
    name = _module(max(held, key=lambda value: len(dims(value)))) if held else ""
    own = (node.name or "").lstrip("/")
    names = [name, own.removesuffix(f"/{node.op_type}"), own]
    free = next((name for name in names if name and name not in taken), f"{own}.{place}")
    return _Layer(place, free, node.op_type, node if held else None)


def _module(value: ir.Value) -> str:
    """``encoder.fc1`` for a weight that was made from ``encoder.fc1.weight``, or nothing where names are not built so."""
    while (maker := value.producer()) is not None:
        value = next(operand for operand in maker.inputs if operand is not None)
    head = re.match(r"(.+)[./][^./]+$", str(value.name))
    return head[1] if head else ""
