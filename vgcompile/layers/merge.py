"""Layers that join several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal

from vgcompile.layers.activation import Activated
from vgcompile.layers.layer import Layer, Site, Unfit, show
from vgcompile.rules.shapes import UNEQUAL_SHAPES

if TYPE_CHECKING:
    import onnx_ir as ir


class Add(Activated):
    """The sum of inputs of one and the same shape."""

    takes: ClassVar[tuple[int, int | None]] = (2, None)
    kind: Literal["add"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        if len({site.shape(x) for x in inputs}) > 1:
            raise Unfit("a sum needs equal shapes", rule=UNEQUAL_SHAPES)
        return self.activate(site.op, reduce(site.op.Add, inputs))


class Concat(Layer):
    """The inputs side by side along ``axis``; all other axes must agree."""

    takes: ClassVar[tuple[int, int | None]] = (2, None)
    kind: Literal["concat"]
    axis: int = 1

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        shapes = [site.shape(x) for x in inputs]
        if not -len(shapes[0]) < self.axis < len(shapes[0]) or self.axis == 0:
            raise Unfit(
                f"axis {self.axis} is not an axis of {show(shapes[0])} behind the batch", "use 1 for features or channels"
            )
        axis = self.axis % len(shapes[0])
        if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
            raise Unfit(f"concat along axis {self.axis} needs shapes that agree elsewhere", rule=UNEQUAL_SHAPES)
        return site.op.Concat(*inputs, axis=axis)  # type: ignore[no-any-return]
