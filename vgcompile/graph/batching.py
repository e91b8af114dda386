"""Which axis of each input counts the samples: the first one, but for files that put time there.

    nn.LSTM of PyTorch, exported     x [30, N, 8] -- Transpose, MatMul, ... --> LSTM     samples along axis 1 of x

What is asked for goes first. Then comes what an operator that goes step by step says of what it reads (`Through.samples` of its
row), followed back to the input through what keeps axes apart; then a name (``batch``, ``N``); then the symbol that counts
samples in another input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vgcompile.errors import ModelError, nearest
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import dims
from vgcompile.ops import lookup

NAMES = frozenset({"n", "b", "bs", "batch", "batchsize", "nbatch", "batchdim", "samples", "nsamples", "minibatch"})
PROBES = (2, 3, 5, 7, 11, 13)  # extents that differ, to see where each axis goes

Axes = tuple[int | None, ...]  # of each axis of a value, the axis of the input that it is


@dataclass(frozen=True)
class Samples:
    """The axis of one input, and why it is that one."""

    axis: int
    why: str


def sample_axes(data: Sequence[ir.Value], asked: Mapping[str, int] | int, path: str) -> tuple[dict[str, int], list[str]]:
    """The axis of each input that counts samples, and notes on those that are not the first and were not ``asked`` for: by name,
    or one of all inputs that have it.

    Raises ModelError for an input that is asked about and is none, and for an axis that it does not have.
    """
    if isinstance(asked, int):
        asked = {str(value.name): asked for value in data if len(dims(value)) > asked}
    _require(data, asked, path)
    found = {str(value.name): Samples(asked[str(value.name)], "") for value in data if value.name in asked}
    for value in data:
        if value.name not in found and (known := _by_operator(value) or _by_name(value)) is not None:
            found[str(value.name)] = known
    symbols = {dims(value)[found[str(value.name)].axis]: value for value in data if str(value.name) in found}
    for value in data:
        shared = [axis for axis, dim in enumerate(dims(value)) if isinstance(dim, str) and dim in symbols]
        if value.name not in found and shared:
            found[str(value.name)] = Samples(shared[0], f"it counts those of {symbols[dims(value)[shared[0]]].name!r}")
    notes = [
        f"{path}: axis {known.axis} of {name!r} counts the samples, for {known.why}; --batch-axis {name}=0 takes the first one"
        for name, known in found.items()
        if known.axis and known.why
    ]
    return {name: known.axis for name, known in found.items()}, notes


def _require(data: Sequence[ir.Value], asked: Mapping[str, int], path: str) -> None:
    ranks = {str(value.name): len(dims(value)) for value in data}
    for name, axis in asked.items():
        if name not in ranks:
            hint = nearest(name, ranks) or f"its inputs are {', '.join(ranks) or 'none'}"
            raise ModelError(f"{path}: --batch-axis {name}={axis}: no such input; {hint}")
        if not 0 <= axis < ranks[name]:
            raise ModelError(f"{path}: --batch-axis {name}={axis}: the axes of {name!r} are 0 to {ranks[name] - 1}")


def _by_name(value: ir.Value) -> Samples | None:
    plain = [str(dim).lower().replace("_", "").replace("-", "") for dim in dims(value)]
    named = [axis for axis, dim in enumerate(plain) if dim in NAMES]
    return Samples(named[0], f"it is called {dims(value)[named[0]]!r}") if named else None


def _by_operator(value: ir.Value) -> Samples | None:
    """What the first operator that goes step by step says, of those that read it or what has its axes."""
    waiting: list[tuple[ir.Value, Axes]] = [(value, tuple(range(len(dims(value)))))]
    seen = {value}
    while waiting:
        there, axes = waiting.pop(0)
        for node, position in ((use.node, use.idx) for use in there.uses()):
            row = lookup(node.op_type, node.domain)
            through = row.through(attributes_of(node)) if row is not None and row.through is not None else None
            axis = axes[through.samples[position]] if through is not None and position in through.samples else None
            if axis is not None:
                return Samples(axis, f"{node.op_type} reads it so")
            kept = _behind(node, position, axes)
            if kept is not None and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append((node.outputs[0], kept))
    return None


def _behind(node: ir.Node, position: int, axes: Axes) -> Axes | None:
    """Where the axes of an operand are in what a node gives out: by trial where it rearranges them, else where they stood if all
    extents but one are as they were. None where that does not tell."""
    row, case = lookup(node.op_type, node.domain), case_of(node)
    given, made = case.shapes[position], case.outputs[0]
    if row is None or row.blocked or given is None or made is None:
        return None
    if not row.rearranges:
        return axes if len(given) == len(made) and sum(a != b for a, b in zip(given, made, strict=True)) <= 1 else None
    if row.numpy is None or position or len(given) > len(PROBES):
        return None
    try:
        moved = row.numpy(np.zeros(PROBES[: len(given)]), *case.values[1:], **case.attributes)
    except (ValueError, TypeError, IndexError):
        return None
    return tuple(axes[PROBES.index(extent)] if extent in PROBES else None for extent in np.shape(moved))
