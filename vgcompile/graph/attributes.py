"""Attributes of a node as plain Python values, the schema's defaults filled in."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs

from vgcompile.ops.op import INTERNAL

SMALL = 10  # elements of a tensor that is compared


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Every attribute that the node has or that its schema gives a default, by its ONNX name; absent optional ones are None.

    A composite of ours that is called as a standard operator has the defaults of that one.
    """
    if node.domain == INTERNAL:
        values = dict(_defaults(node.op_type, defs.onnx_opset_version()))
    else:
        version = node.version or (node.graph.opset_imports.get(node.domain) if node.graph is not None else None) or 21
        values = dict(_defaults(node.op_type, version)) if node.domain in ("", "ai.onnx") else {}
    double = node.domain == INTERNAL and node.outputs[0].dtype == ir.DataType.DOUBLE  # its body may hold doubles
    for name, attribute in node.attributes.items():
        values[name] = attribute.value if double else _stored(attribute)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _stored(attribute: ir.Attr) -> Any:
    """As a file holds it: 0.1 is 0.100000001 there, and that is what a run computes with."""
    if attribute.type == ir.AttributeType.FLOAT:
        return float(np.float32(attribute.value))
    if attribute.type == ir.AttributeType.FLOATS:
        return tuple(float(np.float32(item)) for item in attribute.value)
    return attribute.value


def given_attributes(node: ir.Node) -> dict[str, Any]:
    """The attributes that the node itself states."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def frozen(node: ir.Node) -> Hashable:
    """The attributes that the node itself states, to be compared and looked up by; None where it holds graphs or large tensors.
    What is equal and not the same, the two zeros, 1 and 1.0, is told apart."""
    found = []
    for name, attribute in node.attributes.data.items():
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR and value.size <= SMALL:
            value = (value.shape.numpy(), value.dtype, value.tobytes())
        elif isinstance(value, list | tuple):
            value = tuple([_told_apart(item) for item in value])
        elif not isinstance(value, int | float | str):
            return None
        found.append((name, attribute.type, _told_apart(value)))
    return tuple(sorted(found))


def _told_apart(value: Hashable) -> Hashable:
    return value or repr(value)


@lru_cache(maxsize=4096)
def _defaults(operator: str, version: int) -> tuple[tuple[str, Any], ...]:
    try:
        schema = defs.get_schema(operator, version, "")
    except defs.SchemaError:
        return ()
    found = []
    for name, attribute in schema.attributes.items():
        given = attribute.default_value
        value = onnx.helper.get_attribute_value(given) if given.type != onnx.AttributeProto.UNDEFINED else None
        found.append((name, tuple(_text(item) for item in value) if isinstance(value, list) else _text(value)))
    return tuple(found)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
