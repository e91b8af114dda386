"""What a foreign model computes: its loss, the outputs y that enter it, and the inputs that are only compared with.

No operator is named: a target is an input that no node with a parameter ever sees, and y is what meets the targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

import networkx as nx
import onnx_ir as ir

from vgcompile.errors import ModelError, nearest
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.view import dependencies


@dataclass(frozen=True)
class Objective:
    """``outputs`` enter the ``loss``; without a loss they are all real outputs and there are no ``targets``."""

    loss: ir.Value | None
    outputs: tuple[ir.Value, ...]
    targets: frozenset[ir.Value]


def objective(model: ir.Model, parameters: Set[str], loss: str | None, output: str | None) -> Objective:
    """Loss (``loss``, default the graph output called ``loss`` where it is one real number) and outputs (``output``, or found).

    Raises ModelError for a name that is no value of the model, a loss that is no scalar, or a model without real outputs.
    """
    graph = model.graph
    scalar = _loss(graph, loss)
    reach = dependencies(graph)
    targets = _targets(reach, graph, parameters, scalar) if scalar is not None else frozenset()
    if output is not None:
        return Objective(scalar, (_named(graph, output, "--output"),), targets)
    real = [value for value in graph.outputs if is_real(value) and value is not scalar and value.producer() is not None]
    if scalar is not None:
        real = _entering(reach, graph, parameters, scalar, targets, real)
    if not real:
        raise ModelError("no real output that depends on data was found; name one with --output")
    return Objective(scalar, tuple(real), targets)


def downstream(reach: nx.DiGraph, sources: Iterable[object]) -> set[object]:
    """Whatever depends on the sources, with themselves."""
    there = [source for source in sources if source in reach]
    return set(there).union(*nx.bfs_layers(reach, there)) if there else set()


def _loss(graph: ir.Graph, name: str | None) -> ir.Value | None:
    if name is None:
        return next((value for value in graph.outputs if value.name == "loss" and _is_scalar(value)), None)
    value = _named(graph, name, "--loss")
    if not _is_scalar(value):
        kind = value.dtype.name.lower() if value.dtype is not None else "unknown type"
        raise ModelError(f"--loss {name!r} is {kind} [{', '.join(map(str, dims(value)))}]; a loss is one real number")
    return value


def _is_scalar(value: ir.Value) -> bool:
    return is_real(value) and all(dim == 1 for dim in dims(value))


def _named(graph: ir.Graph, name: str, option: str) -> ir.Value:
    values = {str(value.name): value for node in graph for value in node.outputs}
    if name not in values:
        outputs = ", ".join(str(value.name) for value in graph.outputs)
        raise ModelError(
            f"{option} {name!r} is no value of the model; " + (nearest(name, values) or f"its outputs are {outputs}")
        )
    return values[name]


def _targets(reach: nx.DiGraph, graph: ir.Graph, parameters: Set[str], loss: ir.Value) -> frozenset[ir.Value]:
    """Inputs that the loss depends on and no node with a parameter does."""
    learning = {node for value in graph.inputs if value.name in parameters for node in value.consumers()}
    seen = downstream(reach.reverse(copy=False), learning)
    upstream = nx.ancestors(reach, loss)
    return frozenset(value for value in graph.inputs if value in upstream and value not in seen and value.name not in parameters)


def _entering(
    reach: nx.DiGraph, graph: ir.Graph, parameters: Set[str], loss: ir.Value, targets: Set[ir.Value], outputs: list[ir.Value]
) -> list[ir.Value]:
    """Those of ``outputs`` that the loss is made from; else what meets a target on the way; else the loss's own operands."""
    compared = downstream(reach, targets)
    learned = downstream(reach, [value for value in graph.inputs if value.name in parameters])
    fed = downstream(reach, [value for value in graph.inputs if value.name not in parameters])
    upstream = nx.ancestors(reach, loss)
    found = [
        v
        for node in graph
        for v in node.outputs
        if v in upstream and v in learned and v in fed and v not in compared and is_real(v)
    ]
    given = [value for value in found if value in outputs]
    met = [value for value in found if any(user in compared and user in upstream for user in value.consumers())]
    return given or met or [value for value in found if loss.producer() in value.consumers()]
