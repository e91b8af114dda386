"""A model as a proto: what onnx_ir makes of it, byte for byte, with each type written once.

onnx_ir writes the type of every value anew, field by field. The thousands of values of a joint graph have a few types among them,
and that takes longer than ONNX takes to check the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import onnx
import onnx_ir as ir

_ANNOTATED = "quant_parameter_tensor_names"  # where onnx_ir keeps what a value's quantization is annotated with


def proto_of(model: ir.Model) -> onnx.ModelProto:
    """What ``ir.to_proto`` makes of a model, which is the same afterwards."""
    graph = model.graph
    if any(_ANNOTATED in value.meta for value in _values(graph)):  # a quantized model
        return ir.to_proto(model)
    name, text, facts, opsets = graph.name, graph.doc_string, graph.metadata_props, graph.opset_imports
    empty = ir.GraphView((), (), nodes=(), name=name, doc_string=text, metadata_props=facts, opset_imports=opsets)
    model.graph = empty  # type: ignore[assignment]
    try:
        proto = ir.to_proto(model)
    finally:
        model.graph = graph
    _Writer(proto.graph, model.ir_version).write(graph)
    return proto


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _kind(kind: ir.TensorType, shape: ir.Shape | None) -> Hashable:
    """All that the proto of a tensor's type says."""
    if shape is None:  # which is not that of a scalar
        return kind.dtype, kind.denotation, False
    return kind.dtype, kind.denotation, *shape, *map(shape.get_denotation, range(len(shape)))


class _Writer:
    """Writes a graph into an empty proto."""

    def __init__(self, proto: onnx.GraphProto, ir_version: int) -> None:
        self._proto, self._ir_version = proto, ir_version
        self._types: dict[Hashable, onnx.TypeProto] = {}
        self._kinds: dict[tuple[int, int], Hashable] = {}  # by type and shape, which the graph holds: many values share them

    def write(self, graph: ir.Graph) -> None:
        proto = self._proto
        for value in graph.inputs:
            self._value(proto.input.add, value)
        for value in graph.initializers.values():
            if not value.is_graph_input():
                self._inside(value)
            if value.const_value is not None:
                value.const_value.name = value.name
                ir.serde.serialize_tensor_into(proto.initializer.add(), value.const_value)
        for node in graph:
            self._node(node)
            for value in node.outputs:
                if not value.is_graph_output():
                    self._inside(value)
        for value in graph.outputs:
            self._value(proto.output.add, value)

    def _inside(self, value: ir.Value) -> None:
        told = value.type is not None or value.shape is not None or value.metadata_props or value.doc_string
        if value.name and told:
            self._value(self._proto.value_info.add, value)

    def _value(self, add: Callable[..., onnx.ValueInfoProto], value: ir.Value) -> None:
        if value.metadata_props or value.doc_string or type(value.type) is not ir.TensorType:
            ir.serde.serialize_value_into(add(), value)
            return
        same = id(value.type), id(value.shape)
        if same not in self._kinds:
            self._kinds[same] = _kind(value.type, value.shape)
        key = self._kinds[same]
        if key not in self._types:
            self._types[key] = ir.serde.serialize_value(value).type
        add(name=value.name, type=self._types[key])

    def _node(self, node: ir.Node) -> None:
        if node.device_configurations:
            ir.serde.serialize_node_into(self._proto.node.add(), node, model_ir_version=self._ir_version)
            return
        outputs = [value.name or "" for value in node.outputs]
        while outputs and not outputs[-1]:
            outputs.pop()
        written = self._proto.node.add(
            op_type=node.op_type,
            domain=node.domain or None,
            name=node.name or None,
            overload=node.overload or None,
            doc_string=node.doc_string or None,
            input=["" if value is None else value.name for value in node.inputs],
            output=outputs,
        )
        for key in sorted(node.metadata_props):  # field by field: by keywords it takes twice as long
            fact = written.metadata_props.add()
            fact.key, fact.value = key, node.metadata_props[key]
        for attribute in node.attributes.data.values():
            _write_attribute(written.attribute.add(), attribute)


def _write_attribute(proto: onnx.AttributeProto, attribute: Any) -> None:
    if attribute.is_ref():
        ir.serde.serialize_reference_attribute_into(proto, attribute)
    else:
        ir.serde.serialize_attribute_into(proto, attribute)
