"""What is true of every file that we write; a breach is our own mistake, not the user's."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vgcompile.errors import SelfCheckError
from vgcompile.graph.shapes import misread
from vgcompile.graph.skeleton import Outline, outlined
from vgcompile.graph.view import graphs_of


def verified(model: ir.Model) -> Outline:
    """A finished model, to be written. Raises SelfCheckError unless it is valid ONNX, of the default domain alone, all outputs
    ranked.

    Its weights are not read, so that it may hold any number of them. Shapes are inferred anew, and compared with those that it
    states, unless it holds an operator whose shapes ONNX infers wrongly.
    """
    nodes = [node for graph in graphs_of(model.graph) for node in graph]
    foreign = sorted({node.domain for node in nodes} - {"", "ai.onnx"})
    if foreign:
        raise SelfCheckError(f"the compiled model holds operators outside the default domain: {', '.join(foreign)}")
    outline = outlined(model)
    try:
        onnx.checker.check_model(outline.skeleton(), full_check=not misread(nodes))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SelfCheckError(f"the compiled model is not valid ONNX: {error}") from None
    return outline


def check(model: ir.Model) -> onnx.ModelProto:
    """Serialize a finished model, weights and all; what lies in external files is read.

    Raises SelfCheckError as ``verified`` does.
    """
    return verified(model).whole()
