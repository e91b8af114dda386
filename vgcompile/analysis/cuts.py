"""What cuts parameters off from every gradient, whatever the numbers are: seen on the graph alone."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vgcompile.analysis.edges import made
from vgcompile.analysis.uses import layer_of
from vgcompile.graph.emit import is_real
from vgcompile.graph.network import Network
from vgcompile.ops import lookup


def cut_parameters(network: Network) -> dict[str, tuple[list[str], str]]:
    """By layer the parameters that are cut off, and what cuts the first of them off."""
    passed = _passed(network)
    found: dict[str, tuple[list[str], str]] = {}
    for value in _parameters(network):
        if value in passed:
            continue
        readers = [use.node for use in value.uses()]
        layer = layer_of(readers[0]) if readers else (value.name or "").rpartition("/")[0]
        found.setdefault(layer, ([], _reason(value)))[0].append(value.name or "")
    return found


def _parameters(network: Network) -> list[ir.Value]:
    names = set(network.parameters)
    return [value for value in network.model.graph.inputs if value.name in names]


def _passed(network: Network) -> set[ir.Value]:
    """The values that a gradient gets to from the loss or, without one, from the outputs."""
    graph = network.model.graph
    ends = set(network.outputs) if network.loss is None else {network.loss}
    passed = set(made(graph, ends))
    for node in reversed(list(graph)):
        if passed.isdisjoint(node.outputs) or _cuts(node):
            continue
        passed.update(value for place, value in enumerate(node.inputs) if value is not None and _flows(node, place))
    return passed


def _cuts(node: ir.Node) -> str:
    """Why nothing gets through a node, or nothing."""
    row = lookup(node.op_type, node.domain)
    if row is None:
        return "it has no gradient rule"
    return row.blocked or row.uncovered


def _flows(node: ir.Node, position: int) -> bool:
    """Whether an input of a node gets an adjoint, as far as its row tells apart."""
    row, value = lookup(node.op_type, node.domain), node.inputs[position]
    if row is None or value is None or not is_real(value) or position in row.untrained:
        return False
    return not row.derivatives or row.derivatives[min(position, len(row.derivatives) - 1)] is not None


def _reason(parameter: ir.Value) -> str:
    """What is met on the ways from a parameter on, each followed until it is cut."""
    waiting: list[ir.Value] = [parameter]
    seen: set[ir.Node] = set()
    cuts: list[str] = []
    while waiting:
        for node in [use.node for use in waiting.pop().uses()]:
            if node in seen:
                continue
            seen.add(node)
            why = _cuts(node)
            if why:
                cuts.append(f"{node.op_type} (node {node.name!r}): {why.rstrip('.')}")
            else:
                waiting += _onward(node.outputs)
    return "; ".join(dict.fromkeys(cuts)) or "no way leads from it to the loss"


def _onward(outputs: Sequence[ir.Value]) -> list[ir.Value]:
    return [output for output in outputs if output.uses()]
