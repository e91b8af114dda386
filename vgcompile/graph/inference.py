"""ONNX's own inference of one node, memoized: types and shapes of what it gives out, by all that it may know of what it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs, shape_inference

from vgcompile.errors import ModelError
from vgcompile.ops.op import Dim
from vgcompile.ops.shape import constant

IR_VERSION = 10

TypeAndDims = tuple[ir.DataType, tuple[Dim | None, ...] | None]


def dims(value: ir.Value) -> tuple[Dim, ...]:
    """A value's shape as ints and symbols. Raises ModelError where it is unknown."""
    if value.shape is None:
        raise ModelError(f"the shape of {value.name!r} is unknown; run shape inference on the model first")
    return tuple([dim if isinstance(dim, int) else str(dim.value) for dim in value.shape])  # a list: asked for very often


def signature(value: ir.Value) -> tuple[Any, ...]:
    """What an inference may know of a value: its type, its dimensions, and its bytes where it is a small constant."""
    shape = None if value.shape is None else dims(value)
    held = value.const_value is not None and math.prod(dim for dim in shape or () if isinstance(dim, int)) <= 64
    data = constant(value) if held else None  # a large one is not even made
    whole = data is not None and data.dtype.kind in "ib"
    small = whole or (data is not None and data.dtype == np.float32 and data.ndim == 1 and data.size <= 8)  # scales of a resize
    return (value.dtype, shape, (data.dtype.str, data.shape, data.tobytes()) if small and data is not None else None)


def freeze(value: Any) -> Any:
    """An attribute that may be looked up by."""
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, int | float | str):
        return value
    assert isinstance(value, ir.TensorProtocol)
    return ("tensor", value.numpy().dtype, value.numpy().shape, value.numpy().tobytes())


def _thaw(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        return onnx.numpy_helper.from_array(np.frombuffer(value[3], value[1]).reshape(value[2]))
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=65536)
def infer_node(
    operator: str, opset: int, inputs: tuple[Any, ...], attributes: tuple[Any, ...], outputs: int
) -> Sequence[TypeAndDims]:
    """ONNX's own inference of one node, memoized, for a deep net repeats its layers. How symbols are called makes no difference
    to it but in messages: layers whose symbols alone have other names are inferred once."""
    symbols = dict.fromkeys(dim for known in inputs if known is not None for dim in known[1] or () if isinstance(dim, str))
    short = {symbol: f"s{index}" for index, symbol in enumerate(symbols)}
    types = tuple(None if known is None else (known[0], _renamed(known[1], short), known[2]) for known in inputs)
    try:
        found = _infer_alike(operator, opset, types, attributes, outputs)
    except ModelError:
        found = _infer_alike(operator, opset, inputs, attributes, outputs)  # in its own words
    long = {name: symbol for symbol, name in short.items()}
    return tuple((dtype, _renamed(shape, long)) for dtype, shape in found)


@lru_cache(maxsize=65536)
def _infer_alike(
    operator: str, opset: int, inputs: tuple[Any, ...], attributes: tuple[Any, ...], outputs: int
) -> Sequence[TypeAndDims]:
    """The inference itself, as strict as it gets."""
    try:
        schema = defs.get_schema(operator, opset, "")
    except defs.SchemaError:
        raise ModelError(f"operator {operator!r} does not exist in opset {opset}") from None
    names = ["" if signature is None else f"i{index}" for index, signature in enumerate(inputs)]
    node = onnx.helper.make_node(operator, names, [f"o{i}" for i in range(outputs)], **{k: _thaw(v) for k, v in attributes})
    types, data = {}, {}
    for name, signature in zip(names, inputs, strict=True):
        if signature is None:
            continue
        dtype, shape, known = signature
        types[name] = onnx.helper.make_tensor_type_proto(int(dtype), shape)
        if known is not None:
            data[name] = onnx.numpy_helper.from_array(np.frombuffer(known[2], known[0]).reshape(known[1]))
    try:
        found = shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=IR_VERSION
        )
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as error:
        text = str(error).split("] ")[-1].strip()
        shapes = ", ".join(str(list(s[1])) if s is not None and s[1] is not None else "?" for s in inputs)
        raise ModelError(f"{operator} does not fit its inputs {shapes}: {text}") from None
    result: list[TypeAndDims] = []
    for i in range(outputs):
        proto = found[f"o{i}"].tensor_type
        shape = None
        if proto.HasField("shape"):
            shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in proto.shape.dim)
        result.append((ir.DataType(proto.elem_type), shape))
    return tuple(result)


def _renamed(shape: tuple[Dim | None, ...] | None, names: Mapping[str, str]) -> tuple[Dim | None, ...] | None:
    return None if shape is None else tuple([names.get(dim, dim) if isinstance(dim, str) else dim for dim in shape])
