"""What is true of every file that we write; a breach is our own mistake, not the user's."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vgcompile.errors import SelfCheckError


def check(model: ir.Model) -> onnx.ModelProto:
    """Serialize a finished model.

    Raises SelfCheckError unless it is valid ONNX, of the default domain alone, with shapes on all outputs.
    """
    foreign = sorted({node.domain for node in model.graph.all_nodes() if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise SelfCheckError(f"the compiled model holds operators outside the default domain: {', '.join(foreign)}")
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SelfCheckError(f"the compiled model is not valid ONNX: {error}") from None
    return proto
