"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vgcompile.layers.layer import Site, Unfit, extent
from vgcompile.layers.part import Positive
from vgcompile.layers.weighted import Weighted

if TYPE_CHECKING:
    import onnx_ir as ir


class Dense(Weighted):
    """x W + b over the last axis, W of shape [in, units]: one Gemm for [batch, in], MatMul and Add for [batch, ..., in]."""

    kind: Literal["dense"]
    units: Positive = Field(description="size of the output's last axis")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if len(shape) < 2:
            raise Unfit("dense needs an input [batch, ..., features]")
        fans = {"fan_in": extent(shape, -1), "fan_out": self.units}
        weight = self.weight(site, "weight", (fans["fan_in"], self.units), unit_axis=1, **fans)
        bias = self.offset(site, self.units, **fans)
        if len(shape) == 2:
            return self.activate(site, op.Gemm(x, weight, bias))
        y = op.MatMul(x, weight)
        return self.activate(site, y if bias is None else op.Add(y, bias))
