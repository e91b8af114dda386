"""A foreign ONNX file -> Network: read, checked, normalized, and only then named and stamped.

    file -> functions inlined -> opset 21 or newer -> every value a shape -> layers, parameters and loss found

The order matters: conversion drops metadata and inlining drops names inside bodies, so both come before anything is stamped.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import defs, inliner, version_converter
from onnx_ir.passes import common

from vgcompile.errors import ModelError
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import IR_VERSION, OPSET, dims, is_real
from vgcompile.graph.grouping import group
from vgcompile.graph.network import Input, Network
from vgcompile.graph.objective import objective
from vgcompile.graph.shapes import infer_shapes
from vgcompile.ops import lookup
from vgcompile.ops.op import Case

STANDARD = ("", "ai.onnx")
LARGEST = 2**31 - 1  # bytes of one protobuf message


def load(path: str | Path, *, loss: str | None = None, output: str | None = None) -> Network:
    """Read an ONNX file of any opset; external data lie beside it.

    ``loss`` names a real value with one element (default: the output called ``loss``, if it is one), ``output`` the value that is
    y. Every real initializer with an axis that some node learns from becomes a parameter: a graph input with a default.

    Raises ModelError for a file that is not ONNX, is incomplete, or holds operators or values that are not supported.
    """
    path = Path(path)
    proto, notes = _normalized(_read(path), path)
    model = _deserialized(proto, path)
    model.ir_version = IR_VERSION if model.ir_version is None else max(IR_VERSION, model.ir_version)
    initializers = set(model.graph.initializers)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _name_nodes(model)
    parameters = _parameters(model, initializers)
    _refuse_not_finite(model, parameters, path)
    _set_inputs(model, parameters)
    try:
        found = objective(model, set(parameters), loss, output)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    group(model, set(parameters), found)
    data = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return Network(
        name=path.stem,
        source=str(path),
        model=model,
        inputs={str(value.name): _input(value, "target" if value in found.targets else "input") for value in data},
        outputs=tuple(str(value.name) for value in found.outputs),
        loss=found.loss.name if found.loss is not None else None,
        reduction=_reduction(found.loss),
        parameters=tuple(parameters),
        notes=tuple(notes),
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or cut off; export it anew, or give a YAML model a .yaml name") from None
    except (onnx.checker.ValidationError, FileNotFoundError, ValueError) as error:
        raise ModelError(
            f"{path}: its external data cannot be read ({_line(error)}); put the data file beside the model"
        ) from None
    if not proto.graph.node:
        raise ModelError(f"{path}: an ONNX file holds a graph with nodes, this one holds none; export it anew")
    if proto.ByteSize() > LARGEST:
        raise ModelError(f"{path}: larger than 2 GB with its weights, more than ONNX's checker takes; analyse a narrower model")
    return proto


def _normalized(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """The same model without functions, in an opset that the rules hold for, every value with its shape; and what was done."""
    notes = []
    try:
        onnx.checker.check_model(proto)
        if proto.functions:
            notes.append(f"{path}: inlined {len(proto.functions)} model-local functions")
            proto = inliner.inline_local_functions(proto, convert_version=True)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    _refuse_control_flow(proto, path)
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


def _opset(proto: onnx.ModelProto) -> int:
    """The opset of the standard operators, the only import that is kept, under its short name."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=OPSET)
    del proto.opset_import[:]
    proto.opset_import.add(domain="", version=opset)
    for node in proto.graph.node:
        node.domain = ""
    return opset


def _deserialized(proto: onnx.ModelProto, path: Path) -> ir.Model:
    try:
        model = ir.from_proto(proto)
    except ir.serde.SerdeError as error:
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    if any(isinstance(node.name, bytes) for node in model.graph):
        raise ModelError(f"{path}: not valid ONNX: a node's name is not UTF-8 text; export it anew")
    return model


def _refuse_control_flow(proto: onnx.ModelProto, path: Path) -> None:
    """What a body reads of the graph around it is no operand of its node: every sweep over edges would miss it in silence."""
    held = sorted({node.op_type for node in proto.graph.node if any(a.HasField("g") or a.graphs for a in node.attribute)})
    if held:
        raise ModelError(
            f"{path}: branches and loops have no gradient yet, found {', '.join(held)}; export the model without them"
        )


def _refuse_foreign(proto: onnx.ModelProto, path: Path) -> None:
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain not in STANDARD})
    if foreign:
        raise ModelError(
            f"{path}: operators outside the ONNX standard: {', '.join(foreign)}; export to standard operators, unfused"
        )


def _converted(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(proto, OPSET)
    except (version_converter.ConvertError, RuntimeError) as error:
        raise ModelError(
            f"{path}: cannot be converted from opset {opset} to {OPSET}: {_line(error)}; export it to opset {OPSET}"
        ) from None


def _name_nodes(model: ir.Model) -> None:
    """Every node a name of its own, that no input or initializer has either: the view knows both by name."""
    taken = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    for index, node in enumerate(model.graph):
        name = base = node.name or f"/{node.op_type}/{index}"
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        node.name = name
        taken.add(name)


def _parameters(model: ir.Model, initializers: Set[str]) -> list[str]:
    """Real initializers of the file, with at least one axis, that some node learns from."""
    held = model.graph.initializers
    return [name for name, value in held.items() if name in initializers and is_real(value) and dims(value) and _learned(value)]


def _learned(value: ir.Value) -> bool:
    return any((row := lookup(node.op_type, node.domain)) is None or place not in row.untrained for node, place in value.uses())


def _refuse_not_finite(model: ir.Model, parameters: Sequence[str], path: Path) -> None:
    for name in parameters:
        tensor = model.graph.initializers[name].const_value
        if tensor is not None and not np.isfinite(tensor.numpy()).all():
            raise ModelError(
                f"{path}: the weights {name!r} hold numbers that are not finite; export a model that has not diverged"
            )


def _set_inputs(model: ir.Model, parameters: Sequence[str]) -> None:
    """Graph inputs: the data, then the parameters with their defaults. Old files list constants there too."""
    held = model.graph.initializers
    data = [value for value in model.graph.inputs if value.name not in held]
    model.graph.inputs[:] = [*data, *(held[name] for name in parameters)]


def _input(value: ir.Value, role: Literal["input", "target"]) -> Input:
    """An input; real numbers drawn from a normal distribution, classes where an operator counts them."""
    assert value.name is not None and value.dtype is not None
    if is_real(value):
        return Input(value.name, dims(value), value.dtype, role=role)
    classes = 2 if value.dtype == ir.DataType.BOOL else _classes(value)
    return Input(value.name, dims(value), value.dtype, distribution="classes", classes=classes, role=role)


def _classes(value: ir.Value) -> int | None:
    """How many numbers an integer input may choose from, by its uses, also behind operators of one operand."""
    counts: list[int | None] = []
    for node, place in value.uses():
        row = lookup(node.op_type, node.domain)
        shapes = tuple(None if operand is None else dims(operand) for operand in node.inputs)
        counts.append(row.classes(Case(attributes_of(node), shapes)).get(place) if row is not None else None)
        if len(node.inputs) == 1 and not is_real(node.outputs[0]):
            counts.append(_classes(node.outputs[0]))
    return min((count for count in counts if count is not None), default=None)


def _reduction(loss: ir.Value | None) -> str:
    """As the node that makes the loss says it, if it does."""
    producer = loss.producer() if loss is not None else None
    return str(attributes_of(producer).get("reduction", "unknown")) if producer is not None else "unknown"


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
