"""The feed-forward part of a transformer: wider, through an activation, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from vgcompile.layers.dense import affine
from vgcompile.layers.function import FUNCTIONS, Gelu, Plain
from vgcompile.layers.function import Gated as Halved
from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Layer, Site, Unfit, extent
from vgcompile.layers.part import Part, Positive, kind_alone

if TYPE_CHECKING:
    import onnx_ir as ir


class Gated(Part):
    """phi(x W) * (x V) in place of phi(x W) (Shazeer 2020); ``glu`` is that of the sigmoid (Dauphin et al. 2017)."""

    kind: Literal["glu", "reglu", "geglu", "swiglu"]

    def gate(self, site: Site, gate: ir.Value, value: ir.Value) -> ir.Value:
        """The activation of one times the other."""
        phi = Gelu(kind="gelu") if self.kind == "geglu" else Plain(kind=_GATES[self.kind])
        return site.op.Mul(phi.apply(site, gate), value)  # type: ignore[no-any-return]


_GATES: dict[str, Literal["sigmoid", "relu", "silu"]] = {"glu": "sigmoid", "reglu": "relu", "swiglu": "silu"}
_FORMS: tuple[type[Part], ...] = (*(function for function in FUNCTIONS if function is not Halved), Gated)
_ALONE = tuple(kind for form in _FORMS for kind in get_args(form.model_fields["kind"].annotation))

if TYPE_CHECKING:
    FeedForwardActivation = Any
else:
    _Stated = Annotated[reduce(or_, _FORMS), Field(discriminator="kind")]
    FeedForwardActivation = Annotated[_Stated, BeforeValidator(kind_alone, json_schema_input_type=Literal[_ALONE] | _Stated)]


class FeedForward(Layer):
    """phi(x W + b) V + c over the last axis, as wide as it came (Vaswani et al. 2017, eq. 2)."""

    kind: Literal["feed_forward"]
    units: Positive | None = Field(default=None, description="size in between; 4 times that of the input where absent")
    activation: FeedForwardActivation = Gelu(kind="gelu")
    bias: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="rate behind the activation")
    init: Init = Init()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if len(shape) < 2:
            raise Unfit("feed_forward needs an input [batch, ..., features]")
        features = extent(shape, -1)
        units = self.units or 4 * features
        y = affine(site, x, units, self.init, bias=self.bias, part="expand")
        if isinstance(self.activation, Gated):
            gate = affine(site, x, units, self.init, bias=self.bias, part="gate")
            y = self.activation.gate(site, gate, y)
        else:
            y = self.activation.apply(site, y)
        if self.dropout:
            y = op.Dropout(y, float(self.dropout), site.training, seed=site.stream("mask"))
        return affine(site, y, features, self.init, bias=self.bias, part="contract")
