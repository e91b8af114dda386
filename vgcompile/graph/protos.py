"""A model as a proto, and back: what onnx_ir makes of it, byte for byte, with each type read and written once.

onnx_ir reads and writes the type of every value anew, field by field. The thousands of values of a large graph have a few types
among them, and that takes longer than ONNX takes to check the graph.
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


def model_of(proto: onnx.ModelProto) -> ir.Model:
    """What ``ir.from_proto`` makes of a model, values of one type sharing its shape; an input that is given out as it is has the
    type of the input, which is what a file is asked to run on. Takes the types out of ``proto``.

    Raises as ``ir.from_proto`` does.
    """
    graph = proto.graph
    given = [_taken(info) for info in graph.input]
    told = [info for info in graph.value_info if not _is_plain(info)]
    plain = {info.name: info.type.SerializeToString() for info in graph.value_info if _is_plain(info)}
    if plain:
        del graph.value_info[:]
        graph.value_info.extend(told)
    model = ir.from_proto(proto)
    known: dict[bytes, tuple[ir.TypeProtocol | None, ir.Shape | None]] = {}
    for value, text in zip(model.graph.inputs, given, strict=True):
        value.type, value.shape = _read(text, known)
    inner = (value for value in _values(model.graph) if not (value.is_graph_input() or value.is_graph_output()))
    for value in inner if plain else ():  # inputs and outputs have types of their own
        if (told_of := plain.get(value.name or "")) is not None:
            value.type, value.shape = _read(told_of, known)
    return model


def _is_plain(info: onnx.ValueInfoProto) -> bool:
    """Whether nothing but its type is told of a value."""
    return not (info.metadata_props or info.doc_string)


def _taken(info: onnx.ValueInfoProto) -> bytes:
    """The type of a value, taken out of what is told of it."""
    text: bytes = info.type.SerializeToString()
    info.ClearField("type")
    return text


def _read(
    text: bytes, known: dict[bytes, tuple[ir.TypeProtocol | None, ir.Shape | None]]
) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    if text not in known:
        value = ir.serde.deserialize_value_info_proto(onnx.ValueInfoProto(type=onnx.TypeProto.FromString(text)), None)
        known[text] = value.type, value.shape
    return known[text]


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
    """Writes a graph into an empty proto, field by field: by keywords it takes twice as long."""

    def __init__(self, proto: onnx.GraphProto, ir_version: int) -> None:
        self._proto, self._ir_version = proto, ir_version
        self._types: dict[Hashable, onnx.TypeProto] = {}
        self._same: dict[tuple[int, int], onnx.TypeProto] = {}  # by type and shape, which the graph holds: many values share them
        self._attributes: dict[int, onnx.AttributeProto] = {}  # by attribute, which many nodes share

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
        kind = value.type
        if value.metadata_props or value.doc_string or type(kind) is not ir.TensorType:
            ir.serde.serialize_value_into(add(), value)
            return
        same = id(kind), id(value.shape)
        if same not in self._same:
            self._same[same] = self._type(value, kind)
        written = add()
        if value.name:
            written.name = value.name
        written.type.CopyFrom(self._same[same])

    def _type(self, value: ir.Value, kind: ir.TensorType) -> onnx.TypeProto:
        key = _kind(kind, value.shape)
        if key not in self._types:
            self._types[key] = ir.serde.serialize_value(value).type
        return self._types[key]

    def _node(self, node: ir.Node) -> None:
        written = self._proto.node.add()
        if node.device_configurations:
            ir.serde.serialize_node_into(written, node, model_ir_version=self._ir_version)
            return
        written.op_type = node.op_type
        if node.name:
            written.name = node.name
        if node.domain:
            written.domain = node.domain
        if node.overload:
            written.overload = node.overload
        if node.doc_string:
            written.doc_string = node.doc_string
        outputs = [value.name or "" for value in node.outputs]
        while outputs and not outputs[-1]:
            outputs.pop()
        written.input.extend(["" if value is None else value.name for value in node.inputs])
        written.output.extend(outputs)
        facts = node.metadata_props
        for key in sorted(facts):
            fact = written.metadata_props.add()
            fact.key, fact.value = key, facts[key]
        for attribute in node.attributes.data.values():
            written.attribute.append(self._attribute(attribute))

    def _attribute(self, attribute: Any) -> onnx.AttributeProto:
        if id(attribute) not in self._attributes:
            self._attributes[id(attribute)] = made = onnx.AttributeProto()
            write = ir.serde.serialize_reference_attribute_into if attribute.is_ref() else ir.serde.serialize_attribute_into
            write(made, attribute)
        return self._attributes[id(attribute)]
