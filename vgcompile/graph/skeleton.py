"""A model without its weights: what a checker, a converter or an inference needs of it, and small enough for them.

    proto -- stripped --> skeleton, held        large constants are typed inputs of the skeleton, their tensors are held
    skeleton -- ... --> model -- reattached --> model with its tensors, those of an external file still in that file
    model -- outlined --> outline -- skeleton, whole --> protos to be checked and to be written

A protobuf message of more than 2 GB cannot be serialized, and each of ONNX's tools serializes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Message
from onnx import external_data_helper, helper, numpy_helper

from vgcompile.graph.protos import proto_of

SMALL = 64  # elements: what may be the scales, sizes or axes that an inference reads
IN_MEMORY = 256 * 2**20  # bytes of external data that are read at once; more stay in their file

Held = Mapping[str, ir.TensorProtocol]


def stripped(
    proto: onnx.ModelProto, base: Path, in_memory: int = IN_MEMORY
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The skeleton of a model whose external data lie in the folder ``base``, and the tensors of all its initializers.

    Sparse initializers and constants become dense ones. Raises OSError or ValueError where external data cannot be read.
    """
    skeleton = onnx.ModelProto()
    _copy(proto, skeleton, but={"graph"})
    graph = skeleton.graph
    _copy(proto.graph, graph, but={"initializer", "sparse_initializer"})
    _densify_constants(skeleton, base)
    held: dict[str, ir.TensorProtocol] = {}
    inputs = {value.name for value in graph.input}
    lazily = sum(_external_size(tensor) for tensor in proto.graph.initializer) > in_memory
    dense = [_dense(sparse, base) for sparse in proto.graph.sparse_initializer]
    for tensor in (*proto.graph.initializer, *dense):
        if tensor.name in held:
            raise ValueError(f"two initializers are called {tensor.name!r}")
        held[tensor.name] = kept = _held(tensor, base, lazily)
        if kept.size <= SMALL:
            graph.initializer.append(tensor if not _is_external(tensor) else _loaded(tensor, base))
            continue
        if not _is_external(tensor):
            onnx.checker.check_tensor(tensor)
        if tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return skeleton, held


def _copy(source: Message, target: Message, but: Set[str]) -> None:
    """Copy the fields of a message, without those that are left out."""
    for field, content in source.ListFields():
        if field.name in but:
            continue
        if isinstance(content, str | bytes | int):
            setattr(target, field.name, content)
        else:
            getattr(target, field.name).extend(content)


def reattached(model: ir.Model, held: Held) -> ir.Model:
    """Give ``model`` the tensors that its skeleton lacks; none of them is an input any more. Changes it and returns it."""
    graph = model.graph
    known = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    graph.inputs[:] = [value for value in graph.inputs if value.name not in held]
    made = [value for name, value in graph.initializers.items() if name not in held]
    graph.initializers.clear()
    for name, tensor in held.items():  # in the file's order
        known[name].const_value = tensor
        graph.register_initializer(known[name])
    for value in made:
        graph.register_initializer(value)
    return model


@dataclass(frozen=True)
class Outline:
    """A model as a proto whose large tensors lack their bytes: ``held`` has them, those of external files still in their files.

    It is made once, to be checked and to be written: a large graph takes longer to put into a proto than to check.
    """

    proto: onnx.ModelProto
    held: Held

    def skeleton(self) -> onnx.ModelProto:
        """Without the large tensors: they are typed inputs."""
        if not self.held:
            return self.proto
        skeleton = onnx.ModelProto()
        _copy(self.proto, skeleton, but={"graph"})
        graph = skeleton.graph
        _copy(self.proto.graph, graph, but={"initializer"})
        graph.initializer.extend(tensor for tensor in self.proto.graph.initializer if tensor.name not in self.held)
        inputs = {value.name for value in graph.input}
        for name, tensor in self.held.items():
            if name not in inputs:
                graph.input.append(helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape.numpy()))
        return skeleton

    def filled(self, tensors: Held) -> onnx.ModelProto:
        """The model with these tensors; what they say of external files is kept."""
        filled = onnx.ModelProto()
        filled.CopyFrom(self.proto)
        for place in filled.graph.initializer:
            if (name := place.name) in tensors:
                place.Clear()
                ir.serde.serialize_tensor_into(place, tensors[name])
                place.name = name
        return filled

    def whole(self) -> onnx.ModelProto:
        """The model with all its weights, which must be less than 2 GB."""
        return self.filled({name: _in_memory(tensor) for name, tensor in self.held.items()})


