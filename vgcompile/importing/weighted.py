"""Rules for products, convolutions, pools and normalizations: operators that hold weights, or windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims
from vgcompile.importing.arranging import chosen
from vgcompile.importing.finding import Composite, Fields, Found, Reading, Rule, Unlike, held, operand, short
from vgcompile.importing.trial import Array
from vgcompile.ops.window import window


def _dense(node: ir.Node, reading: Reading) -> Found:
    """Gemm, with its scales taken into the weights."""
    x, attributes = operand(node, 0), attributes_of(node)
    weight = held(node, 1, reading, "second factor")
    if attributes["transA"]:
        raise Unlike("it transposes its first factor")
    weight = float(attributes["alpha"]) * (weight.T if attributes["transB"] else weight)
    weights = {"weight": weight}
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        weights["bias"] = float(attributes["beta"]) * _vector(held(node, 2, reading, "bias"), weight.shape[1])
    return _fully_connected(x, node.outputs[0], weights)


def rowwise(node: ir.Node, reading: Reading) -> Composite | None:
    """Gemm between two reshapes, [batch, time, in] -> [batch time, in] -> [batch time, units] -> [batch, time, units]. Rows stay
    in their order, so that it is a dense layer over the last axis."""
    before, behind = operand(node, 0).producer(), reading.only_user(node.outputs[0])
    if before is None or behind is None or {before.op_type, behind.op_type} != {"Reshape"}:
        return None
    x, y = operand(before, 0), behind.outputs[0]
    if len(dims(x)) < 3 or dims(y)[:-1] != dims(x)[:-1] or dims(x)[-1] != dims(before.outputs[0])[-1]:
        return None
    found = replace(_dense(node, reading), sources=[x], output=y)
    return Composite(node, (found,), frozenset({node, behind}))


def _product(node: ir.Node, reading: Reading) -> Found:
    """MatMul by a matrix, and the bias that is added right behind it."""
    x, output = operand(node, 0), node.outputs[0]
    weight = held(node, 1, reading, "second factor")
    if weight.ndim != 2:
        raise Unlike(f"its second factor has {weight.ndim} axes, not 2")
    if (table := _table(operand(node, 1), weight, reading)) is not None:
        return Found("unembedding", [x], output, {}, {"weight": weight.T}, share=table)
    weights, behind = {"weight": weight}, reading.only_user(output)
    if behind is not None and behind.op_type == "Add":
        added = reading.array(next((value for value in behind.inputs if value is not output), None))
        if added is not None and added.size in (1, weight.shape[1]) and math.prod(added.shape[:-1]) == 1:
            weights["bias"], output = _vector(added, weight.shape[1]), behind.outputs[0]
            reading.take(behind)
    return _fully_connected(x, output, weights)


def _table(factor: ir.Value, weight: Array, reading: Reading) -> ir.Value | None:
    """The matrix whose transpose a factor is, or a copy of it, where rows of it are looked up."""
    for node in reading.needed:
        table = node.inputs[0] if node.op_type == "Gather" and not reading.region.fed(node.inputs[0]) else None
        if table is None or dims(table) != weight.shape[::-1]:
            continue
        held = reading.array(table)
        if table in reading.parameters_above(factor, node.outputs[0]) or (held is not None and np.array_equal(held, weight.T)):
            return table
    return None


def _fully_connected(x: ir.Value, output: ir.Value, weights: Mapping[str, Array]) -> Found:
    return Found("dense", [x], output, {"units": weights["weight"].shape[1], "bias": "bias" in weights}, weights)


def _vector(array: Array, size: int) -> Array:
    if math.prod(array.shape[:-1]) != 1 or array.size not in (1, size):
        raise Unlike(f"its bias has the shape {list(array.shape)}, not [{size}]")
    return np.broadcast_to(array.reshape(-1), (size,)).copy()


def _convolution(node: ir.Node, reading: Reading) -> Found:
    x, weight = operand(node, 0), held(node, 1, reading, "kernel")
    given, rank = attributes_of(node), weight.ndim - 2
    weights = {"weight": weight, **_bias(node, 2, reading)}
    fields = {
        "filters": weight.shape[0],
        "kernel": _few(weight.shape[2:]),
        **_window(node, weight.shape[2:], given),
        "groups": given["group"],
        "bias": "bias" in weights,
    }
    return Found(f"conv{rank}d", [x], node.outputs[0], fields, weights)


def _transposed_convolution(node: ir.Node, reading: Reading) -> Found:
    x, weight = operand(node, 0), held(node, 1, reading, "kernel")
    given, rank = attributes_of(node), weight.ndim - 2
    if given.get("output_shape") is not None or (given.get("auto_pad") or "NOTSET") not in ("NOTSET", "VALID"):
        raise Unlike("its padding follows from its output's shape")
    weights = {"weight": weight, **_bias(node, 2, reading)}
    fields = {
        "filters": weight.shape[1] * given["group"],
        "kernel": _few(weight.shape[2:]),
        **_window(node, weight.shape[2:], given),
        "groups": given["group"],
        "output_padding": _few(given.get("output_padding") or [0] * rank),
        "bias": "bias" in weights,
    }
    return Found(f"conv_transpose{rank}d", [x], node.outputs[0], fields, weights)


def _bias(node: ir.Node, position: int, reading: Reading) -> dict[str, Array]:
    present = len(node.inputs) > position and node.inputs[position] is not None
    return {"bias": held(node, position, reading, "bias")} if present else {}


def _pool(kind: str) -> Rule:
    def rule(node: ir.Node, reading: Reading) -> Found:
        given = attributes_of(node)
        if len(node.outputs) > 1 and node.outputs[1].uses():
            raise Unlike("its places are read")
        kernel = given["kernel_shape"]
        fields = {"kernel": _few(kernel), **_window(node, kernel, given)}
        for name, usual in (("stride", fields["kernel"]), ("dilation", 1)):
            if fields[name] == usual:
                del fields[name]
        if given.get("ceil_mode"):
            fields["ceil"] = True
        if given.get("count_include_pad") and fields["padding"] != "valid":
            fields["count_padding"] = True
        return Found(kind, [operand(node, 0)], node.outputs[0], fields)

    return rule


def _window(node: ir.Node, kernel: Sequence[int], given: Fields) -> dict[str, Any]:
    """``stride``, ``dilation`` and ``padding``: a number an axis, ``same`` where it is that, else both ends of each axis."""
    into, out = dims(operand(node, 0))[2:], dims(node.outputs[0])[2:]
    at = window(into, list(kernel), given)
    padding: Any = _few(at.before)
    if at.before != at.after:
        odd = all(after - before in (0, 1) for before, after in zip(at.before, at.after, strict=True))
        kept = all(
            isinstance(size, int) and made == -(-size // stride) for size, made, stride in zip(into, out, at.strides, strict=True)
        )
        padding = "same" if odd and kept else tuple(zip(at.before, at.after, strict=True))
    return {"stride": _few(at.strides), "padding": padding or "valid", "dilation": _few(at.dilations)}


def _few(numbers: Sequence[int]) -> Any:
    """One number where all are the same."""
    return numbers[0] if len(set(numbers)) == 1 else tuple(numbers)


def _batch_norm(node: ir.Node, reading: Reading) -> Found:
    given = attributes_of(node)
    names = ("scale", "bias", "running_mean", "running_var")
    weights = {name: held(node, place, reading, name) for place, name in enumerate(names, 1)}
    fields = {"epsilon": short(given["epsilon"]), "momentum": short(given["momentum"])}
    return Found("batch_norm", [operand(node, 0)], node.outputs[0], fields, weights)


def _scaled(kind: str, *facts: str) -> Rule:
    """A normalization with a scale and, behind it, a bias; ``facts`` are fields named like attributes."""

    def rule(node: ir.Node, reading: Reading) -> Found:
        x, given = operand(node, 0), attributes_of(node)
        scale = held(node, 1, reading, "scale")
        weights = {"scale": scale, **(_bias(node, 2, reading) or ({} if kind == "rms_norm" else {"bias": np.zeros_like(scale)}))}
        fields: dict[str, Any] = {"epsilon": short(given["epsilon"])}
        if "axis" in facts:
            rank = len(dims(x))
            fields["axis"] = int(given["axis"]) % rank - rank
        if "num_groups" in facts:
            fields["groups"] = given["num_groups"]
        return Found(kind, [x], node.outputs[0], fields, weights)

    return rule


def _embedding(node: ir.Node, reading: Reading) -> Found:
    table = held(node, 0, reading, "table")
    if table.ndim != 2 or attributes_of(node)["axis"] != 0:
        raise Unlike("it does not choose rows of a matrix")
    fields = {"units": table.shape[1], "size": table.shape[0]}
    return Found("embedding", [operand(node, 1)], node.outputs[0], fields, {"weight": table})


def _chosen(node: ir.Node, reading: Reading) -> Found | Sequence[Found]:
    """Rows of a table by numbers, or numbered entries of an axis."""
    return chosen(node, reading) if reading.region.fed(node.inputs[0]) else _embedding(node, reading)


RULES: Mapping[str, Rule] = {
    "Gemm": _dense,
    "MatMul": _product,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("average_pool"),
    "GlobalAveragePool": lambda node, reading: Found("global_average_pool", [operand(node, 0)], node.outputs[0]),
    "GlobalMaxPool": lambda node, reading: Found("global_max_pool", [operand(node, 0)], node.outputs[0]),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _scaled("layer_norm", "axis"),
    "RMSNormalization": _scaled("rms_norm", "axis"),
    "InstanceNormalization": _scaled("instance_norm"),
    "GroupNormalization": _scaled("group_norm", "num_groups"),
    "Gather": _chosen,
}
