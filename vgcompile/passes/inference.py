"""Inference mode: the network as it predicts, from the graph as it trains.

    BatchNormalization(x, scale, bias, mean, var, training_mode=1) -> y, mean', var'        becomes
    BatchNormalization(x, scale, bias, mean, var) -> y

The loss and its target are dropped, parameters become plain initializers. What a row does outside training it says itself
(``Op.inference``).
"""

from __future__ import annotations

import onnx_ir as ir

from vgcompile.graph.network import Network
from vgcompile.ops import lookup
from vgcompile.ops.op import Inference
from vgcompile.passes.gradient import named_values
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize


def inference(network: Network) -> ir.Model:
    """The forward graph: data in, the network's outputs out."""
    model = network.model.clone()
    values = named_values(model)
    as_inference(model)
    model.graph.outputs[:] = [values[name] for name in network.outputs]
    lower(model)
    optimize(model)
    parameters = set(network.parameters)
    kept = [value for value in model.graph.inputs if value.name not in parameters and (value.uses() or value.is_graph_output())]
    model.graph.inputs[:] = kept
    return model


def as_inference(model: ir.Model) -> ir.Model:
    """Switch every node that trains differently to what it does at inference. Changes ``model`` and returns it."""
    for node in list(model.graph):
        row = lookup(node.op_type, node.domain)
        if row is not None and row.inference is not None:
            _rewrite(node, row.inference)
    return model


def _rewrite(node: ir.Node, form: Inference) -> None:
    for name, value in form.attributes.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)
    if form.inputs is not None:
        node.resize_inputs(min(form.inputs, len(node.inputs)))
    node.resize_outputs(form.outputs)
