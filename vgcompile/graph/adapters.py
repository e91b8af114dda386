"""Old standard operators that ONNX's version converter does not bring to opset 21, or brings there with another meaning.

Measured over every operator that changed between opsets 7 and 21, before and after conversion (tests/test_normalize.py). What is
listed here is set aside, in a domain of its own, before the conversion, and opened by its formula behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import defs, version_converter

from vgcompile.errors import ModelError
from vgcompile.graph.emit import OPSET, constant_of
from vgcompile.graph.skeleton import nodes_of
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents

DOMAIN = "vgcompile.old"


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    value = next(found, default)
    return value.decode() if isinstance(value, bytes) else value


# What is set aside: for each operator the opsets, and of its nodes those that need it.
_ASIDE: dict[str, tuple[range, Callable[[onnx.NodeProto], bool]]] = {
    # The converter reads the rank of the input, which it does not know behind a foreign operator.
    "Softmax": (range(1, 13), lambda node: _attribute(node, "axis", 1) != -1),
    "LogSoftmax": (range(1, 13), lambda node: _attribute(node, "axis", 1) != -1),
    "Hardmax": (range(1, 13), lambda node: _attribute(node, "axis", 1) != -1),
    "Upsample": (range(7, 10), lambda node: True),
    "Resize": (range(10, 11), lambda node: True),
    "BatchNormalization": (range(7, 14), lambda node: _attribute(node, "spatial", 1) == 0 or len(node.output) > 1),
    "GroupNormalization": (range(18, 21), lambda node: True),
    "Scan": (range(8, 9), lambda node: True),  # the converter takes the batch axis away, from the model's inputs too
}


def set_aside(proto: onnx.ModelProto, opset: int) -> None:
    """Move the nodes that the converter would spoil to a domain that it leaves alone, and mend what it, or ONNX's checker or
    inference, trips over. Functions have opsets of their own. Changes ``proto``."""
    moved = _moved(nodes_of(proto.graph), opset, proto.graph)
    for function in proto.functions:
        own = next((entry.version for entry in function.opset_import if entry.domain in ("", "ai.onnx")), opset)
        if _moved(nodes_of(function), own, proto.graph):
            function.opset_import.add(domain=DOMAIN, version=1)
            moved = True
    if moved:
        proto.opset_import.add(domain=DOMAIN, version=1)


def _moved(nodes: Iterator[onnx.NodeProto], opset: int, graph: onnx.GraphProto) -> bool:
    moved = False
    for node in nodes:
        if node.domain:
            continue
        if node.op_type in _MENDED:
            _MENDED[node.op_type](graph, node, opset)
        _state_defaults(node, opset)
        opsets, needs = _ASIDE.get(node.op_type, (range(0), lambda node: False))
        if opset in opsets and needs(node):
            node.domain, moved = DOMAIN, True
    return moved


def converted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model by ONNX's converter, which leaves the body of an operator alone that it does not know: while it runs, a scan that
    is set aside calls itself a loop. Changes ``proto``."""
    _exchange(proto, (DOMAIN, "Scan"), ("", "Loop"))
    made = version_converter.convert_version(proto, OPSET)
    _exchange(made, ("", "Loop"), (DOMAIN, "Scan"))
    return made


def _exchange(proto: onnx.ModelProto, old: tuple[str, str], new: tuple[str, str]) -> None:
    for node in nodes_of(proto.graph):
        if (node.domain, node.op_type) == old and _attribute(node, "num_scan_inputs", 0):
            node.domain, node.op_type = new


def _mend_pad(graph: onnx.GraphProto, node: onnx.NodeProto, opset: int) -> None:
    """The converter leaves a value behind that means nothing in this mode."""
    if opset < 11 and _attribute(node, "mode", "constant") != "constant":
        kept = [attribute for attribute in node.attribute if attribute.name != "value"]
        del node.attribute[:]
        node.attribute.extend(kept)


def _mend_resize(graph: onnx.GraphProto, node: onnx.NodeProto, opset: int) -> None:
    """Before opset 13 a region was not optional, and files leave it out all the same."""
    if opset in (11, 12) and len(node.input) > 1 and not node.input[1]:
        name = next(n for i in range(len(graph.initializer) + 1) if (n := f"roi.{i}") not in _names(graph))
        graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, np.float32), name))
        node.input[1] = name


