"""The table of recognition: which layer an operator is, with which fields and which weights.

    Gemm(x, W, b)  ->  dense, {units: 10}, {weight: W, bias: b}, reads x, gives y

One rule an operator, ``(operator, reading) -> Found``; it raises Unlike where no layer is like the node. A rule may take in nodes
behind its own (a bias), and may name kinds and fields that the language does not have: whoever calls it checks. An operator
without a rule that bears the name of an activation is that activation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims
from vgcompile.layers import LAYERS
from vgcompile.ops.window import window

Array = np.ndarray[Any, Any]
Fields = Mapping[str, Any]


class Unlike(Exception):
    """No layer is like this node, and why."""


@dataclass(frozen=True)
class Found:
    """A layer: what it reads and gives are values of the graph; ``function`` says that it may stand in ``activation:``."""

    kind: str
    sources: Sequence[ir.Value]
    output: ir.Value
    fields: Fields = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    function: bool = False


class Reading(Protocol):
    """What rules may ask of the graph."""

    def array(self, value: ir.Value | None) -> Array | None:
        """What a value holds, where data have no part in it."""
        ...

    def only_user(self, value: ir.Value) -> ir.Node | None:
        """The one node that reads a value which nobody else sees."""
        ...

    def take(self, node: ir.Node) -> None:
        """Say that a further node is a part of this layer."""
        ...


Rule = Callable[[ir.Node, Reading], Found]


def recognized(node: ir.Node, reading: Reading) -> Found:
    """The layer that begins with a node. Raises Unlike."""
    rule = RULES.get(node.op_type)
    return rule(node, reading) if rule is not None else _activation(node, reading)


def _operand(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        raise Unlike(f"its input {position} is missing")
    return value


def _held(node: ir.Node, position: int, reading: Reading, what: str) -> Array:
    array = reading.array(_operand(node, position))
    if array is None:
        raise Unlike(f"its {what} depends on data")
    return array


def _dense(node: ir.Node, reading: Reading) -> Found:
    """Gemm, with its scales taken into the weights."""
    x, attributes = _operand(node, 0), attributes_of(node)
    weight = _held(node, 1, reading, "second factor")
    if attributes["transA"]:
        raise Unlike("it transposes its first factor")
    weight = float(attributes["alpha"]) * (weight.T if attributes["transB"] else weight)
    weights = {"weight": weight}
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        weights["bias"] = float(attributes["beta"]) * _vector(_held(node, 2, reading, "bias"), weight.shape[1])
    return _fully_connected(x, node.outputs[0], weights)


def _product(node: ir.Node, reading: Reading) -> Found:
    """MatMul by a matrix, and the bias that is added right behind it."""
    x, output = _operand(node, 0), node.outputs[0]
    weight = _held(node, 1, reading, "second factor")
    if weight.ndim != 2:
        raise Unlike(f"its second factor has {weight.ndim} axes, not 2")
    weights, behind = {"weight": weight}, reading.only_user(output)
    if behind is not None and behind.op_type == "Add":
        added = reading.array(next((value for value in behind.inputs if value is not output), None))
        if added is not None and added.size in (1, weight.shape[1]) and math.prod(added.shape[:-1]) == 1:
            weights["bias"], output = _vector(added, weight.shape[1]), behind.outputs[0]
            reading.take(behind)
    return _fully_connected(x, output, weights)


def _fully_connected(x: ir.Value, output: ir.Value, weights: Mapping[str, Array]) -> Found:
    return Found("dense", [x], output, {"units": weights["weight"].shape[1], "bias": "bias" in weights}, weights)


def _vector(array: Array, size: int) -> Array:
    if math.prod(array.shape[:-1]) != 1 or array.size not in (1, size):
        raise Unlike(f"its bias has the shape {list(array.shape)}, not [{size}]")
    return np.broadcast_to(array.reshape(-1), (size,)).copy()


def _convolution(node: ir.Node, reading: Reading) -> Found:
    x, weight = _operand(node, 0), _held(node, 1, reading, "kernel")
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
    x, weight = _operand(node, 0), _held(node, 1, reading, "kernel")
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
    return {"bias": _held(node, position, reading, "bias")} if present else {}


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
        return Found(kind, [_operand(node, 0)], node.outputs[0], fields)

    return rule


def _window(node: ir.Node, kernel: Sequence[int], given: Fields) -> dict[str, Any]:
    """``stride``, ``dilation`` and ``padding``: a number an axis, ``same`` where it is that, else both ends of each axis."""
    into, out = dims(_operand(node, 0))[2:], dims(node.outputs[0])[2:]
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


def _averaged(node: ir.Node, reading: Reading) -> Found:
    """A mean over all positions that keeps their axes."""
    x, given = _operand(node, 0), attributes_of(node)
    axes = reading.array(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = len(dims(x))
    if axes is None or sorted(int(axis) % rank for axis in axes.ravel()) != list(range(2, rank)) or not given["keepdims"]:
        raise Unlike("a mean is a layer where it is taken over all positions of [batch, channels, ...] and keeps their axes")
    return Found("global_average_pool", [x], node.outputs[0])


def _batch_norm(node: ir.Node, reading: Reading) -> Found:
    given = attributes_of(node)
    names = ("scale", "bias", "running_mean", "running_var")
    weights = {name: _held(node, place, reading, name) for place, name in enumerate(names, 1)}
    fields = {"epsilon": _short(given["epsilon"]), "momentum": _short(given["momentum"])}
    return Found("batch_norm", [_operand(node, 0)], node.outputs[0], fields, weights)


def _scaled(kind: str, *facts: str) -> Rule:
    """A normalization with a scale and, behind it, a bias; ``facts`` are fields named like attributes."""

    def rule(node: ir.Node, reading: Reading) -> Found:
        x, given = _operand(node, 0), attributes_of(node)
        scale = _held(node, 1, reading, "scale")
        weights = {"scale": scale, **(_bias(node, 2, reading) or ({} if kind == "rms_norm" else {"bias": np.zeros_like(scale)}))}
        fields: dict[str, Any] = {"epsilon": _short(given["epsilon"])}
        if "axis" in facts:
            rank = len(dims(x))
            fields["axis"] = int(given["axis"]) % rank - rank
        if "num_groups" in facts:
            fields["groups"] = given["num_groups"]
        return Found(kind, [x], node.outputs[0], fields, weights)

    return rule


def _flattened(node: ir.Node, reading: Reading) -> Found:
    """[batch, a, b, ...] -> [batch, a b ...], by whatever operator."""
    x, y = _operand(node, 0), node.outputs[0]
    before, after = dims(x), dims(y)
    rest = [dim for dim in before[1:] if isinstance(dim, int)]
    if len(after) != 2 or before[0] != after[0] or len(rest) != len(before) - 1 or after[1] != math.prod(rest):
        raise Unlike(f"it makes [{', '.join(map(str, after))}] of [{', '.join(map(str, before))}], which is not flatten")
    return Found("flatten", [x], y)


def _joined(kind: str) -> Rule:
    def rule(node: ir.Node, reading: Reading) -> Found:
        sources = [_operand(node, position) for position in range(len(node.inputs))]
        if any(reading.array(value) is not None for value in sources):
            raise Unlike("one of its operands is a constant")
        fields = {"axis": attributes_of(node)["axis"]} if node.op_type == "Concat" else {}
        return Found(kind, sources, node.outputs[0], fields)

    return rule


def _dropout(node: ir.Node, reading: Reading) -> Found:
    ratio = reading.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Unlike("its mask is read")
    return Found("dropout", [_operand(node, 0)], node.outputs[0], {"rate": 0.5 if ratio is None else _short(float(ratio))})


def _embedding(node: ir.Node, reading: Reading) -> Found:
    table = _held(node, 0, reading, "table")
    if table.ndim != 2 or attributes_of(node)["axis"] != 0:
        raise Unlike("it does not choose rows of a matrix")
    return Found("embedding", [_operand(node, 1)], node.outputs[0], {"units": table.shape[1]}, {"weight": table})


def _silu(node: ir.Node, reading: Reading) -> Found:
    if attributes_of(node).get("alpha", 1.0) != 1.0:
        raise Unlike("its alpha is not 1")
    return Found("silu", [_operand(node, 0)], node.outputs[0], function=True)


def _activation(node: ir.Node, reading: Reading) -> Found:
    """Softplus is softplus; attributes are fields, and one that is no field has to have the operator's usual value."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", node.op_type).lower()
    layer = LAYERS.get(kind)
    if layer is None or node.domain or len(node.inputs) != 1 or layer.takes != (1, 1):
        raise Unlike("no layer is like it")
    usual = attributes_of(ir.Node("", node.op_type, node.inputs, num_outputs=1))
    fields = {}
    for name, value in attributes_of(node).items():
        if name in layer.model_fields:
            fields[name] = _short(value) if isinstance(value, float) else value
        elif value != usual.get(name):
            raise Unlike(f"{kind} has no {name}")
    return Found(kind, [_operand(node, 0)], node.outputs[0], fields, function=True)


def _short(number: float) -> float:
    """The shortest number that is the same float32."""
    return float(str(np.float32(number)))


RULES: Mapping[str, Rule] = {
    "Gemm": _dense,
    "MatMul": _product,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("average_pool"),
    "GlobalAveragePool": lambda node, reading: Found("global_average_pool", [_operand(node, 0)], node.outputs[0]),
    "GlobalMaxPool": lambda node, reading: Found("global_max_pool", [_operand(node, 0)], node.outputs[0]),
    "ReduceMean": _averaged,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _scaled("layer_norm", "axis"),
    "RMSNormalization": _scaled("rms_norm", "axis"),
    "InstanceNormalization": _scaled("instance_norm"),
    "GroupNormalization": _scaled("group_norm", "num_groups"),
    "Flatten": _flattened,
    "Reshape": _flattened,
    "Squeeze": _flattened,
    "Add": _joined("add"),
    "Sum": _joined("add"),
    "Mul": _joined("multiply"),
    "Concat": _joined("concat"),
    "Dropout": _dropout,
    "Gather": _embedding,
    "Swish": _silu,
}