def outlined(model: ir.Model) -> Outline:
    """The outline of a model, which is the same afterwards."""
    tensors = {value: tensor for value in model.graph.initializers.values() if (tensor := value.const_value) is not None}
    large = {value: tensor for value, tensor in tensors.items() if _is_large(tensor)}
    try:
        for value, tensor in tensors.items():
            value.const_value = _without_bytes(tensor) if value in large else _in_memory(tensor)
        proto = proto_of(model)
    finally:
        for value, tensor in tensors.items():
            value.const_value = tensor
    return Outline(proto, {str(value.name): tensor for value, tensor in large.items()})


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.size > SMALL and tensor.dtype != ir.DataType.STRING  # text lies in no file beside


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor, out of its file, or drawn: what goes wrong with it is said here, in its own words, and not by a serializer."""
    waits = isinstance(tensor, ir.ExternalTensor | ir.LazyTensor)
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name) if waits else tensor


def _without_bytes(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    return ir.ExternalTensor("", None, None, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name or "")


def serialized(model: ir.Model) -> onnx.ModelProto:
    """The proto of a model, with its weights: what lies in external files is read."""
    return outlined(model).whole()


def nodes_of(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, or of a function, and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)
            for inner in attribute.graphs:
                yield from nodes_of(inner)


def _held(tensor: onnx.TensorProto, base: Path, lazily: bool) -> ir.TensorProtocol:
    if not _is_external(tensor):
        return ir.serde.deserialize_tensor(tensor)
    location, offset, length = _place(tensor, base)
    if lazily:
        return ir.ExternalTensor(
            location, offset, length, ir.DataType(tensor.data_type), shape=ir.Shape(tensor.dims), name=tensor.name, base_dir=base
        )
    return ir.serde.deserialize_tensor(_loaded(tensor, base))


def _place(tensor: onnx.TensorProto, base: Path) -> tuple[str, int, int]:
    """Where the bytes of an external tensor lie: file, offset, length. Raises OSError or ValueError unless they are there."""
    info = external_data_helper.ExternalDataInfo(tensor)
    path = (base / info.location).resolve()
    if not path.is_relative_to(base.resolve()):
        raise ValueError(f"{tensor.name!r} lies outside of the model's folder, at {info.location}")
    if not path.is_file():
        raise FileNotFoundError(f"{tensor.name!r} should lie in {info.location}, which is missing")
    dtype = ir.DataType(tensor.data_type)
    needed = int(np.ceil(np.prod(tensor.dims) * dtype.itemsize))
    offset, length = info.offset or 0, info.length or needed
    if length != needed or offset + length > path.stat().st_size:
        raise ValueError(f"{tensor.name!r} takes {needed} bytes, {info.location} is cut off or of another model")
    return info.location, offset, length


def _loaded(tensor: onnx.TensorProto, base: Path) -> onnx.TensorProto:
    """A tensor whose bytes are its own."""
    if not _is_external(tensor):
        return tensor
    location, offset, length = _place(tensor, base)
    whole = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    with (base / location).open("rb") as file:
        file.seek(offset)
        whole.raw_data = file.read(length)
    return whole


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _external_size(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize) if _is_external(tensor) else 0


def _densify_constants(skeleton: onnx.ModelProto, base: Path) -> None:
    """Make every constant, and every initializer of a subgraph, dense and its own."""
    bodies = [node for function in skeleton.functions for node in function.node]
    for node in (*nodes_of(skeleton.graph), *bodies):
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") and node.op_type == "Constant":
                dense = _dense(attribute.sparse_tensor, base)
                attribute.CopyFrom(helper.make_attribute("value", dense))
            if attribute.HasField("t") and _is_external(attribute.t):
                attribute.t.CopyFrom(_loaded(attribute.t, base))
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                whole = [_loaded(tensor, base) for tensor in inner.initializer]
                whole += [_dense(sparse, base) for sparse in inner.sparse_initializer]
                if inner.sparse_initializer or any(_is_external(tensor) for tensor in inner.initializer):
                    del inner.initializer[:], inner.sparse_initializer[:]
                    inner.initializer.extend(whole)


def _dense(sparse: onnx.SparseTensorProto, base: Path) -> onnx.TensorProto:
    """Raises ValueError for indices that do not fit."""
    values = numpy_helper.to_array(_loaded(sparse.values, base))
    indices = numpy_helper.to_array(_loaded(sparse.indices, base))
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except IndexError as error:
        raise ValueError(f"the sparse tensor {sparse.values.name!r} does not fit its shape: {error}") from None
    return numpy_helper.from_array(dense, sparse.values.name)
