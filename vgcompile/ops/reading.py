"""The table read with NumPy: a rule's ``op`` namespace whose operators compute, in float64.

    slope = row.derivatives[0](NUMPY, x, y)        # the same expression that emits nodes under an Emitter

At the ends and turning points of an interval such a slope gives the exact range of slopes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgcompile.interval import WHOLE, Interval, corners, image
from vgcompile.ops.op import Array, Case, Op, at


class NumpyReading:
    """``op.Exp(x)`` is the NumPy reading of the row ``Exp``. Raises AttributeError for a row without one."""

    def __init__(self, table: Mapping[str, Op]) -> None:
        self._table = table

    def __getattr__(self, operator: str) -> Any:
        row = self._table.get(operator)
        if row is None or row.numpy is None:
            raise AttributeError(f"operator {operator} has no NumPy reading")
        return row.numpy


def slope(op: NumpyReading, row: Op, position: int, operands: tuple[Array, ...], **attributes: Any) -> Array:
    """d output / d operand of an elementwise row at given operands, elementwise."""
    derivative = row.derivatives[position]
    assert derivative is not None and row.numpy is not None
    return derivative(op, *operands, row.numpy(*operands, **attributes), **attributes)  # type: ignore[no-any-return]


def slope_range(op: NumpyReading, row: Op, position: int, case: Case) -> Interval:
    """Every value that the slope of an elementwise row takes on the case's ranges (an absent range is the whole line).

    Exact for one input. For several, the row's own ``slope`` where it has one; else the derivative is monotone in each
    operand taken alone.
    """
    if row.slope is not None:
        return row.slope(case, position)
    operands = [r or WHOLE for r in case.ranges]
    if len(operands) == 1:
        where = at(row.kinks, case.attributes) + at(row.turns, case.attributes)
        return image(lambda x: slope(op, row, position, (x,), **case.attributes), operands[0], where, row.defined, row.steps)
    return corners(lambda *x: slope(op, row, position, x, **case.attributes), operands)
