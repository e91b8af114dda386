"""Attention that a file holds operator by operator becomes one node.

    q -> Mul -----------------------> MatMul -> Add(mask) -> Softmax -> MatMul(., v) -> y
    k -> Reshape, Transpose, Reshape ---^
    becomes    q, k, v, mask -> ScaledDotProductAttention -> y

A scale may stand before the product, on either side or both, or behind it; a cap (tanh), a fill of hidden scores (Where) and any
number of added biases may follow, and the softmax may run in another type. How the keys are turned is known by values: what
turns them, shapes and all, is run on numbers that are all different.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.cones import only_read_by, stand_in
from vgcompile.graph.emit import Emitter, constant_of, dims, is_real
from vgcompile.graph.folding import worked_out
from vgcompile.graph.view import bodies
from vgcompile.ops import lookup
from vgcompile.ops.linear import swapped
from vgcompile.ops.op import INTERNAL

_SOFTMAXES = frozenset({"Softmax", "MaskedSoftmax"})
_LARGEST = 1 << 20  # elements of the keys that are turned on trial
_LAYOUTS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
_STEPS = 24  # nodes that turn keys, their shapes' among them


def raised(emitter: Emitter, kept: Set[str]) -> Iterator[str]:
    """Raise the attentions of one graph; gives their names."""
    for node in list(emitter.graph):
        if node.op_type in _SOFTMAXES and node.domain in ("", INTERNAL) and _raise(emitter, node, kept):
            yield "ScaledDotProductAttention"


@dataclass(frozen=True)
class _Scores:
    """softmax's input, taken apart: ``nodes`` in order from the product of ``q`` and the turned ``keys`` on."""

    q: ir.Value
    keys: ir.Value
    nodes: tuple[ir.Node, ...]
    before: float = 1.0  # the factor before tanh, or the only one
    after: float | None = None  # the one behind it
    hidden: tuple[ir.Value, bool] | None = None  # the condition, and whether it hides where it holds
    fill: float = -math.inf
    biases: tuple[ir.Value, ...] = ()

    @property
    def bare(self) -> bool:
        """Whether no more than a factor or a cap stands behind the product."""
        return self.hidden is None and not self.biases

    @property
    def attributes(self) -> dict[str, float]:
        if self.after is None:
            return {"scale": self.before}
        return {"scale": self.before * self.after, "softcap": self.after}


def _raise(emitter: Emitter, softmax: ir.Node, kept: Set[str]) -> bool:
    chain = _around(softmax, kept)
    if chain is None:
        return False
    *through, product = chain
    x, v = through[0].inputs[0], product.inputs[1]
    found = _scores(x, through[0], kept) if x is not None else None
    if found is None or v is None or v.shape is None or not all(node.graph is emitter.graph for node in (*found.nodes, *chain)):
        return False
    found = replace(found, **_without_factor("q", found, kept))
    found = replace(found, **_without_factor("keys", found, kept))
    if not len(dims(found.q)) == len(dims(found.keys)) == len(dims(v)) >= 3:
        return False
    with emitter.scope(before=product, dtype=v.dtype):
        k = _unturned(emitter, found.keys, kept)
        hidden = None if found.hidden is None else found.hidden[0] if found.hidden[1] else emitter.Not(found.hidden[0])
        bias = found.biases[0] if found.biases else None
        for other in found.biases[1:]:
            bias = emitter.Add(bias, other)
    attributes: dict[str, Any] = {**found.attributes, "fill": found.fill} if hidden is not None else {**found.attributes}
    if softmax.op_type == "MaskedSoftmax":
        attributes["zero_rows"] = 1
    if softmax.inputs[0] is not None and softmax.inputs[0].dtype != v.dtype:
        attributes["softmax_precision"] = int(softmax.inputs[0].dtype or ir.DataType.FLOAT)
    stand_in(emitter, (*found.nodes, *chain), "ScaledDotProductAttention", found.q, k, v, bias, hidden, **attributes)
    return True


