"""A foreign ONNX file -> Network: read, checked, normalized, and only then named and stamped.

    file -> functions inlined -> opset 21 or newer -> every value a shape -> layers, parameters and loss found

The order matters: conversion drops metadata and inlining drops names inside bodies, so both come before anything is stamped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import defs, inliner, version_converter
from onnx_ir.passes import common

from vgcompile.errors import ModelError, nearest
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import OPSET, dims
from vgcompile.graph.grouping import group, targets
from vgcompile.graph.network import Input, Network
from vgcompile.graph.shapes import infer_shapes
from vgcompile.graph.view import dependencies
from vgcompile.ops import lookup

DEFAULT = ("", "ai.onnx")
LARGEST = 2**31 - 1  # bytes of one protobuf message


def load(path: str | Path, *, loss: str | None = None, output: str | None = None) -> Network:
    """Read an ONNX file of any opset; external data lie beside it.

    ``loss`` names a real value with one element (default: the output called ``loss``, if it is one), ``output`` the value that is y.
    Every real initializer with an axis that a node learns from becomes a parameter: a graph input with a default.

    Raises ModelError for a file that is not ONNX, is incomplete, or holds operators or values that are not supported.
    """
    path = Path(path)
    proto, notes = _normalized(_read(path), path)
    model = ir.from_proto(proto)
    initializers = {name for name in model.graph.initializers}
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _name_nodes(model)
    parameters = _parameters(model, initializers)
    _set_inputs(model, parameters)
    scalar = _loss(model, loss, path)
    outputs = _outputs(model, scalar, output, path)
    group(model, set(parameters), scalar, outputs)
    return Network(
        name=path.stem,
        source=str(path),
        model=model,
        inputs=_inputs(model, set(parameters)),
        outputs=tuple(str(value.name) for value in outputs),
        loss=scalar.name if scalar is not None else None,
        reduction=_reduction(scalar),
        parameters=tuple(parameters),
        notes=tuple(notes),
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or cut off; export it anew, or give a YAML model a .yaml name") from None
    except (onnx.checker.ValidationError, FileNotFoundError, ValueError) as error:
        raise ModelError(f"{path}: its external data cannot be read ({_line(error)}); put the data file beside the model") from None
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
    except (onnx.checker.ValidationError, RuntimeError) as error:
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    _refuse_foreign(proto, path)
    opset = next(entry.version for entry in proto.opset_import if entry.domain in DEFAULT)
    if opset > defs.onnx_opset_version():
        newest = defs.onnx_opset_version()
        raise ModelError(f"{path}: opset {opset} is newer than the installed onnx knows ({newest}); update onnx or export to opset {OPSET}")
    if opset < OPSET:
        notes.append(f"{path}: converted from opset {opset} to {OPSET}")
        proto = _converted(proto, opset, path)
    return infer_shapes(proto, path), notes


def _refuse_foreign(proto: onnx.ModelProto, path: Path) -> None:
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in _nodes(proto.graph) if node.domain not in DEFAULT})
    if foreign:
        raise ModelError(f"{path}: operators outside the ONNX standard: {', '.join(foreign)}; export to standard operators, unfused")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _converted(proto: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(proto, OPSET)
    except (version_converter.ConvertError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be converted from opset {opset} to {OPSET}: {_line(error)}; export it to opset {OPSET}") from None


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


def _parameters(model: ir.Model, initializers: set[str]) -> list[str]:
    """Real initializers of the file, with at least one axis, that some node learns from."""
    return [
        name
        for name, value in model.graph.initializers.items()
        if name in initializers and value.dtype is not None and value.dtype.is_floating_point() and dims(value) and _learned(value)
    ]


def _learned(value: ir.Value) -> bool:
    return any((row := lookup(node.op_type, node.domain)) is None or place not in row.untrained for node, place in value.uses())


def _set_inputs(model: ir.Model, parameters: list[str]) -> None:
    """Graph inputs: the data, then the parameters with their defaults. Old files list constants there too."""
    held = model.graph.initializers
    data = [value for value in model.graph.inputs if value.name not in held]
    model.graph.inputs[:] = [*data, *(held[name] for name in parameters)]


def _loss(model: ir.Model, name: str | None, path: Path) -> ir.Value | None:
    """The value that is the loss: the named one, or the output called ``loss`` where it is one real number."""
    if name is None:
        return next((value for value in model.graph.outputs if value.name == "loss" and _is_scalar(value)), None)
    value = _value(model, name, "--loss", path)
    if not _is_scalar(value):
        kind = value.dtype.name.lower() if value.dtype is not None else "unknown type"
        raise ModelError(f"{path}: --loss {name!r} is {kind} {list(dims(value))}; a loss is one real number")
    return value


def _is_scalar(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point() and all(dim == 1 for dim in dims(value))


def _value(model: ir.Model, name: str, option: str, path: Path) -> ir.Value:
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    if name not in values:
        outputs = ", ".join(str(value.name) for value in model.graph.outputs)
        raise ModelError(f"{path}: {option} {name!r} is no value of the model; " + (nearest(name, values) or f"its outputs are {outputs}"))
    return values[name]


def _outputs(model: ir.Model, loss: ir.Value | None, name: str | None, path: Path) -> list[ir.Value]:
    """y: the named value; else the real outputs, of a model with a loss those that enter it; else what meets the targets."""
    if name is not None:
        return [_value(model, name, "--output", path)]
    real = [value for value in model.graph.outputs if value.dtype is not None and value.dtype.is_floating_point() and value is not loss]
    if loss is not None:
        reach = dependencies(model.graph)
        real = [value for value in real if _leads(reach, value, loss)] or targets(model, loss)
    if not real:
        raise ModelError(f"{path}: no real output that depends on data; name one with --output")
    return real


def _leads(reach: nx.DiGraph, value: ir.Value, loss: ir.Value) -> bool:
    return value in reach and nx.has_path(reach, value, loss)


def _inputs(model: ir.Model, parameters: set[str]) -> dict[str, Input]:
    raise NotImplementedError


def _reduction(loss: ir.Value | None) -> str:
    """As the node that makes the loss says it, if it does."""
    producer = loss.producer() if loss is not None else None
    return str(attributes_of(producer).get("reduction", "as in the file")) if producer is not None else "as in the file"


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