def _state_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Write out the default attributes of an operator that the standard defines by a function: the checker misses them inside."""
    defaults = _defaults(node.op_type, opset)
    given = {attribute.name for attribute in node.attribute} if defaults else set()
    node.attribute.extend(value for value in defaults if value.name not in given)


@lru_cache(maxsize=1024)
def _defaults(operator: str, opset: int) -> tuple[onnx.AttributeProto, ...]:
    text: object = operator  # bytes where a damaged file has no UTF-8
    if not isinstance(text, str) or not defs.has(text, max_inclusive_version=opset):
        return ()
    schema = defs.get_schema(operator, opset)
    if not schema.has_function:  # type: ignore[attr-defined]
        return ()
    values = (attribute.default_value for attribute in schema.attributes.values())
    return tuple(value for value in values if value.type != onnx.AttributeProto.UNDEFINED)


def _names(graph: onnx.GraphProto) -> set[str]:
    made = {name for node in nodes_of(graph) for name in node.output}
    return made | {value.name for value in (*graph.input, *graph.initializer)}


_MENDED: dict[str, Callable[[onnx.GraphProto, onnx.NodeProto, int], None]] = {
    "Pad": _mend_pad,
    "Resize": _mend_resize,
}


def _flattened(operator: str) -> Rule:
    """Before opset 13 these worked on the matrix of the axes before ``axis`` by those from it on."""

    def rule(op: Any, x: Any, *, axis: int = 1) -> Any:
        rank = len(x.shape)
        if axis % rank == rank - 1:
            return op.emit(operator, x, axis=-1)
        return op.Reshape(op.emit(operator, op.Flatten(x, axis=axis), axis=-1), op.Shape(x))

    return rule


def _resize(op: Any, x: Any, *operands: Any, mode: str = "nearest", scales: Any = None) -> Any:
    """Positions are counted from the corner of a pixel, today from its centre. The nearest neighbour was the pixel before where
    the tensor grew, the one behind where it shrank."""
    factors = operands[0] if operands else op.constant(np.asarray(scales, np.float32))
    known = constant_of(factors)
    if mode == "nearest" and (known is None or known.min() < 1.0 < known.max()):
        raise ModelError(
            "it picks nearest neighbours as opsets up to 10 did, by scales that are computed, or that enlarge and reduce "
            f"at once; export it to opset {OPSET}"
        )
    rounding = "ceil" if known is not None and known.min() < 1.0 else "floor"
    return op.Resize(
        x,
        None,
        factors,
        mode="linear" if mode in ("linear", "bilinear") else mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode=rounding,
    )


def _upsample(op: Any, x: Any, *operands: Any, mode: str = "nearest", scales: Any = None) -> Any:
    """It only grows, by scales that may be computed."""
    if not operands or constant_of(operands[0]) is not None or mode != "nearest":
        return _resize(op, x, *operands, mode=mode, scales=scales)
    return op.Resize(x, None, operands[0], mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _batch_normalization(
    op: Any,
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Any:
    """Statistics of each element (``spatial`` 0), or of the batch in training: more than one output asks for it."""
    if not spatial:
        return (x - mean) / op.Sqrt(variance + epsilon) * scale + bias
    return op.BatchNormalization(x, scale, bias, mean, variance, epsilon=epsilon, momentum=momentum, training_mode=1, outputs=3)


def _group_normalization(op: Any, x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5) -> Any:
    """Scale and bias for each group, where today they are for each channel."""
    channels = extents(x)[1]

    def each(values: Any) -> Any:
        column = op.Unsqueeze(values, [1])
        if isinstance(channels, int):
            return op.Reshape(op.Expand(column, [num_groups, channels // num_groups]), [channels])
        count = op.Div(op.Shape(x, start=1, end=2), [num_groups])
        return op.Reshape(op.Expand(column, op.Concat([num_groups], count, axis=0)), op.Shape(x, start=1, end=2))

    return op.GroupNormalization(x, each(scale), each(bias), num_groups=num_groups, epsilon=epsilon)


def _scan(op: Any, lengths: Any, *operands: Any, body: Any, num_scan_inputs: int, directions: Any = None) -> Any:
    """Each sample by itself, along the axis behind the batch. Of one sample the batch axis is taken off, several are a scan."""
    if lengths is not None:
        raise ModelError("it scans sequences of different lengths, as opset 8 did; pad them alike and export to a newer opset")
    scan = {"body": body, "num_scan_inputs": num_scan_inputs, "scan_input_directions": directions}
    count = len(body.outputs)
    if all(extents(value)[0] == 1 for value in operands):
        made = op.Scan(*(op.Squeeze(value, [0]) for value in operands), outputs=count, **scan)
        return tuple(op.Unsqueeze(value, [0]) for value in (made if count > 1 else (made,)))
    with op.body(*((value.dtype, extents(value)[1:]) for value in operands), name="sample") as (inner, values):
        made = inner.Scan(*values, outputs=count, **scan)
        inner.graph.outputs.extend(made if count > 1 else [made])
    return op.Scan(*operands, outputs=count, body=inner.graph, num_scan_inputs=len(operands))


FORMULAS: dict[str, Rule] = {
    "Softmax": _flattened("Softmax"),
    "LogSoftmax": _flattened("LogSoftmax"),
    "Hardmax": _flattened("Hardmax"),
    "Upsample": _upsample,
    "Resize": _resize,
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "Scan": _scan,
}
