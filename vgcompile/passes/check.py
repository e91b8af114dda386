"""What is true of every file that we write; a breach is our own mistake, not the user's."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vgcompile.errors import SelfCheckError
from vgcompile.graph.skeleton import serialized, without_weights
from vgcompile.graph.view import graphs_of


def verify(model: ir.Model) -> None:
    """Raises SelfCheckError unless a finished model is valid ONNX, of the default domain alone, with shapes on all outputs.

    Its weights are not read, so that it may hold any number of them.
    """
    nodes = (node for graph in graphs_of(model.graph) for node in graph)
    foreign = sorted({node.domain for node in nodes if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise SelfCheckError(f"the compiled model holds operators outside the default domain: {', '.join(foreign)}")
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SelfCheckError(f"the compiled model is not valid ONNX: {error}") from None


def check(model: ir.Model) -> onnx.ModelProto:
    """Serialize a finished model, weights and all; what lies in external files is read.

    Raises SelfCheckError as ``verify`` does.
    """
    verify(model)
    return serialized(model)
