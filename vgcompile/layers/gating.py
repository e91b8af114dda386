"""Layers that weigh or stop what passes: a factor, a gate for each channel, a stop for the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from vgcompile.layers.activation import AnyActivation
from vgcompile.layers.factor import Factor, factor
from vgcompile.layers.function import HardSigmoid, Plain
from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Layer, Site, Unfit, extent
from vgcompile.layers.part import Positive
from vgcompile.layers.windows import spatial

if TYPE_CHECKING:
    import onnx_ir as ir


class Scale(Layer):
    """x times a number, fixed or learned."""

    kind: Literal["scale"]
    by: Factor = Field(description="a number, {learned: 1.0}, or {learned: 1.0, axis: 1} with one for each entry of an axis")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.Mul(inputs[0], factor(site, inputs[0], self.by, "scale"))  # type: ignore[no-any-return]


class StopGradient(Layer):
    """x, through which no gradient flows. A file has a copy for it: only a gradient of this model knows that it stops."""

    kind: Literal["stop_gradient"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.StopGradient(inputs[0])  # type: ignore[no-any-return]


class SqueezeExcite(Layer):
    """Each channel times a gate in (0, 1), from the means of all channels by two convolutions of size 1 (Hu et al. 2018)."""

    kind: Literal["squeeze_excite"]
    units: Positive | None = Field(default=None, description="channels between the two")
    reduction: Positive | None = Field(default=None, description="the same, as a divisor of the input's channels")
    activation: AnyActivation = Plain(kind="relu")
    gate: Literal["sigmoid", "hard_sigmoid"] = "sigmoid"
    init: Init = Init()

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.units is None) == (self.reduction is None):
            raise ValueError("squeeze_excite needs either units: or reduction:, such as reduction: 16")
        return self

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        spatial(self.kind, site.shape(x))
        channels = extent(site.shape(x), 1)
        units = self.units or channels // (self.reduction or 1)
        if not units:
            raise Unfit(f"reduction: {self.reduction} leaves none of the {channels} channels", "choose a smaller one")
        squeezed = self.activation.apply(site, self._project(site, op.GlobalAveragePool(x), "squeeze", channels, units))
        gate = Plain(kind="sigmoid") if self.gate == "sigmoid" else HardSigmoid(kind="hard_sigmoid")
        return op.Mul(x, gate.apply(site, self._project(site, squeezed, "excite", units, channels)))  # type: ignore[no-any-return]

    def _project(self, site: Site, x: ir.Value, name: str, inside: int, outside: int) -> ir.Value:
        fans = {"fan_in": inside, "fan_out": outside}
        ones = (1 for _ in site.shape(x)[2:])
        weight = site.parameter(f"{name}/weight", (outside, inside, *ones), self.init.weight, **fans)
        return site.op.Conv(x, weight, site.parameter(f"{name}/bias", (outside,), self.init.bias, **fans))  # type: ignore[no-any-return]
