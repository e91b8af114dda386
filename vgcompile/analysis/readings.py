"""A value as a function of a Gaussian base, kept as its values at the base's quadrature nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.ops import lookup
from vgcompile.ops.op import at
from vgcompile.quadrature import Gaussian, Pairs
from vgcompile.signal import Signal, Table

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Base:
    """A Gaussian value, with the correlation of two of its positions and of two of its samples."""

    value: ir.Value
    signal: Signal
    nodes: Gaussian
    within: float
    across: float

    def read(self, f: Array) -> Table | None:
        """What a function of the value makes of its rows and columns."""
        table, variance, free = self.signal.table, self.signal.variance, self.signal.mean**2
        if table is None:
            return None
        row, column = ((pair - free) / variance if variance > 0.0 else 1.0 for pair in (table.row, table.column))
        return replace(table, row=self.nodes.pair(f, row), column=self.nodes.pair(f, column))


@dataclass(frozen=True)
class Reading:
    """A value as a function of a base; without a base it is a known constant."""

    base: Base | None
    at_nodes: Array


def alignment_after(base: Base, f: Pairs, across: float) -> float:
    """E[cos^2] between two samples' centred vectors after an elementwise function.

    It is the dual of f at correlations one root mean square above and below the mean one.
    """
    if f.square - across <= 1e-12 * f.square:
        return 0.0
    step = (1.0 - base.across) * math.sqrt(max(base.signal.alignment, 0.0))
    sides = (f.at(base.across + step) - across, f.at(base.across - step) - across)
    return min(0.5 * sum(side * side for side in sides) / (f.square - across) ** 2, 1.0)


def kinks_of_consumers(graph: ir.Graph) -> dict[ir.Value, tuple[float, ...]]:
    """Where the functions that a value is put into have corners."""
    found: dict[ir.Value, set[float]] = {}
    for node in graph:
        row = lookup(node.op_type, node.domain)
        source = node.inputs[0] if node.inputs else None
        if row is None or not row.kinks or source is None:
            continue
        found.setdefault(source, set()).update(at(row.kinks, attributes_of(node)))
    return {value: tuple(sorted(kinks)) for value, kinks in found.items()}


def correlations(signal: Signal) -> tuple[float, float]:
    if signal.variance <= 1e-14 * signal.square:
        return (1.0, 1.0)
    square = signal.mean**2
    return ((signal.within - square) / signal.variance, (signal.across - square) / signal.variance)