def _around(softmax: ir.Node, kept: Set[str]) -> list[ir.Node] | None:
    """The softmax of the last axis with a Cast before and behind it, if there is one, and the product that alone reads the
    weights."""
    x, weights = softmax.inputs[0], softmax.outputs[0]
    if (
        x is None
        or x.shape is None
        or int(attributes_of(softmax)["axis"]) not in (-1, len(dims(x)) - 1)
        or len(softmax.inputs) > 1
    ):
        return None
    chain = [softmax]
    before = x.producer()
    if before is not None and before.op_type == "Cast" and before.domain == "" and only_read_by(x, {softmax}, kept):
        chain.insert(0, before)
    reader = _reader(weights, kept)
    if reader is not None and reader.op_type == "Cast":
        chain.append(reader)
        weights = reader.outputs[0]
        reader = _reader(weights, kept)
    if reader is None or reader.op_type != "MatMul" or reader.inputs[0] is not weights:
        return None
    first = chain[0].inputs[0]
    return [*chain, reader] if first is not None and first.dtype == weights.dtype else None


def _reader(value: ir.Value, kept: Set[str]) -> ir.Node | None:
    """The standard node that alone reads a value, once."""
    uses = list(value.uses())
    alone = len(uses) == 1 and only_read_by(value, {uses[0][0]}, kept) and uses[0][0].domain == ""
    return uses[0][0] if alone else None


def _scores(value: ir.Value, reader: ir.Node, kept: Set[str]) -> _Scores | None:
    node = value.producer()
    if node is None or node.domain or not only_read_by(value, {reader}, kept) or any(v is None for v in node.inputs):
        return None
    operands: list[Any] = list(node.inputs)
    if node.op_type == "MatMul":
        q, keys = operands
        return _Scores(q, keys, (node,)) if q.shape is not None and keys.shape is not None else None
    step = {"Add": _biased, "Where": _filled, "Tanh": _bent, "Mul": _scaled, "Div": _scaled}.get(node.op_type)
    found = step(node, operands, kept) if step is not None else None
    return None if found is None else replace(found, nodes=(*found.nodes, node))


def _biased(node: ir.Node, operands: Sequence[ir.Value], kept: Set[str]) -> _Scores | None:
    for value, bias in (operands, reversed(operands)):
        found = _scores(value, node, kept)
        if found is not None and is_real(bias):
            return replace(found, biases=(*found.biases, bias))
    return None


def _filled(node: ir.Node, operands: Sequence[ir.Value], kept: Set[str]) -> _Scores | None:
    condition, *branches = operands
    for holds, (value, other) in ((False, branches), (True, reversed(branches))):
        found, fill = _scores(value, node, kept), known_number(other, kept)
        if found is not None and found.bare and fill is not None:
            return replace(found, hidden=(condition, holds), fill=fill)
    return None


def _bent(node: ir.Node, operands: Sequence[ir.Value], kept: Set[str]) -> _Scores | None:
    found = _scores(operands[0], node, kept)
    return replace(found, after=1.0) if found is not None and found.bare and found.after is None else None


def _scaled(node: ir.Node, operands: Sequence[ir.Value], kept: Set[str]) -> _Scores | None:
    factored = _factored(node, kept)
    found = _scores(factored[0], node, kept) if factored is not None else None
    if factored is None or found is None or not found.bare:
        return None
    if found.after is None:
        return replace(found, before=found.before * factored[1])
    return replace(found, after=found.after * factored[1])


def _without_factor(side: str, scores: _Scores, kept: Set[str]) -> dict[str, Any]:
    """One side of the product before it is scaled, and the factor with that of the other side."""
    value, before = getattr(scores, side), scores.before
    while (node := value.producer()) is not None and (factored := _factored(node, kept)) is not None:
        value, before = factored[0], before * factored[1]
    return {side: value, "before": before}


