"""Convolution over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vgcompile.layers.activation import Activated
from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Site, Unfit, extent
from vgcompile.layers.part import Positive
from vgcompile.layers.windows import Padding, Pair, require_image, window

if TYPE_CHECKING:
    import onnx_ir as ir


class Conv2d(Activated):
    """[batch, channels, height, width] -> [batch, filters, ...], weight [filters, channels / groups, *kernel]."""

    kind: Literal["conv2d"]
    filters: Positive = Field(description="channels of the output")
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    groups: Positive = 1
    bias: bool = True
    init: Init = Init()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        require_image(self.kind, shape)
        channels = extent(shape, 1)
        if channels % self.groups or self.filters % self.groups:
            raise Unfit(
                f"groups: {self.groups} must divide the input's {channels} channels and the {self.filters} filters",
                "choose groups that divide both",
            )
        taps = self.kernel[0] * self.kernel[1]
        fans = {"fan_in": channels // self.groups * taps, "fan_out": self.filters * taps}
        weight = site.parameter(
            "weight", (self.filters, channels // self.groups, *self.kernel), self.init.weight, **fans, parts=self.groups
        )
        bias = site.parameter("bias", (self.filters,), self.init.bias, **fans) if self.bias else None
        y = op.Conv(
            x,
            weight,
            bias,
            **window(shape, self.kernel, self.stride, self.padding, self.dilation),
            dilations=list(self.dilation),
            group=self.groups,
        )
        return self.activate(op, y)
