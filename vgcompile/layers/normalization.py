"""Normalization: batch and layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from vgcompile.layers.activation import Activated
from vgcompile.layers.initialization import NormalizationInit
from vgcompile.layers.layer import Site, Unfit, extent, show
from vgcompile.layers.part import PositiveFloat

if TYPE_CHECKING:
    import onnx_ir as ir


class BatchNorm(Activated):
    """Each channel (axis 1) to mean 0 and variance 1 over batch and positions, then scaled and shifted (Ioffe and Szegedy 2015).

    In training mode the statistics are those of the batch, and the running ones are updated beside them.
    """

    kind: Literal["batch_norm"]
    epsilon: PositiveFloat = 1e-5
    momentum: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.9, description="share of the running statistics that stays (PyTorch's 0.1)"
    )
    init: NormalizationInit = NormalizationInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if len(shape) < 2:
            raise Unfit("batch_norm needs an input [batch, channels, ...]")
        channels = extent(shape, 1)
        y = op.BatchNormalization(
            x,
            site.parameter("scale", (channels,), self.init.scale),
            site.parameter("bias", (channels,), self.init.bias),
            site.state("running_mean", np.zeros(channels, np.float32)),
            site.state("running_var", np.ones(channels, np.float32)),
            outputs=3 if site.training else 1,
            epsilon=self.epsilon,
            momentum=self.momentum,
            training_mode=int(site.training),
        )
        return self.activate(op, y[0] if site.training else y)


class LayerNorm(Activated):
    """Each sample, over the axes from ``axis`` on, to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016)."""

    kind: Literal["layer_norm"]
    axis: int = -1
    epsilon: PositiveFloat = 1e-5
    init: NormalizationInit = NormalizationInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if not -len(shape) < self.axis < len(shape) or self.axis == 0:
            raise Unfit(f"axis {self.axis} is not an axis of {show(shape)} behind the batch", "use -1 for the last axis")
        normalized = tuple(extent(shape, axis) for axis in range(self.axis % len(shape), len(shape)))
        scale = site.parameter("scale", normalized, self.init.scale)
        bias = site.parameter("bias", normalized, self.init.bias)
        return self.activate(op, op.LayerNormalization(x, scale, bias, axis=self.axis, epsilon=self.epsilon))


class RmsNorm(Activated):
    """Each sample, over the last axis, divided by its root mean square, then scaled (Zhang and Sennrich 2019)."""

    kind: Literal["rms_norm"]
    epsilon: PositiveFloat = 1e-5
    init: NormalizationInit = NormalizationInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        scale = site.parameter("scale", (extent(site.shape(x), -1),), self.init.scale)
        return self.activate(op, op.RMSNormalization(x, scale, axis=-1, epsilon=self.epsilon))
