"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vgcompile.layers.activation import Activated
from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Site, Unfit, extent
from vgcompile.layers.part import Positive

if TYPE_CHECKING:
    import onnx_ir as ir


class Dense(Activated):
    """x W + b over the last axis, W of shape [in, units]: one Gemm for [batch, in], MatMul and Add for [batch, positions, in]."""

    kind: Literal["dense"]
    units: Positive = Field(description="size of the output's last axis")
    bias: bool = True
    init: Init = Init()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if len(shape) not in (2, 3):
            raise Unfit("dense needs an input [batch, features] or [batch, positions, features]", "put flatten before it")
        return self.activate(op, affine(site, x, self.units, self.init, bias=self.bias))


def affine(site: Site, x: ir.Value, units: int, init: Init, *, bias: bool = True, part: str = "") -> ir.Value:
    """x W + b over the last axis; of a layer that holds several, ``part`` names the one: ``<layer>/<part>/weight``."""
    shape, prefix = site.shape(x), f"{part}/" if part else ""
    fans = {"fan_in": extent(shape, -1), "fan_out": units}
    weight = site.parameter(f"{prefix}weight", (fans["fan_in"], units), init.weight, **fans)
    added = site.parameter(f"{prefix}bias", (units,), init.bias, **fans) if bias else None
    with site.op.scope(part) as op:
        if len(shape) == 2:
            return op.Gemm(x, weight, added)  # type: ignore[no-any-return]
        y = op.MatMul(x, weight)
        return y if added is None else op.Add(y, added)  # type: ignore[no-any-return]
