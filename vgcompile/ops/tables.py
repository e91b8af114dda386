"""Values of rows and columns of positions (``Signal.table``): what sums make of them, and what a mask leaves of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from vgcompile.ops.attention_weights import seen_by
from vgcompile.ops.op import Array, Case
from vgcompile.signal import Signal, Table, constant, independent_sum, replace

LOW = -1e3  # added to a score, it leaves a weight of e^-1000: masks are written as -inf, -1e4, -1e9 or the least number of a type


def low_places(value: Array | None) -> Array | None:
    """Where a known array holds minus infinity or, beside other entries of the row, as good as that; None of one without."""
    if value is None or value.dtype.kind != "f" or not value.size:
        return None
    low = value <= LOW
    hidden = np.isneginf(value) if value.ndim == 0 else low & (~low.all(-1, keepdims=True) | np.isneginf(value))
    return hidden if hidden.any() else None


def shown(value: Array, low: Array) -> Signal:
    """A known array at the places where it is no minus infinity."""
    rest = value[~low].astype(np.float64)
    return constant(float(rest.mean()), float((rest * rest).mean())) if rest.size else constant(0.0, 0.0)


def masked(case: Case, x: Signal, hidden: Array) -> Signal:
    """``x`` with minus infinity in places of the output.

    Raises NotImplementedError where the output's rows and columns are not known.
    """
    dims = case.outputs[0] or ()
    if len(dims) < 2 or any(isinstance(dim, str) for dim in dims[-2:]):
        raise NotImplementedError("a mask is predicted for a known number of positions")
    seen = seen_by(int(dims[-2]), int(dims[-1]), hidden)
    table = x.table or Table(x.within, x.within)
    return replace(x, table=replace(table, open=seen if table.open is None or seen is None else table.open & seen))


def summed_up(case: Case, signals: Sequence[Signal]) -> Signal:
    """The sum of independent operands, one of which may have rows and columns."""
    total = reduce(independent_sum, [_at_positions(case, i, x) for i, x in enumerate(signals)])
    if all(x.table is None for x in signals):
        return total
    neither = row = column = total.mean**2
    for i, x in enumerate(signals):
        far = x.mean**2 if _drawn_once(x) else x.within
        high, wide = (_changes(case, i, axis) for axis in (-2, -1))
        own = x.table or Table(far if wide else x.square, far if high else x.square)
        apart = x.within if x.table is not None else far if wide or high else x.square
        row, column, neither = (sum_ + y - x.mean**2 for sum_, y in ((row, own.row), (column, own.column), (neither, apart)))
    seen = [x.table.open for x in signals if x.table is not None and x.table.open is not None]
    table = Table(row, column, reduce(np.logical_and, seen) if seen else None)
    return replace(total, within=neither, table=table)


def _at_positions(case: Case, operand: int, x: Signal) -> Signal:
    """A parameter with entries of its own for each position and feature, as learned places have: no two positions share it."""
    apart = len(case.outputs[0] or ()) == 3 and _changes(case, operand, -1) and _changes(case, operand, -2)
    return replace(x, within=x.mean**2) if apart and _drawn_once(x) else x


def _changes(case: Case, operand: int, axis: int) -> bool:
    """Whether an operand has entries of its own along an axis that is counted from the end."""
    dims = case.shapes[operand] or ()
    return -axis <= len(dims) and dims[axis] != 1


def _drawn_once(x: Signal) -> bool:
    return x.across >= x.square * (1.0 - 1e-12)
