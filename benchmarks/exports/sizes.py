"""Nodes of the joint graph beside those of the forward graph, and beside onnx-ad's.

Counted are the nodes of the main graph and of the graphs inside it. ``exported`` is the file without its Constant nodes,
``normalized`` what we differentiate, in standard operators; ``ours`` is the portable profile, ``fast`` the other one. The other
joint graph has the same outputs: it is given weights as inputs and every shape as a number, as it demands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ad
import onnx_ir as ir

from benchmarks.exports.checking import CACHE, differentiated, file_of
from benchmarks.exports.exporting import Architecture, batch
from vgcompile.errors import VgcompileError
from vgcompile.graph.load import trainable
from vgcompile.graph.normalize import normalized
from vgcompile.graph.skeleton import nodes_of
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize

OFTEN = 8  # backward operators that a line names
ROLE = "vgcompile.role"


@dataclass(frozen=True)
class Size:
    name: str
    exported: int
    normalized: int = 0
    ours: int | None = None
    fast: int | None = None
    theirs: int | None = None
    refused: str = ""
    refused_theirs: str = ""
    backward: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return None if self.ours is None else self.ours / self.normalized


def table(chosen: Sequence[Architecture], form: str | None, show: bool) -> list[Size]:
    heads = f"{'exported':>9}{'normal':>8}{'ours':>7}{'ratio':>7}{'fast':>7}{'onnx-ad':>9}{'ours/its':>9}"
    print(f"{'model':24}{heads}  most frequent backward operators")
    found = []
    for entry in chosen:
        row = size(entry, form, show)
        found.append(row)
        numbers = f"{row.ours or '-':>7}{f'{row.ratio:.2f}' if row.ratio else '-':>7}{row.fast or '-':>7}{row.theirs or '-':>9}"
        beside = f"{row.ours / row.theirs:.2f}" if row.ours and row.theirs else "-"
        often = " ".join(f"{operator}:{count}" for operator, count in list(row.backward.items())[:OFTEN])
        print(f"{row.name:24}{row.exported:>9}{row.normalized or '-':>8}{numbers}{beside:>9}  {often or row.refused}", flush=True)
        if row.refused_theirs:
            print(f"{'':24}onnx-ad: {row.refused_theirs[:200]}")
    both = [row for row in found if row.ours and row.theirs]
    print(f"ours / forward: {_mean([row.ratio for row in found if row.ratio])}")
    print(f"ours / forward, where both: {_mean([row.ratio for row in both if row.ratio])}")
    print(f"onnx-ad / forward, where both: {_mean([(row.theirs or 0) / row.normalized for row in both])}")
    print(f"ours / onnx-ad: {_mean([(row.ours or 0) / (row.theirs or 1) for row in both])}")
    return found


def _mean(ratios: Sequence[float]) -> str:
    """Geometric, and of how many."""
    return f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} ({len(ratios)} models)" if ratios else "-"


def size(entry: Architecture, form: str | None = None, show: bool = False, cache: Path | None = CACHE) -> Size:
    form = form or entry.form
    proto = file_of(entry, form, cache)
    exported = sum(node.op_type != "Constant" for node in nodes_of(proto.graph))
    try:
        given = normalized(proto)
        joint = differentiated(proto, form, "portable").model
        fast = differentiated(proto, form, "fast").model
    except VgcompileError as refused:
        return Size(entry.name, exported, refused=str(refused))
    names = trainable(given.model, given.initializers)
    forward = optimize(lower(given.model, "portable"))
    theirs, why = _onnx_ad(forward, names, entry, form)
    nodes = list(nodes_of(joint.graph))
    if show:
        print(listing(joint))
    back = Counter(node.op_type for node in nodes if any(p.key == ROLE and p.value == "backward" for p in node.metadata_props))
    return Size(
        entry.name,
        exported,
        len(list(forward.graph.all_nodes())),
        len(nodes),
        len(list(nodes_of(fast.graph))),
        theirs,
        refused_theirs=why,
        backward=dict(back.most_common()),
    )


def _onnx_ad(model: ir.Model, parameters: Sequence[str], entry: Architecture, form: str) -> tuple[int | None, str]:
    """The size of onnx-ad's joint graph of the same normalized model, or what it says against it."""
    try:
        joint = onnx_ad.reverse(_static(model.clone(), parameters, entry, form), layout="onnx")
    except Exception as error:  # it refuses with several kinds, and crashes with others
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return sum(node.op_type != "Constant" for node in nodes_of(joint.graph)), ""


def _static(model: ir.Model, parameters: Sequence[str], entry: Architecture, form: str) -> onnx.ModelProto:
    """Every shape a number, parameters as plain inputs."""
    feeds = batch(entry, max(entry.batches), form)
    for value in model.graph.inputs:
        if value.name in feeds:
            value.shape = ir.Shape(feeds[value.name].shape)
    listed = {value.name for value in model.graph.inputs}
    for name in parameters:
        value = model.graph.initializers.pop(name)
        if name not in listed:
            model.graph.inputs.append(value)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    return onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)


def listing(joint: onnx.ModelProto) -> str:
    """One line a node: backward ones are marked."""
    shapes = {value.name: _shape(value) for value in (*joint.graph.value_info, *joint.graph.output, *joint.graph.input)}
    shapes |= {tensor.name: f"{list(tensor.dims)}" for tensor in joint.graph.initializer}
    lines = []
    for node in joint.graph.node:
        role = next((p.value for p in node.metadata_props if p.key == ROLE), "forward")
        operands = ", ".join(f"{name}{shapes.get(name, '')}" for name in node.input)
        made = ", ".join(f"{name}{shapes.get(name, '')}" for name in node.output)
        lines.append(f"  {'B' if role == 'backward' else ' '} {node.op_type:22} {operands}  ->  {made}")
    return "\n".join(lines)


def _shape(value: onnx.ValueInfoProto) -> str:
    return "[" + ", ".join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim) + "]"
