"""Whole numbers that follow from others are worked out: exporters compute axes, shapes and slices, the definitions of operators
do nothing else.

    Shape(x) of [N, 3, 8] -> Size -> Range(1, .) -> axes        becomes    axes = [1, 2]
    If(Size(axes) == 2) -> y                                    becomes    its first branch

What is real is never folded: a parameter stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from vgcompile.graph.emit import constant_of
from vgcompile.graph.view import bodies
from vgcompile.ops import lookup
from vgcompile.ops.op import Array
from vgcompile.reference.precision import in_float64

LARGEST = 4096  # elements of what is worked out


def fold_whole_numbers(model: ir.Model) -> bool:
    """Replace, in the main graph, what is a whole number or a truth value and known when compiling, and a choice by one. Returns
    whether any was."""
    return _fold(model.graph, list(model.graph), model.opset_imports[""])


def _fold(graph: ir.Graph, nodes: Sequence[ir.Node], opset: int) -> bool:
    changed = False
    for node in nodes:
        branch = _branch(node)
        if branch is not None:
            changed = True
            _fold(graph, _taken(graph, node, branch), opset)
        elif (found := _value(node, opset)) is not None:
            _stand_in(graph, node, found)
            changed = True
    return changed


def _branch(node: ir.Node) -> ir.Graph | None:
    """The branch of an If that is always taken."""
    if node.op_type != "If" or node.domain or node.inputs[0] is None:
        return None
    condition = constant_of(node.inputs[0])
    return None if condition is None else node.attributes["then_branch" if condition.all() else "else_branch"].as_graph()


def _taken(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> list[ir.Node]:
    """Put the nodes of a branch in the place of its If, whose outputs keep their names; returns them."""
    nodes, given = list(branch), list(branch.outputs)
    branch.outputs.clear()
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for index, (old, new) in enumerate(zip(node.outputs, given, strict=True)):
        if new.producer() not in nodes or new in given[:index]:  # what a branch hands through keeps its own name
            copy = ir.Node("", "Identity", [new], name=f"{node.name}/{index}")
            graph.insert_before(node, copy)
            nodes.append(copy)
            new = copy.outputs[0]
            new.type, new.shape = old.type, old.shape
        name, old.name = old.name, None
        new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return nodes


def _value(node: ir.Node, opset: int) -> Array | None:
    """What the node gives out, where it is one known array of whole numbers."""
    row = lookup(node.op_type, node.domain)
    out = node.outputs[0]
    whole = out.dtype is not None and (out.dtype.is_integer() or out.dtype == ir.DataType.BOOL)
    if row is None or row.random or len(node.outputs) != 1 or not whole or bodies(node):
        return None
    if row.by_shape:
        x = node.inputs[0]
        if x is None or x.shape is None or any(not isinstance(dim, int) for dim in x.shape):
            return None
        operands: list[Any] = [np.broadcast_to(np.zeros((), np.int8), x.shape.numpy())]
    else:
        operands = [None if value is None else constant_of(value) for value in node.inputs]
        known = [operand for value, operand in zip(node.inputs, operands, strict=True) if value is not None]
        if not known or any(operand is None or operand.size > LARGEST for operand in known):
            return None
    return _run(node, operands, opset)


def _run(node: ir.Node, operands: Sequence[Array | None], opset: int) -> Array | None:
    read = zip(node.inputs, operands, strict=True)
    known = {value: operand for value, operand in read if value is not None and operand is not None}
    found, dtype = worked_out([node], node.outputs[0], known, opset), node.outputs[0].dtype
    if found is None or found.size > LARGEST or dtype is None or found.dtype != dtype.numpy():
        return None
    return found


def worked_out(
    nodes: Sequence[ir.Node], value: ir.Value, known: Mapping[ir.Value, Array], opset: int, *, wide: bool = False
) -> Array | None:
    """What the nodes, in order, make of a value by the reference evaluator, where ``known`` holds all else that they read; None
    where it does not run them. ``wide``: every real type that the nodes name is float64."""
    kinds = [onnx.helper.make_tensor_value_info(str(v.name), onnx.TensorProto.UNDEFINED, None) for v in known]
    result = onnx.helper.make_tensor_value_info(str(value.name), onnx.TensorProto.UNDEFINED, None)
    graph = onnx.helper.make_graph([ir.to_proto(node) for node in nodes], "worked_out", kinds, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        (found,) = ReferenceEvaluator(in_float64(model) if wide else model).run(
            None, {str(v.name): array for v, array in known.items()}
        )
    except Exception:  # an evaluator that lacks an operator, or its type, is no reason to refuse a model
        return None
    return np.asarray(found)


def _stand_in(graph: ir.Graph, node: ir.Node, found: Array) -> None:
    old = node.outputs[0]
    if old.is_graph_output():
        return
    tensor = ir.Tensor(found, name=old.name)
    new = ir.Value(name=old.name, shape=ir.Shape(found.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    old.replace_all_uses_with(new)
    graph.remove(node, safe=True)
    graph.register_initializer(new)
