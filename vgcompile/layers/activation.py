"""Activations: a function of each element, written as a layer of its own or in another layer's ``activation:``.

    {kind: leaky_relu, alpha: 0.1}
    {kind: dense, units: 100, activation: sigmoid}
    {kind: dense, units: 100, activation: {kind: elu, alpha: 0.5}}

One class serves both: a layer is the function's fields beside every layer's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, create_model

from vgcompile.layers.layer import Layer, Site
from vgcompile.layers.part import Finite, Part, PositiveFloat, kind_alone

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter


class Activation(Part):
    kind: str

    @abstractmethod
    def apply(self, op: Emitter, x: ir.Value) -> ir.Value:
        """The function of every element of ``x``, in ``x``'s shape."""


_OPERATOR = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "selu": "Selu",
    "silu": "Swish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "mish": "Mish",
}


class Plain(Activation):
    """One operator, no fields."""

    kind: Literal["sigmoid", "tanh", "relu", "selu", "silu", "softplus", "softsign", "mish"]

    def apply(self, op: Emitter, x: ir.Value) -> ir.Value:
        return op.emit(_OPERATOR[self.kind], x)  # type: ignore[no-any-return]


class LeakyRelu(Activation):
    kind: Literal["leaky_relu"]
    alpha: Finite = Field(default=0.01, description="the slope below 0")

    def apply(self, op: Emitter, x: ir.Value) -> ir.Value:
        return op.LeakyRelu(x, alpha=self.alpha)  # type: ignore[no-any-return]


class Elu(Activation):
    kind: Literal["elu"]
    alpha: PositiveFloat = Field(default=1.0, description="alpha (exp(x) - 1) below 0")

    def apply(self, op: Emitter, x: ir.Value) -> ir.Value:
        return op.Elu(x, alpha=self.alpha)  # type: ignore[no-any-return]


class Gelu(Activation):
    kind: Literal["gelu"]
    approximate: Literal["none", "tanh"] = "none"

    def apply(self, op: Emitter, x: ir.Value) -> ir.Value:
        return op.Gelu(x, approximate=self.approximate)  # type: ignore[no-any-return]


class HardSigmoid(Activation):
    """max(0, min(1, alpha x + beta)), with PyTorch's and Keras's slope 1/6 (ONNX's own default is 0.2)."""

    kind: Literal["hard_sigmoid"]
    alpha: PositiveFloat = 1.0 / 6.0
    beta: Finite = 0.5

    def apply(self, op: Emitter, x: ir.Value) -> ir.Value:
        return op.HardSigmoid(x, alpha=self.alpha, beta=self.beta)  # type: ignore[no-any-return]


FUNCTIONS = (Plain, LeakyRelu, Elu, Gelu, HardSigmoid)

_Stated = Annotated[Plain | LeakyRelu | Elu | Gelu | HardSigmoid, Field(discriminator="kind")]
_Alone = Literal[
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "softsign",
    "hard_sigmoid",
    "mish",
]
AnyActivation = Annotated[_Stated, BeforeValidator(kind_alone, json_schema_input_type=_Alone | _Stated)]


class Activated(Layer):
    """A layer that may end in an activation."""

    activation: AnyActivation | None = Field(
        default=None, description="a function of each element of the output; none where absent"
    )

    def activate(self, op: Emitter, x: ir.Value) -> ir.Value:
        return x if self.activation is None else self.activation.apply(op, x)


class _AsLayer(Layer):
    """An activation as a layer: the function's fields beside every layer's own."""

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        assert isinstance(self, Activation)
        return self.apply(site.op, inputs[0])


LAYERS: tuple[type[Layer], ...] = tuple(
    create_model(f"{function.__name__}Layer", __base__=(function, _AsLayer), __module__=__name__)  # type: ignore[arg-type]
    for function in FUNCTIONS
)
