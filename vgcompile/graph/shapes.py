"""Shapes for every value of a foreign model, no dimension nameless.

ONNX's strict inference goes first. Where it loses a symbol (it gives a padded convolution of [N, 3, H, W] two fresh unknowns, and
Reshape to [-1, 64] one), ONNX Runtime's symbolic tool may still prove one; what nobody can name gets a symbol of its own.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Mapping

import onnx
from onnx import shape_inference

from vgcompile.errors import ModelError

Dims = tuple[int | str, ...]

# Attributes that ONNX's inference (1.23.2) takes for another number than their default where a node does not state them.
_MISREAD = {"STFT": ("onesided", 1)}
_SAME = re.compile(r"^floor\(1\.0\*(\w+)\)$")

# Operators for whose outputs it writes an extent 0 where it does not know one.
_ZERO_IF_UNKNOWN = frozenset({"Attention"})


def infer_shapes(proto: onnx.ModelProto, path: str) -> onnx.ModelProto:
    """The model with type and shape on every value of its main graph.

    Raises ModelError where operators do not fit each other, or a value's rank depends on data.
    """
    _name_input_dims(proto.graph)
    _state_defaults(proto.graph)
    try:
        inferred = shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: its shapes do not fit: {str(error).strip().splitlines()[0]}; export it anew") from None
    typed = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
    _forget_zeros(inferred.graph, typed)
    stated = {dim.dim_param for value in inferred.graph.input for dim in value.type.tensor_type.shape.dim}
    held = any(attribute.HasField("g") or attribute.graphs for node in inferred.graph.node for attribute in node.attribute)
    for node in () if held else inferred.graph.node:
        for name in node.output:
            if name and (name not in typed or not _ranked(typed[name])):
                fix = "export the model with fixed shapes"
                raise ModelError(f"{path}: the shape of {name!r} (operator {node.op_type}) cannot be inferred; {fix}")
    if any(_open_axes(info, stated) for info in typed.values()):
        _name_dims(typed.values(), stated, _proved(proto))
    return inferred


def _name_input_dims(graph: onnx.GraphProto) -> None:
    """A nameless first axis of an input is the batch; another gets a symbol of its own."""
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value <= 0 and not dim.dim_param:
                dim.dim_param = "batch" if axis == 0 else f"{value.name}.{axis}"


def _state_defaults(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        name, default = _MISREAD.get(node.op_type, ("", 0))
        if name and all(attribute.name != name for attribute in node.attribute):
            node.attribute.append(onnx.helper.make_attribute(name, default))


def _forget_zeros(graph: onnx.GraphProto, typed: Mapping[str, onnx.ValueInfoProto]) -> None:
    for node in graph.node:
        for name in node.output if node.op_type in _ZERO_IF_UNKNOWN else ():
            for dim in typed[name].type.tensor_type.shape.dim if name in typed else ():
                if dim.HasField("dim_value") and dim.dim_value == 0:
                    dim.Clear()


def _ranked(info: onnx.ValueInfoProto) -> bool:
    return not info.type.HasField("tensor_type") or info.type.tensor_type.HasField("shape")


def _open_axes(info: onnx.ValueInfoProto, stated: set[str]) -> list[int]:
    """The axes whose extent is no number and no symbol that an input states."""
    extents = info.type.tensor_type.shape.dim
    return [axis for axis, dim in enumerate(extents) if not dim.HasField("dim_value") and dim.dim_param not in stated - {""}]


def _name_dims(infos: Iterable[onnx.ValueInfoProto], stated: set[str], proved: Mapping[str, Dims]) -> None:
    for info in infos:
        extents = info.type.tensor_type.shape.dim
        known = proved.get(info.name, ())
        for axis in _open_axes(info, stated):
            extent = known[axis] if len(known) == len(extents) else ""
            if isinstance(extent, int):
                extents[axis].dim_value = extent
            else:
                extents[axis].dim_param = extent or extents[axis].dim_param or f"{info.name}.{axis}"


def _proved(proto: onnx.ModelProto) -> dict[str, Dims]:
    """What ONNX Runtime's symbolic tool finds, nothing where it fails: it does not know every operator.

    It takes the pieces of a tensor to be equal where their sizes are computed, so that nothing is believed of such a model. Its
    public function leaves a file in the working directory when it gives up, so its steps are called one by one.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {node.output[0] for node in proto.graph.node if node.op_type == "Constant"}
    if any(node.op_type == "Split" and not constants.issuperset(node.input[1:]) for node in proto.graph.node):
        return {}
    from onnxruntime.tools import symbolic_shape_infer  # slow to import, and few models need it

    logging.getLogger(symbolic_shape_infer.__name__).setLevel(logging.CRITICAL)
    tool = symbolic_shape_infer.SymbolicShapeInference(int_max=2**31 - 1, auto_merge=False, guess_output_rank=False, verbose=0)
    with contextlib.suppress(Exception):
        tool._preprocess(proto)
        while tool.run_:
            tool._infer_impl()
        return {info.name: _dims(info) for info in tool.out_mp_.graph.value_info}
    return {}


def _dims(info: onnx.ValueInfoProto) -> Dims:
    """The tool writes an extent that a resize leaves alone as floor(1.0*N)."""
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else _SAME.sub(r"\1", dim.dim_param) for dim in dims)
