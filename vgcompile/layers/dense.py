"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Site, Unfit, extent
from vgcompile.layers.part import Positive
from vgcompile.layers.weighted import Weighted

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter


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
        return self.activate(site, _product(op, x, weight, bias))


def affine(site: Site, x: ir.Value, units: int, init: Init, *, bias: bool = True, part: str = "") -> ir.Value:
    """x W + b over the last axis; of a layer that holds several, ``part`` names the one: ``<layer>/<part>/weight``."""
    prefix = f"{part}/" if part else ""
    fans = {"fan_in": extent(site.shape(x), -1), "fan_out": units}
    weight = site.parameter(f"{prefix}weight", (fans["fan_in"], units), init.weight, **fans)
    added = site.parameter(f"{prefix}bias", (units,), init.bias, **fans) if bias else None
    with site.op.scope(part) as op:
        return _product(op, x, weight, added)


def _product(op: Emitter, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    if x.shape is not None and len(x.shape) == 2:
        return op.Gemm(x, weight, bias)  # type: ignore[no-any-return]
    y = op.MatMul(x, weight)
    return y if bias is None else op.Add(y, bias)  # type: ignore[no-any-return]
