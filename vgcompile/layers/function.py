"""Functions that may stand in ``activation:`` or be a layer of their own: of each element, or of the elements along one axis.

``activation.py`` makes both of each class: here is what the function's fields are, and what it emits.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from vgcompile.layers.factor import Learned, factor
from vgcompile.layers.layer import Site, Unfit, behind_batch, extent
from vgcompile.layers.part import Finite, NonNegativeFloat, Part, PositiveFloat

if TYPE_CHECKING:
    import onnx_ir as ir


class Activation(Part):
    kind: str

    @abstractmethod
    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        """The function of ``x``, in ``x``'s shape, but for the gated ones, which halve an axis. Raises Unfit where ``x`` lacks
        the axis."""


_OPERATOR = {
    "identity": "Identity",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "selu": "Selu",
    "silu": "Swish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "mish": "Mish",
    "hard_swish": "HardSwish",
}


class Plain(Activation):
    """One operator, no fields."""

    kind: Literal["identity", "sigmoid", "tanh", "relu", "selu", "silu", "softplus", "softsign", "mish", "hard_swish"]

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.emit(_OPERATOR[self.kind], x)  # type: ignore[no-any-return]


class LeakyRelu(Activation):
    kind: Literal["leaky_relu"]
    alpha: Finite = Field(default=0.01, description="the slope below 0")

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.LeakyRelu(x, alpha=self.alpha)  # type: ignore[no-any-return]


class PRelu(Activation):
    """x above 0, a learned slope times x below (He et al. 2015, eq. 1)."""

    kind: Literal["prelu"]
    slope: Learned = Learned(learned=0.25)

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.PRelu(x, factor(site, x, self.slope, "slope"))  # type: ignore[no-any-return]


class ThresholdedRelu(Activation):
    """x above ``alpha``, 0 elsewhere."""

    kind: Literal["thresholded_relu"]
    alpha: Finite = 1.0

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.ThresholdedRelu(x, alpha=self.alpha)  # type: ignore[no-any-return]


class Elu(Activation):
    kind: Literal["elu"]
    alpha: PositiveFloat = Field(default=1.0, description="alpha (exp(x) - 1) below 0")

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.Elu(x, alpha=self.alpha)  # type: ignore[no-any-return]


class Celu(Activation):
    kind: Literal["celu"]
    alpha: PositiveFloat = Field(default=1.0, description="alpha (exp(x / alpha) - 1) below 0: smooth at 0")

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.Celu(x, alpha=self.alpha)  # type: ignore[no-any-return]


class Gelu(Activation):
    kind: Literal["gelu"]
    approximate: Literal["none", "tanh"] = "none"

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.Gelu(x, approximate=self.approximate)  # type: ignore[no-any-return]


class Swish(Activation):
    """x sigmoid(alpha x) (Ramachandran et al. 2017); ``silu`` is that of alpha 1."""

    kind: Literal["swish"]
    alpha: Finite = 1.0

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.Swish(x, alpha=self.alpha)  # type: ignore[no-any-return]


class HardSigmoid(Activation):
    """max(0, min(1, alpha x + beta)), with PyTorch's and Keras's slope 1/6 (ONNX's own default is 0.2)."""

    kind: Literal["hard_sigmoid"]
    alpha: PositiveFloat = 1.0 / 6.0
    beta: Finite = 0.5

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.HardSigmoid(x, alpha=self.alpha, beta=self.beta)  # type: ignore[no-any-return]


class HardTanh(Activation):
    """x, cut off at both ends; ``{kind: clip, min: 0, max: 6}`` is ReLU6."""

    kind: Literal["hard_tanh", "clip"]
    min: Finite = -1.0
    max: Finite = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min >= self.max:
            raise ValueError("min must be below max")
        return self

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.Clip(x, self.min, self.max)  # type: ignore[no-any-return]


class Shrink(Activation):
    """x - bias above ``threshold``, x + bias below its negative, 0 between: hard for bias 0, soft for the threshold's own."""

    kind: Literal["shrink"]
    threshold: NonNegativeFloat = 0.5
    bias: Finite = 0.0

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return site.op.Shrink(x, lambd=self.threshold, bias=self.bias)  # type: ignore[no-any-return]


class Softmax(Activation):
    """exp(x) over its sum along an axis, or the logarithm of that."""

    kind: Literal["softmax", "log_softmax"]
    axis: int = -1

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        axis = behind_batch(self.axis, site.shape(x))
        return site.op.emit("Softmax" if self.kind == "softmax" else "LogSoftmax", x, axis=axis)  # type: ignore[no-any-return]


class Gated(Activation):
    """Half of an axis times a function of the other half (Dauphin et al. 2017, Shazeer 2020).

    ``glu``: the first half times sigmoid of the second, as in PyTorch. The others: a function of the first half times the second,
    as in Shazeer's equations 5 and 6.
    """

    kind: Literal["glu", "reglu", "geglu", "swiglu"]
    axis: int = -1

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        op, shape = site.op, site.shape(x)
        axis = behind_batch(self.axis, shape)
        if extent(shape, axis) % 2:
            raise Unfit(f"{self.kind} halves axis {self.axis}, which has {shape[axis]} entries", "give it an even number")
        first, second = op.Split(x, outputs=2, axis=axis, num_outputs=2)
        if self.kind == "glu":
            return op.Mul(first, op.Sigmoid(second))  # type: ignore[no-any-return]
        return op.Mul(op.emit(_GATE[self.kind], first), second)  # type: ignore[no-any-return]


_GATE = {"reglu": "Relu", "geglu": "Gelu", "swiglu": "Swish"}

FUNCTIONS: tuple[type[Activation], ...] = (
    Plain,
    LeakyRelu,
    PRelu,
    ThresholdedRelu,
    Elu,
    Celu,
    Gelu,
    Swish,
    HardSigmoid,
    HardTanh,
    Shrink,
    Softmax,
    Gated,
)
