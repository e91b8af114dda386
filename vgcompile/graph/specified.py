"""Operators by their definition: what ONNX's specification gives a function body without branches or loops, written out.

    AffineGrid  ->  Constant, Slice, Range, ...      each node inferred as it is made

A row's own rule goes first; this is for operators that the table does not know yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, helper

from vgcompile.errors import GradientRefused, ModelError
from vgcompile.graph.emit import Emitter
from vgcompile.ops.op import Body, Op


def specified(node: ir.Node, opset: int) -> Op | None:
    """A row for a standard operator that only its definition tells about, or None where it has none."""
    function = _function(node, opset)
    if function is None or node.domain not in ("", "ai.onnx") or any(a.HasField("g") for n in function.node for a in n.attribute):
        return None
    return Op(node.op_type, "By its definition.", bodies=(Body("specification", _writer(function)),))


def _function(node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    try:
        schema: Any = defs.get_schema(node.op_type, opset, "")  # its stubs do not know functions
    except defs.SchemaError:
        return None
    if schema.has_context_dependent_function:
        types = [_type(value).SerializeToString() for value in node.inputs]
        return _parsed(schema.get_context_dependent_function(ir.to_proto(node).SerializeToString(), types))
    body: onnx.FunctionProto | None = schema.function_body if schema.has_function else None
    return body


def _parsed(text: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(text)
    return function


def _type(value: ir.Value | None) -> onnx.TypeProto:
    if value is None or value.dtype is None:
        return onnx.TypeProto()
    shape = None if value.shape is None else [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
    return helper.make_tensor_type_proto(int(value.dtype), shape)


def _writer(function: onnx.FunctionProto) -> Callable[..., Any]:
    def write(op: Emitter, *inputs: ir.Value | None, **given: Any) -> Any:
        values: dict[str, ir.Value | None] = {"": None, **dict.fromkeys(function.input)}
        values.update(zip(function.input, inputs, strict=False))
        for node in function.node:
            operands = [values[name] for name in node.input]
            attributes = {a.name: _value(a, given) for a in node.attribute}
            try:
                made = op.emit(node.op_type, *operands, outputs=len(node.output), **attributes)
            except ModelError as error:
                reason = f"it has no rule, and its definition cannot be written out here: {error}"
                raise GradientRefused(function.name, "", reason, "rewrite this part of the model") from None
            values.update(zip(node.output, made if isinstance(made, tuple) else (made,), strict=True))
        outputs = tuple(values.get(name) for name in function.output)  # a definition may leave out what a node does not give
        return outputs if len(outputs) > 1 else outputs[0]

    return write


def _value(attribute: onnx.AttributeProto, given: dict[str, Any]) -> Any:
    """An attribute of a body's node: its own, or the operator's that it refers to."""
    if attribute.ref_attr_name:
        return given.get(attribute.ref_attr_name)
    value: Any = ir.from_proto(attribute)
    return value.value
