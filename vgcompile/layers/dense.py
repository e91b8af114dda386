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
        fans = {"fan_in": extent(shape, -1), "fan_out": self.units}
        weight = site.parameter("weight", (fans["fan_in"], self.units), self.init.weight, **fans)
        bias = site.parameter("bias", (self.units,), self.init.bias, **fans) if self.bias else None
        if len(shape) == 2:
            return self.activate(op, op.Gemm(x, weight, bias))
        y = op.MatMul(x, weight)
        return self.activate(op, y if bias is None else op.Add(y, bias))
