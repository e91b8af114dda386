"""The edges of THE graph: every use of every value, with the names that all tiers and pictures know it by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from vgcompile.analysis.result import Role
from vgcompile.graph.emit import constant_of, dims, is_real
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact, line_of
from vgcompile.graph.view import operands


@dataclass(frozen=True)
class Use:
    """One use of one value.

    ``role`` is ``parameter`` for a trainable parameter and for what is computed from such alone, ``activation`` for what depends
    on data, ``none`` where no gradient can flow (an integer, a constant).
    """

    node: ir.Node
    position: int
    value: ir.Value
    source: str
    layer: str
    line: int | None
    role: Role
    shape: tuple[int | str, ...]

    @property
    def id(self) -> str:
        return f"{self.node.name}#{self.position}"


def learned(network: Network) -> set[ir.Value]:
    """The parameters, and what is computed from them and from constants alone: the same for every sample of a batch."""
    parameters = set(network.parameters)
    found = {value for value in network.model.graph.inputs if value.name in parameters}
    for node in network.model.graph:
        read = {value for value in node.inputs if value is not None and constant_of(value) is None}
        if read and read <= found:
            found.update(node.outputs)
    return found


def uses(network: Network) -> list[Use]:
    """Every edge of the graph in graph order, constants left out."""
    parameters = learned(network)
    found = []
    for node in network.model.graph:
        for position, value in enumerate(node.inputs):
            if value is None or constant_of(value) is not None:
                continue
            producer = value.producer()
            source = (producer.name if producer is not None else value.name) or ""
            role: Role = "parameter" if value in parameters else "activation"
            if not is_real(value):
                role = "none"
            found.append(
                Use(
                    node,
                    position,
                    value,
                    source,
                    layer_of(node),
                    line_of(node),
                    role,
                    dims(value) if value.shape is not None else (),
                )
            )
    return found


def above(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """The nodes that these are computed from; one of them where another one needs it."""
    found: set[ir.Node] = set()
    waiting = list(nodes)
    while waiting:
        makers = {value.producer() for value in operands(waiting.pop()) if value is not None}
        new = {node for node in makers if node is not None} - found
        found |= new
        waiting += new
    return found


def making_outputs(network: Network) -> set[ir.Node]:
    """The nodes that the outputs are computed by: losses and penalties are not among them."""
    names = set(network.outputs)
    last = [node for node in network.model.graph if not names.isdisjoint(value.name for value in node.outputs)]
    return above(last).union(last)


def layer_of(node: ir.Node) -> str:
    return fact(node, "layer") or ""


def read_output(node: ir.Node) -> ir.Value:
    """The first output that anything reads: a recurrent operator may be asked for its last state alone."""
    return next((value for value in node.outputs if value.uses() or value.is_graph_output()), node.outputs[0])


@dataclass(frozen=True)
class ParameterLayer:
    """A layer that holds parameters.

    Its pre-activation, ``value``, is what the last of its nodes that read a parameter, prepared or not, gives out.
    """

    name: str
    kind: str
    line: int | None
    value: ir.Value
    weights: tuple[ir.Value, ...]  # of two and more dimensions, else all
    linear: bool  # holds a weight of two and more dimensions


def parameter_layers(network: Network) -> list[ParameterLayer]:
    """The layers with parameters, in graph order. What reads a parameter for the loss alone, as a penalty does, is none."""
    parameters = set(network.parameters)
    layers = making_outputs(network)
    prepared = learned(network)  # a transposed weight is still a weight
    nodes: dict[str, list[ir.Node]] = {}
    for node in network.model.graph:
        if node in layers and not prepared.isdisjoint(node.inputs):
            nodes.setdefault(layer_of(node) or node.name or "", []).append(node)
    return [_layer(name, members, parameters) for name, members in nodes.items()]


def _layer(name: str, members: list[ir.Node], parameters: set[str]) -> ParameterLayer:
    last = members[-1]
    held = [v for node in members for v in node.inputs if v is not None and v.name in parameters]
    matrices = [v for v in held if len(dims(v)) >= 2]
    return ParameterLayer(
        name, fact(last, "kind") or last.op_type, line_of(last), read_output(last), tuple(matrices or held), bool(matrices)
    )
