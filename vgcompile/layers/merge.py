"""Layers that join several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vgcompile.layers.activation import Activated
from vgcompile.layers.layer import Layer, Shape, Site, Unfit, behind_batch
from vgcompile.rules.shapes import UNEQUAL_SHAPES

if TYPE_CHECKING:
    import onnx_ir as ir


class _Elementwise(Activated):
    takes: ClassVar[tuple[int, int | None]] = (2, None)
    broadcast: bool = Field(
        default=False, description="let axes of extent 1, and leading axes that lack, be repeated, as NumPy does"
    )

    def _fit(self, site: Site, inputs: Sequence[ir.Value], what: str) -> None:
        """Raises Unfit where the shapes differ, or do not even broadcast to one that has the batch."""
        shapes = [site.shape(x) for x in inputs]
        if len(set(shapes)) == 1:
            return
        if not self.broadcast:
            hint = "set broadcast: true to repeat axes of extent 1" if _broadcast(shapes) else ""
            raise Unfit(f"{what} needs equal shapes", hint, rule=UNEQUAL_SHAPES)
        common = _broadcast(shapes)
        if common is None or common[0] != max(shapes, key=len)[0]:
            raise Unfit(f"{what} with broadcast needs axes that are equal or 1, counted from the last one", rule=UNEQUAL_SHAPES)


def _broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """The shape that all broadcast to, a symbol equal to itself alone; None where there is none."""
    rank = max(map(len, shapes))
    common = []
    for axis in range(rank):
        found = {shape[axis - rank] for shape in shapes if rank - axis <= len(shape)} - {1}
        if len(found) > 1:
            return None
        common.append(found.pop() if found else 1)
    return tuple(common)


class Add(_Elementwise):
    """The sum of inputs of one and the same shape."""

    kind: Literal["add"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        self._fit(site, inputs, "a sum")
        return self.activate(site, reduce(site.op.Add, inputs))


class Multiply(_Elementwise):
    """The product, element by element, of inputs of one and the same shape."""

    kind: Literal["multiply"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        self._fit(site, inputs, "a product")
        return self.activate(site, reduce(site.op.Mul, inputs))


class Concat(Layer):
    """The inputs side by side along ``axis``; all other axes must agree."""

    takes: ClassVar[tuple[int, int | None]] = (2, None)
    kind: Literal["concat"]
    axis: int = 1

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        shapes = [site.shape(x) for x in inputs]
        axis = behind_batch(self.axis, shapes[0], "use 1 for features or channels")
        if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
            raise Unfit(f"concat along axis {self.axis} needs shapes that agree elsewhere", rule=UNEQUAL_SHAPES)
        return site.op.Concat(*inputs, axis=axis)  # type: ignore[no-any-return]
