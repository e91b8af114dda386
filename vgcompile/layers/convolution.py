"""Convolutions over one to three spatial axes; the kind says how many.

A field over the axes is one number or a list with one entry for each; the rank is checked where it is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from vgcompile.layers.layer import Site, Unfit, extent
from vgcompile.layers.part import Natural, Positive
from vgcompile.layers.weighted import Weighted
from vgcompile.layers.windows import Padding, PerAxis, Window, ends, per_axis, spatial, window

if TYPE_CHECKING:
    import onnx_ir as ir


class _Convolution(Weighted):
    kernel: PerAxis
    stride: PerAxis = 1
    padding: Padding = "valid"
    dilation: PerAxis = 1

    @field_validator("kernel", "stride", "padding", "dilation", "output_padding", check_fields=False)
    @classmethod
    def _of_rank(cls, given: Any, info: ValidationInfo) -> Any:
        if isinstance(given, tuple) and "kind" in info.data:
            try:
                per_axis(f"{info.field_name!r}", given, _rank(info.data["kind"]))
            except Unfit as unfit:
                raise ValueError(unfit.message) from None
        return given

    def _channels(self, site: Site, x: ir.Value) -> int:
        """Raises Unfit where x is not [batch, channels, ...] of the kind's rank."""
        spatial(self.kind, site.shape(x), _rank(self.kind))
        return extent(site.shape(x), 1)

    def _window(self, site: Site, x: ir.Value) -> Window:
        return window(site.shape(x)[2:], self.kernel, self.stride, self.padding, self.dilation)


def _rank(kind: str) -> int:
    """2 of ``conv2d``."""
    return int(kind[-2])


class Conv(_Convolution):
    """[batch, channels, ...] -> [batch, filters, ...], weight [filters, channels / groups, *kernel]."""

    kind: Literal["conv1d", "conv2d", "conv3d"]
    filters: Positive = Field(description="channels of the output")
    groups: Positive = 1

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        channels = self._channels(site, x)
        _divided(self.groups, channels, self.filters)
        at = self._window(site, x)
        fans = {"fan_in": channels // self.groups * at.taps, "fan_out": self.filters * at.taps}
        shape = (self.filters, channels // self.groups, *at.kernel)
        weight = self.weight(site, "weight", shape, unit_axis=0, **fans, parts=self.groups)
        bias = self.offset(site, self.filters, **fans)
        return self.activate(site, site.op.Conv(x, weight, bias, **at.attributes, group=self.groups))


class DepthwiseConv(_Convolution):
    """Each channel by itself, into ``multiplier`` channels: weight [channels x multiplier, 1, *kernel]."""

    kind: Literal["depthwise_conv1d", "depthwise_conv2d", "depthwise_conv3d"]
    multiplier: Positive = Field(default=1, description="channels that each channel becomes")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        channels = self._channels(site, x)
        at = self._window(site, x)
        filters = channels * self.multiplier
        fans = {"fan_in": at.taps, "fan_out": filters * at.taps}
        weight = self.weight(site, "weight", (filters, 1, *at.kernel), unit_axis=0, **fans, parts=channels)
        bias = self.offset(site, filters, **fans)
        return self.activate(site, site.op.Conv(x, weight, bias, **at.attributes, group=channels))


class SeparableConv(_Convolution):
    """A depthwise convolution without a bias, then one of size 1 over all channels (Chollet 2017), with nothing between."""

    kind: Literal["separable_conv1d", "separable_conv2d", "separable_conv3d"]
    filters: Positive = Field(description="channels of the output")
    multiplier: Positive = Field(default=1, description="channels that each channel becomes in between")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        channels = self._channels(site, x)
        at = self._window(site, x)
        between = channels * self.multiplier
        each = self.weight(
            site,
            "depthwise/weight",
            (between, 1, *at.kernel),
            unit_axis=0,
            fan_in=at.taps,
            fan_out=between * at.taps,
            parts=channels,
        )
        fans = {"fan_in": between, "fan_out": self.filters}
        point = (self.filters, between, *(1 for _ in at.kernel))
        across = self.weight(site, "pointwise/weight", point, unit_axis=0, **fans)
        spread = op.Conv(x, each, None, **at.attributes, group=channels)
        return self.activate(site, op.Conv(spread, across, self.offset(site, self.filters, **fans)))


class ConvTranspose(_Convolution):
    """The adjoint of a convolution: each element spreads a kernel over the output, weight [channels, filters / groups, *kernel].

    An axis becomes (size - 1) stride + dilation (kernel - 1) + 1 + output_padding, less the padding; ``same``: size stride. An
    output element sees channels / groups x kernel / stride inputs on the average, which is its fan_in.
    """

    kind: Literal["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
    filters: Positive = Field(description="channels of the output")
    groups: Positive = 1
    output_padding: Natural | tuple[Natural, ...] = Field(default=0, description="more elements at the end of each axis")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        channels = self._channels(site, x)
        _divided(self.groups, channels, self.filters)
        at, more = self._spread()
        seen = max(at.taps // math.prod(at.stride), 1)
        fans = {"fan_in": channels // self.groups * seen, "fan_out": self.filters // self.groups * at.taps}
        weight = self.weight(
            site, "weight", (channels, self.filters // self.groups, *at.kernel), unit_axis=1, **fans, parts=self.groups
        )
        bias = self.offset(site, self.filters, **fans)
        y = site.op.ConvTranspose(x, weight, bias, **at.attributes, output_padding=list(more), group=self.groups)
        if any(isinstance(size, int) and size < 1 for size in site.shape(y)[2:]):
            raise Unfit("the padding leaves nothing of the output", "choose less padding")
        return self.activate(site, y)

    def _spread(self) -> tuple[Window, tuple[int, ...]]:
        """The window with its padding, and what is added at the end of each axis."""
        rank = _rank(self.kind)
        kernel, stride, dilation, more = (
            per_axis(name, getattr(self, name), rank) for name in ("kernel", "stride", "dilation", "output_padding")
        )
        for extra, step, gap in zip(more, stride, dilation, strict=True):
            if extra and extra >= max(step, gap):
                raise Unfit(f"output_padding {extra} must be less than the stride {step}, or than the dilation")
        if self.padding != "same":
            return Window(kernel, stride, dilation, *ends(0 if self.padding == "valid" else self.padding, rank)), more
        if any(more):
            raise Unfit("padding 'same' sets the output's size itself", "leave out output_padding")
        beyond = [gap * (taps - 1) + 1 - step for gap, taps, step in zip(dilation, kernel, stride, strict=True)]
        before = tuple(max(cells, 0) // 2 for cells in beyond)
        after = tuple(max(cells, 0) - first for cells, first in zip(beyond, before, strict=True))
        return Window(kernel, stride, dilation, before, after), tuple(max(-cells, 0) for cells in beyond)


def _divided(groups: int, channels: int, filters: int) -> None:
    """Raises Unfit where channels or filters do not fall into so many groups."""
    if channels % groups or filters % groups:
        raise Unfit(
            f"groups: {groups} must divide the input's {channels} channels and the {filters} filters",
            "choose groups that divide both",
        )