def _factored(node: ir.Node, kept: Set[str]) -> tuple[ir.Value, float] | None:
    """What a node multiplies by a known number, and the number; its value, too, must be nobody's."""
    if node.op_type not in ("Mul", "Div") or node.domain or node.outputs[0].name in kept:
        return None
    a, b = node.inputs
    if a is None or b is None:
        return None
    for value, other in ((a, b), (b, a))[: 1 if node.op_type == "Div" else 2]:
        number = known_number(other, kept)
        if number is not None and value.shape is not None and len(dims(value)) >= len(dims(other)):
            return (value, 1.0 / number if node.op_type == "Div" else number) if number else None
    return None


def known_number(value: ir.Value, kept: Set[str]) -> float | None:
    """The one number that a value holds, written down or worked out from such; in float64."""
    if value.name in kept or value.shape is None or any(dim != 1 for dim in dims(value)):
        return None
    known = constant_of(value)
    if known is not None:
        return float(known.reshape(-1)[0])
    node = value.producer()
    row = lookup(node.op_type, node.domain) if node is not None and is_real(value) else None
    if node is None or row is None or row.numpy is None or not row.elementwise:
        return None
    read = [node.inputs[0], node.inputs[0]] if node.op_type == "CastLike" else node.inputs  # whose second tells the type
    operands = [None if v is None else known_number(v, kept) for v in read]
    return None if None in operands else float(row.numpy(*map(np.float64, operands), **attributes_of(node)))


def _unturned(emitter: Emitter, keys: ir.Value, kept: Set[str]) -> ir.Value:
    """The keys, one in a row, of which the product reads the transpose."""
    node = keys.producer()
    if node is not None and node.op_type == "Transpose" and node.domain == "" and node.inputs[0] is not None:
        *lead, a, b = attributes_of(node)["perm"] or range(len(dims(keys)))[::-1]
        perm = [*lead, b, a]
        value: ir.Value = node.inputs[0]
        return value if perm == sorted(perm) else emitter.Transpose(value, perm=perm)
    return _turned_from(keys, kept, emitter.opset) or swapped(emitter, keys)


def _turned_from(keys: ir.Value, kept: Set[str], opset: int) -> ir.Value | None:
    """The value that some reshaping and transposing turns into the keys; None where its last two axes are not what is swapped."""
    base = keys
    while (node := base.producer()) is not None and node.op_type in _LAYOUTS and base.name not in kept:
        source = node.inputs[0]
        if source is None or source.shape is None:
            return None
        base = source
        if len(dims(base)) == len(dims(keys)) and _is_turned(keys, base, opset):
            return base
    return None


def _is_turned(keys: ir.Value, base: ir.Value, opset: int) -> bool:
    nodes = _between(keys, base)
    if nodes is None:
        return False
    read = {value for node in nodes for value in node.inputs if value is not None}
    constants = {value: known for value in read if (known := constant_of(value)) is not None}
    for extents in ((2, 3, 5, 4), (3, 2, 4, 6)):  # of axes that only a run knows
        shape = [dim if isinstance(dim, int) else extents[axis % 4] for axis, dim in enumerate(dims(base))]
        if math.prod(shape) > _LARGEST:
            return False
        x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
        y = worked_out(nodes, keys, {**constants, base: x}, opset)
        if y is None or not np.array_equal(y, np.swapaxes(x, -1, -2)):
            return False
    return True


def _between(value: ir.Value, base: ir.Value) -> list[ir.Node] | None:
    """What computes a value from the base and from constants alone, in order."""
    found: dict[ir.Node, None] = {}
    open_ends, graph = [value], value.graph
    while open_ends:
        node = (end := open_ends.pop()).producer()
        if end is base or constant_of(end) is not None or node in found:
            continue
        if node is None or len(found) == _STEPS or bodies(node) or node.domain:
            return None
        found[node] = None
        open_ends += [v for v in node.inputs if v is not None]
    return [node for node in graph or () if node in found]
