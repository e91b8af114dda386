"""Normalization: over the batch, over a sample, over its groups of channels, by its root mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from vgcompile.layers.activation import Activated
from vgcompile.layers.initialization import ONES, AnyDistribution, NormalizationInit
from vgcompile.layers.layer import Site, Unfit, behind_batch, extent
from vgcompile.layers.part import Part, Positive, PositiveFloat

if TYPE_CHECKING:
    import onnx_ir as ir


class _Normalization(Activated):
    epsilon: PositiveFloat = 1e-5
    init: NormalizationInit = NormalizationInit()

    def _scale_and_bias(self, site: Site, shape: Sequence[int]) -> tuple[ir.Value, ir.Value]:
        return site.parameter("scale", shape, self.init.scale), site.parameter("bias", shape, self.init.bias)

    def _channels(self, site: Site, x: ir.Value, least: int) -> int:
        """Raises Unfit where x has no channels, or nothing beside them to normalize over."""
        if len(site.shape(x)) < least:
            raise Unfit(f"{self.kind} needs an input [batch, channels, {'positions, ' if least > 2 else ''}...]")
        return extent(site.shape(x), 1)


class BatchNorm(_Normalization):
    """Each channel (axis 1) to mean 0 and variance 1 over batch and positions, then scaled and shifted (Ioffe and Szegedy 2015).

    In training mode the statistics are those of the batch, and the running ones are updated beside them.
    """

    kind: Literal["batch_norm"]
    momentum: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.9, description="share of the running statistics that stays (PyTorch's 0.1)"
    )

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        channels = self._channels(site, x, least=2)
        y = site.op.BatchNormalization(
            x,
            *self._scale_and_bias(site, (channels,)),
            site.state("running_mean", (channels,), np.zeros),
            site.state("running_var", (channels,), np.ones),
            outputs=3 if site.training else 1,
            epsilon=self.epsilon,
            momentum=self.momentum,
            training_mode=int(site.training),
        )
        return self.activate(site, y[0] if site.training else y)


class LayerNorm(_Normalization):
    """Each sample, over the axes from ``axis`` on, to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016)."""

    kind: Literal["layer_norm"]
    axis: int = -1

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        scale, bias = self._scale_and_bias(site, _from_axis(site, x, self.axis))
        return self.activate(site, site.op.LayerNormalization(x, scale, bias, axis=self.axis, epsilon=self.epsilon))


class GroupNorm(_Normalization):
    """Each sample's channels, in so many groups, over channels and positions; then scaled and shifted (Wu and He 2018)."""

    kind: Literal["group_norm"]
    groups: Positive

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        channels = self._channels(site, x, least=2)
        if channels % self.groups:
            raise Unfit(f"groups: {self.groups} must divide the input's {channels} channels", "choose a divisor of the channels")
        scale, bias = self._scale_and_bias(site, (channels,))
        y = site.op.GroupNormalization(x, scale, bias, epsilon=self.epsilon, num_groups=self.groups)
        return self.activate(site, y)


class InstanceNorm(_Normalization):
    """Each channel of each sample over its positions, then scaled and shifted (Ulyanov et al. 2016)."""

    kind: Literal["instance_norm"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        scale, bias = self._scale_and_bias(site, (self._channels(site, x, least=3),))
        return self.activate(site, site.op.InstanceNormalization(x, scale, bias, epsilon=self.epsilon))


class ScaleInit(Part):
    scale: AnyDistribution = ONES


class RmsNorm(Activated):
    """Each sample, over the axes from ``axis`` on, over sqrt(mean(x^2) + epsilon), then scaled (Zhang and Sennrich 2019)."""

    kind: Literal["rms_norm"]
    axis: int = -1
    epsilon: PositiveFloat = 1e-5
    init: ScaleInit = ScaleInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        scale = site.parameter("scale", _from_axis(site, x, self.axis), self.init.scale)
        return self.activate(site, site.op.RMSNormalization(x, scale, axis=self.axis, epsilon=self.epsilon, stash_type=1))


def _from_axis(site: Site, x: ir.Value, axis: int) -> tuple[int, ...]:
    """The extents of the axes from ``axis`` on."""
    shape = site.shape(x)
    return tuple(extent(shape, place) for place in range(behind_batch(axis, shape), len(shape)))
