"""What a reduction reduces: axes that are known, none, all, or those that an operand names when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.ops.op import Array, Case
from vgcompile.ops.shape import constant, extents


@dataclass(frozen=True)
class Over:
    """What a node reduces: axes counted from the front, or a value that only a run knows."""

    axes: Any
    noop: int = 1

    def total(self, op: Any, x: Any) -> Any:
        """The sum over the axes, which stay at extent 1."""
        return op.ReduceSum(x, self.axes, keepdims=1, noop_with_empty_axes=self.noop)


def axes_of(case: Case) -> tuple[int, ...]:
    """The axes that a reduction node reduces, counted from the front; raises NotImplementedError where only a run tells."""
    shape, given = case.shapes[0], (*case.values, None)[1]
    computed = len(case.shapes) > 1 and case.shapes[1] not in (None, (0,)) and given is None
    if shape is None or computed:
        raise NotImplementedError("the reduced axes are known when it runs")
    return counted(len(shape), given, case.attributes["noop_with_empty_axes"])


def counted(rank: int, axes: Array | None, noop: int) -> tuple[int, ...]:
    """Axes counted from the front; none of them are all, unless ``noop``."""
    if axes is None or np.size(axes) == 0:
        return () if noop else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in np.ravel(axes)))


def over_of(x: Any, axes: Any, noop: int) -> Over:
    """Without axes, none or all; an operand of axes may be known to be empty and still come in at run time."""
    if axes is not None and constant(axes) is None and extents(axes) != (0,):
        return Over(axes, noop)
    return Over(counted(len(x.shape), None if axes is None else constant(axes), noop))


def _kept_shape(op: Any, x: Any, axes: Any, noop: int) -> Any:
    """The shape of ``x`` with extent 1 along axes that only a run knows; none of them are all, unless ``noop``."""
    count = extents(axes)[0]
    ones = [1] * count if isinstance(count, int) else op.Expand(1, op.Shape(axes))
    kept = op.ScatterElements(op.Shape(x), axes, ones, axis=0)
    return kept if noop or isinstance(count, int) else op.Where(op.Equal(op.Size(axes), 0), 1, kept)


def restored(op: Any, x: Any, over: Over, *narrow: Any) -> tuple[Any, ...]:
    """Results of a reduction with their reduced axes given back at extent 1, the leading ones only where broadcasting does not
    do it."""
    if not isinstance(over.axes, tuple):
        shape = _kept_shape(op, x, over.axes, over.noop)
        return tuple(op.Reshape(value, shape, allowzero=1) for value in narrow)
    leading = over.axes == tuple(range(len(over.axes)))
    return narrow if leading else tuple(op.Unsqueeze(value, over.axes) for value in narrow)


def ranked(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, **_: Any) -> Any:
    """Reduced axes that stay at extent 1 keep the rank, whichever they are; those that go are counted by the operand's extent."""
    count = 0 if keepdims else None if axes is None or axes.shape is None else extents(axes)[0]
    if x.shape is None or not isinstance(count, int):
        return ir.Value()
    rank = len(x.shape)
    left = 0 if not (keepdims or count or noop_with_empty_axes) else rank - count
    return ir.Value(shape=ir.Shape([None] * max(left, 0)))
