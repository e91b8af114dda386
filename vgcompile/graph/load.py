"""A foreign ONNX file -> Network: normalized (graph/normalize.py), then layers, parameters, loss and targets found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from vgcompile.errors import ModelError
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.batching import sample_axes
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.grouping import group
from vgcompile.graph.network import Input, Network
from vgcompile.graph.normalize import normalized
from vgcompile.graph.objective import objective
from vgcompile.graph.view import bodies
from vgcompile.ops import lookup
from vgcompile.ops.op import Case


def load(
    given: str | Path | onnx.ModelProto,
    *,
    loss: str | None = None,
    output: str | None = None,
    batch_axes: Mapping[str, int] | int | None = None,
) -> Network:
    """Read an ONNX file of any opset (external data lie beside it), or a model in memory.

    ``loss`` names a real value with one element (default: the output called ``loss``, if it is one), ``output`` the value that is
    y. ``batch_axes`` says of inputs which axis counts samples (graph/batching.py finds it where nobody does). Every real
    initializer with an axis that some node learns from becomes a parameter: a graph input with a default.

    Raises ModelError for a file that is not ONNX, is incomplete, or holds operators or values that are not supported.
    """
    read = normalized(given, one_batch=True)
    path, model = Path(read.source), read.model
    _refuse_control_flow(model, path)
    parameters = trainable(model, read.initializers)
    _refuse_not_finite(model, parameters, path)
    _set_inputs(model, parameters)
    try:
        found = objective(model, set(parameters), loss, output)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    group(model, set(parameters), found)
    data = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    axes, notes = sample_axes(data, {} if batch_axes is None else batch_axes, str(path))
    return Network(
        name=path.stem,
        source=str(path),
        model=model,
        inputs={
            str(value.name): declared(value, "target" if value in found.targets else "input", axes.get(str(value.name), 0))
            for value in data
        },
        outputs=tuple(str(value.name) for value in found.outputs),
        loss=found.loss.name if found.loss is not None else None,
        reduction=_reduction(found.loss),
        parameters=tuple(parameters),
        notes=(*read.notes, *notes),
    )


def _refuse_control_flow(model: ir.Model, path: Path) -> None:
    """What a body reads of the graph around it is no operand of its node: an analysis of edges would miss it in silence."""
    held = sorted({node.op_type for node in model.graph if bodies(node)})
    if held:
        raise ModelError(
            f"{path}: branches and loops are differentiated (`vgcompile grad`) but not analysed yet, found {', '.join(held)}; "
            "export the model without them"
        )


def trainable(model: ir.Model, initializers: Set[str]) -> list[str]:
    """Real initializers of the file, with at least one axis, that some node learns from."""
    held = model.graph.initializers
    constant: dict[ir.Node, bool] = {}
    return [
        name
        for name, value in held.items()
        if name in initializers and is_real(value) and dims(value) and _learned(value, model.graph, constant)
    ]


def _learned(value: ir.Value, graph: ir.Graph, constant: dict[ir.Node, bool]) -> bool:
    """Whether a node learns from a value, also behind nodes that only prepare it (a weight that is shared goes through Identity).

    Running statistics, and the scales of a resize, set and do not learn.
    """
    if value.is_graph_output():
        return True
    for node, place in value.uses():
        row = lookup(node.op_type, node.domain)
        if row is not None and place in row.untrained:
            continue
        if not _prepares(node, graph, constant) or any(_learned(output, graph, constant) for output in node.outputs):
            return True
    return False


def _prepares(node: ir.Node, graph: ir.Graph, constant: dict[ir.Node, bool]) -> bool:
    """Whether everything that a node of the main graph reads is computed from initializers alone."""
    if node not in constant:
        plain = node.graph is graph and not bodies(node)
        constant[node] = plain and all(_given(value, graph, constant) for value in node.inputs)
    return constant[node]


def _given(value: ir.Value | None, graph: ir.Graph, constant: dict[ir.Node, bool]) -> bool:
    if value is None or value.const_value is not None:
        return True
    producer = value.producer()
    return producer is not None and _prepares(producer, graph, constant)


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


def declared(value: ir.Value, role: Literal["input", "target"] = "input", batch_axis: int = 0) -> Input:
    """An input; real numbers drawn from a normal distribution, classes where an operator counts them."""
    assert value.name is not None and value.dtype is not None
    if is_real(value):
        return Input(value.name, dims(value), value.dtype, role=role, batch_axis=batch_axis)
    classes = 2 if value.dtype == ir.DataType.BOOL else _classes(value)
    return Input(value.name, dims(value), value.dtype, distribution="classes", classes=classes, role=role, batch_axis=batch_axis)


def _classes(value: ir.Value) -> int | None:
    """How many numbers an integer input may choose from, by its uses, also behind operators of one operand."""
    counts: list[int | None] = []
    for node, place in value.uses():
        row = lookup(node.op_type, node.domain)
        shapes = tuple(None if operand is None or operand.shape is None else dims(operand) for operand in node.inputs)
        counts.append(row.classes(Case(attributes_of(node), shapes)).get(place) if row is not None else None)
        if len(node.inputs) == 1 and not is_real(node.outputs[0]):
            counts.append(_classes(node.outputs[0]))
    return min((count for count in counts if count is not None), default=None)


def _reduction(loss: ir.Value | None) -> str:
    """As the node that makes the loss says it, if it does."""
    producer = loss.producer() if loss is not None else None
    return str(attributes_of(producer).get("reduction", "unknown")) if producer is not None else "unknown"
