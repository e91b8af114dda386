"""Where a network bends: its activations, and how the pre-activations are distributed over each one's slope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.result import Activation
from vgcompile.analysis.uses import layer_of, making_outputs
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.network import Network
from vgcompile.ops import lookup

Array = np.ndarray[Any, Any]
BINS = 60


def bends(node: ir.Node) -> bool:
    """Whether a node is a function of one number that is no straight line."""
    row = lookup(node.op_type, node.domain)
    return row is not None and row.elementwise and len(row.derivatives) == 1 and not row.linear and bool(row.kinks or row.turns)


def watched(network: Network) -> list[ir.Node]:
    """The first, the middle and the last activation of each kind: as many as a reader can tell apart."""
    kinds: dict[tuple[str, str], list[ir.Node]] = {}
    layers = making_outputs(network)  # not the loss, whose |e| is no activation
    for node in network.model.graph:
        if node in layers and bends(node):
            kinds.setdefault((node.op_type, repr(sorted(attributes_of(node).items()))), []).append(node)
    return [nodes[i] for nodes in kinds.values() for i in sorted({0, len(nodes) // 2, len(nodes) - 1})]


def activations(network: Network, values: Mapping[str, Array]) -> Sequence[Activation]:
    """The watched activations, with a histogram where ``values`` holds their pre-activations."""
    return [_activation(node, values.get(node.inputs[0].name or "")) for node in watched(network) if node.inputs[0] is not None]


def _activation(node: ir.Node, x: Array | None) -> Activation:
    attributes = {name: value for name, value in attributes_of(node).items() if value is not None}
    name, layer = node.name or "", layer_of(node)
    finite = x[np.isfinite(x)].astype(np.float64) if x is not None else np.empty(0)  # squares of float32 overflow
    if finite.size == 0:
        return Activation(name, layer, node.op_type, attributes, None, None, None)
    counts, edges = np.histogram(finite, BINS)
    histogram = (tuple(map(float, edges)), tuple(map(int, counts)))
    return Activation(name, layer, node.op_type, attributes, histogram, float(finite.mean()), float(finite.std()))
