"""Rules for operators that rearrange elements, take some, join several values or average over axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims
from vgcompile.importing.finding import Found, Reading, Rule, Unlike, held, operand
from vgcompile.importing.trial import Trial
from vgcompile.layers.layer import show
from vgcompile.ops.op import Dim


def _reshaped(node: ir.Node, reading: Reading) -> Found:
    """Axes of a sample joined (flatten), or its elements in another shape; by whatever operator."""
    x, y = operand(node, 0), node.outputs[0]
    before, after = dims(x), dims(y)
    if before == after:
        return Found("identity", [x], y, copies=True)
    if not after or before[0] != after[0]:
        raise Unlike(f"it makes {show(after)} of {show(before)}: no layer takes the batch from the front")
    joined = _joined_axes(before, after)
    if joined is not None:
        start, end = joined
        return Found("flatten", [x], y, {"start": start, "end": -1 if end == len(before) - 1 else end})
    symbols = [dim for dim in after[1:] if isinstance(dim, str)]
    if len(symbols) > 1:
        raise Unlike(f"it makes {show(after)} of {show(before)}, where more than one extent is not known")
    return Found("reshape", [x], y, {"shape": tuple(-1 if isinstance(dim, str) else dim for dim in after[1:])})


def _joined_axes(before: Sequence[Dim], after: Sequence[Dim]) -> tuple[int, int] | None:
    """The first and last axis of those that have become one."""
    count = len(before) - len(after) + 1
    for start in range(1, len(after) if count > 1 else 0):
        part = before[start : start + count]
        known = [dim for dim in part if isinstance(dim, int)]
        whole = math.prod(known) if len(known) == len(part) else None
        if whole == after[start] and [*before[:start], *before[start + count :]] == [*after[:start], *after[start + 1 :]]:
            return start, start + count - 1
    return None


def _transposed(node: ir.Node, reading: Reading) -> Found:
    x = operand(node, 0)
    perm = tuple(attributes_of(node)["perm"] or range(len(dims(x)))[::-1])
    if perm[0]:
        raise Unlike(f"it takes the batch from the front (perm {list(perm)})")
    return Found("transpose", [x], node.outputs[0], {"perm": perm})


def chosen(node: ir.Node, reading: Reading) -> Found:
    """Gather by known numbers: one entry without the axis, or entries at equal distances."""
    x = operand(node, 0)
    places = held(node, 1, reading, "choice of entries")
    axis = _behind_batch(int(attributes_of(node)["axis"]), x)
    if places.ndim == 0:
        return Found("select", [x], node.outputs[0], {"axis": axis, "index": int(places)})
    steps = {b - a for a, b in pairwise(places.ravel().tolist())}
    if places.ndim != 1 or len(steps) > 1 or not all(step > 0 for step in steps) or places[0] < 0:
        raise Unlike("it takes entries in an order of its own; slice takes every n-th")
    fields = {"axis": axis, "start": int(places[0]), "end": int(places[-1]) + 1, "step": steps.pop() if steps else 1}
    return Found("slice", [x], node.outputs[0], fields)


def _sliced(node: ir.Node, reading: Reading) -> Sequence[Found]:
    """One slice for each axis that is cut."""
    x = operand(node, 0)
    rank = len(dims(x))
    starts, ends = (held(node, place, reading, "place").tolist() for place in (1, 2))
    given = [
        None if len(node.inputs) <= place or node.inputs[place] is None else held(node, place, reading, "axis")
        for place in (3, 4)
    ]
    axes = range(len(starts)) if given[0] is None else given[0].tolist()
    steps = [1] * len(starts) if given[1] is None else given[1].tolist()
    cuts = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = dims(x)[axis % rank]
        if step < 1:
            raise Unlike("it goes backward")
        whole = (isinstance(size, int) and end >= size) or end >= np.iinfo(np.int32).max
        if start == 0 and whole and step == 1:
            continue
        fields = {"axis": _behind_batch(axis, x), "start": start, **({} if whole else {"end": end}), "step": step}
        cuts.append(fields)
    if not cuts:
        return [Found("identity", [x], node.outputs[0], copies=True)]
    values = [x, *(ir.Value(name=None) for _ in cuts[1:]), node.outputs[0]]
    return [Found("slice", [a], b, fields) for (a, b), fields in zip(pairwise(values), cuts, strict=True)]


def _behind_batch(axis: int, x: ir.Value) -> int:
    rank = len(dims(x))
    if axis % rank == 0:
        raise Unlike("it takes samples out of the batch")
    return axis % rank


def _split(node: ir.Node, reading: Reading) -> Sequence[Found]:
    x = operand(node, 0)
    axis = _behind_batch(int(attributes_of(node)["axis"]), x)
    sizes = [dims(value)[axis] for value in node.outputs]
    if any(isinstance(size, str) for size in sizes):
        raise Unlike("the sizes of its parts are not known")
    fields = {"axis": axis, **({"parts": len(sizes)} if len(set(sizes)) == 1 else {"sizes": tuple(sizes)})}
    used = [place for place, value in enumerate(node.outputs) if reading.users(value) or value.name in reading.outputs]
    return [Found("split", [x], node.outputs[place], {**fields, "take": place}) for place in used]


def _joined(node: ir.Node, reading: Reading) -> Found:
    sources = [operand(node, position) for position in range(len(node.inputs))]
    if not all(reading.region.fed(value) for value in sources):
        return _class_token(node, reading)
    axis, rank = int(attributes_of(node)["axis"]), len(dims(sources[0]))
    if axis % rank == 0:
        raise Unlike("it joins samples of different batches")
    return Found("concat", sources, node.outputs[0], {"axis": axis if axis == -1 and rank > 2 else axis % rank})


def _class_token(node: ir.Node, reading: Reading) -> Found:
    """A learned vector in front of each sequence."""
    token, x = operand(node, 0), operand(node, len(node.inputs) - 1)
    shape = dims(x)
    if len(node.inputs) != 2 or not reading.region.fed(x) or not reading.learned(token) or attributes_of(node)["axis"] != 1:
        raise Unlike("one of its operands is a constant")
    extents = {str(dim): 2 for value in reading.inputs for dim in dims(value)}
    made = Trial(reading.opset, extents).run(token, {})
    if made is None or len(shape) != 3 or made.shape[1:] != (1, shape[2]) or np.any(made != made[:1]):
        raise Unlike("what it puts before its input is no vector of one position")
    return Found("class_token", [x], node.outputs[0], {}, {"weight": made[0, 0]})


def _reduced(kind: str, take: str) -> Rule:
    def rule(node: ir.Node, reading: Reading) -> Sequence[Found]:
        """Over all positions of [batch, channels, ...], or over time."""
        x, y, given = operand(node, 0), node.outputs[0], attributes_of(node)
        axes = reading.array(node.inputs[1]) if len(node.inputs) > 1 else None
        rank = len(dims(x))
        over = sorted(int(axis) % rank for axis in axes.ravel()) if axes is not None else []
        if over == [1] and not given["keepdims"]:
            return [Found("time_pool", [x], y, {"take": take})]
        if over and over == list(range(2, rank)):
            if given["keepdims"]:
                return [Found(kind, [x], y)]
            pooled = ir.Value(name=None)
            return [Found(kind, [x], pooled), Found("flatten", [pooled], y)]
        raise Unlike(
            f"a {take} is a layer where it is taken over all positions of [batch, channels, ...], or over axis 1, which goes"
        )

    return rule


RULES: Mapping[str, Rule] = {
    "Flatten": _reshaped,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Transpose": _transposed,
    "Slice": _sliced,
    "Split": _split,
    "Concat": _joined,
    "ReduceMean": _reduced("global_average_pool", "mean"),
    "ReduceMax": _reduced("global_max_pool", "max"),
}
