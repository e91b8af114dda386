"""A foreign ONNX file, normalized: one opset, no functions, every value with its shape, every node with a name.

    file -> functions inlined -> opset 21 or newer -> every value a shape -> constants lifted -> nodes named

The order matters: conversion drops metadata and inlining drops names inside bodies, so both come before anything is stamped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import defs, inliner, numpy_helper, version_converter
from onnx_ir.passes import common

from vgcompile.errors import ModelError
from vgcompile.graph.bodies import infer_bodies
from vgcompile.graph.emit import IR_VERSION, OPSET
from vgcompile.graph.shapes import infer_shapes

STANDARD = ("", "ai.onnx")
LARGEST = 2**31 - 1  # bytes of one protobuf message
CENTRED = 11  # the opset from which a resize counts from the centres of pixels


@dataclass(frozen=True)
class Normalized:
    """``model`` in an opset that the rules hold for; ``initializers`` are the file's own, without the constants of its nodes;
    ``notes`` say what was done."""

    model: ir.Model
    source: str
    initializers: frozenset[str]
    notes: tuple[str, ...]


def normalized(source: str | Path | onnx.ModelProto) -> Normalized:
    """Read and normalize an ONNX file of any opset (external data lie beside it), or a model in memory.

    Raises ModelError for what is not ONNX, is incomplete, or holds operators or values that are not supported.
    """
    path = Path("model.onnx") if isinstance(source, onnx.ModelProto) else Path(source)
    proto = source if isinstance(source, onnx.ModelProto) else _read(path)
    proto, notes = _normalized(_whole(proto, path), path)
    model = _deserialized(proto, path)
    model.ir_version = IR_VERSION if model.ir_version is None else max(IR_VERSION, model.ir_version)
    initializers = frozenset(model.graph.initializers)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _name_nodes(model)
    infer_bodies(model)
    return Normalized(model, str(path), initializers, tuple(notes))


def _read(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or cut off; export it anew, or give a YAML model a .yaml name") from None
    except (onnx.checker.ValidationError, FileNotFoundError, ValueError) as error:
        raise ModelError(
            f"{path}: its external data cannot be read ({_line(error)}); put the data file beside the model"
        ) from None
    return proto


def _whole(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Raises ModelError for a model that holds nothing, or more than ONNX's checker takes."""
    if not proto.graph.node:
        raise ModelError(f"{path}: an ONNX file holds a graph with nodes, this one holds none; export it anew")
    if proto.ByteSize() > LARGEST:
        raise ModelError(f"{path}: larger than 2 GB with its weights, more than ONNX's checker takes; analyse a narrower model")
    return proto


def _normalized(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """The same model without functions, in an opset that the rules hold for, every value with its shape; and what was done."""
    notes = []
    proto = _copied(proto)
    _state_defaults(proto)
    try:
        onnx.checker.check_model(proto)
        if proto.functions:
            notes.append(f"{path}: inlined {len(proto.functions)} model-local functions")
            proto = inliner.inline_local_functions(proto, convert_version=True)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    _refuse_foreign(proto, path)
    opset = _opset(proto)
    newest = defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"{path}: opset {opset} is newer than the installed onnx knows ({newest}); update onnx, or export to {OPSET}"
        )
    if opset < OPSET:
        notes.append(f"{path}: converted from opset {opset} to {OPSET}")
        proto = _converted(proto, opset, path)
    return infer_shapes(proto, str(path)), notes


def _copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _state_defaults(proto: onnx.ModelProto) -> None:
    """Write out the default attributes of operators that the standard defines by a function: the checker misses them inside."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=OPSET)
    for node in _nodes(proto.graph):
        text = isinstance(node.op_type, str) and isinstance(node.domain, str)  # bytes where a damaged file has no UTF-8
        if not text or node.domain not in STANDARD or not defs.has(node.op_type, max_inclusive_version=opset):
            continue
        schema = defs.get_schema(node.op_type, opset)
        given = {attribute.name for attribute in node.attribute}
        by_function = schema.has_function  # type: ignore[attr-defined]
        missing = [a.default_value for name, a in schema.attributes.items() if by_function and name not in given]
        node.attribute.extend(value for value in missing if value.type != onnx.AttributeProto.UNDEFINED)


def _opset(proto: onnx.ModelProto) -> int:
    """The opset of the standard operators, the only import that is kept, under its short name."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=OPSET)
    del proto.opset_import[:]
    proto.opset_import.add(domain="", version=opset)
    for node in _nodes(proto.graph):
        if node.domain in STANDARD:
            node.domain = ""
    return opset


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _deserialized(proto: onnx.ModelProto, path: Path) -> ir.Model:
    try:
        model = ir.from_proto(proto)
    except ir.serde.SerdeError as error:
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    if any(isinstance(node.name, bytes) for node in model.graph.all_nodes()):
        raise ModelError(f"{path}: not valid ONNX: a node's name is not UTF-8 text; export it anew")
    return model


def _refuse_foreign(proto: onnx.ModelProto, path: Path) -> None:
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in _nodes(proto.graph) if node.domain not in STANDARD})
    if foreign:
        raise ModelError(
            f"{path}: operators outside the ONNX standard: {', '.join(foreign)}; export to standard operators, unfused"
        )


def _converted(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    try:
        converted = version_converter.convert_version(proto, OPSET)
    except (version_converter.ConvertError, RuntimeError) as error:
        raise ModelError(
            f"{path}: cannot be converted from opset {opset} to {OPSET}: {_line(error)}; export it to opset {OPSET}"
        ) from None
    if opset < CENTRED:
        _keep_corners(converted, path)
    return converted


def _keep_corners(proto: onnx.ModelProto, path: Path) -> None:
    """Up to opset 10 a resize counts positions from the corner of a pixel, later ones from its centre unless they say otherwise.

    The converter does not say. The nearest neighbour was the pixel before where the tensor grew, the one behind where it shrank.
    """
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    held |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in proto.graph.node if node.op_type == "Constant"
    }
    for node in (node for node in _nodes(proto.graph) if node.op_type == "Resize"):
        scales = held.get(node.input[2], np.ones(0))
        node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        if any(attribute.name == "mode" and attribute.s != b"nearest" for attribute in node.attribute):
            continue
        if not scales.size or scales.min() < 1.0 < scales.max():
            raise ModelError(
                f"{path}: node {node.name!r} picks nearest neighbours as opsets up to 10 did, by scales that are computed, "
                f"or that enlarge and reduce at once; export it to opset {OPSET}"
            )
        node.attribute.append(onnx.helper.make_attribute("nearest_mode", "ceil" if scales.min() < 1.0 else "floor"))


def _name_nodes(model: ir.Model) -> None:
    """Every node a name of its own, that no input or initializer has either: the view knows both by name."""
    taken = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    for index, node in enumerate(model.graph.all_nodes()):
        name = base = node.name or f"/{node.op_type}/{index}"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        node.name = name
        taken.add(name)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
