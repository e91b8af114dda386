"""A model in another precision: every real type in it is made one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
REAL = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
# Attributes that hold an element type. A normalization's stash type is left: the evaluator reads none, or takes one alone.
_TYPES = ("to", "dtype", "softmax_precision", "output_dtype")


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every real type made float64: values, constants, casts, bodies."""
    return retyped(model, TensorProto.DOUBLE)


def retyped(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """The model with every real type made ``kind``."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _retype_graph(made.graph, kind)
    return made


def _retype_graph(graph: onnx.GraphProto, kind: int) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in REAL:
            value.type.tensor_type.elem_type = kind
    for tensor in graph.initializer:
        _retype_tensor(tensor, kind)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.type == onnx.AttributeProto.INT and attribute.i in REAL:
                attribute.i = kind
            if attribute.type == onnx.AttributeProto.TENSOR:
                _retype_tensor(attribute.t, kind)
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                number = np.asarray(helper.get_attribute_value(attribute), helper.tensor_dtype_to_np_dtype(kind))
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(number)))
            for inner in (attribute.g, *attribute.graphs):
                _retype_graph(inner, kind)


def _retype_tensor(tensor: onnx.TensorProto, kind: int) -> None:
    if tensor.data_type in REAL and tensor.data_type != kind:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
