"""Activations: a function of an output, written as a layer of its own or in another layer's ``activation:``.

    {kind: leaky_relu, alpha: 0.1}
    {kind: dense, units: 100, activation: sigmoid}
    {kind: dense, units: 100, activation: {kind: elu, alpha: 0.5}}

One class serves both: a layer is the function's fields beside every layer's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, create_model

from vgcompile.layers.expression import Expression
from vgcompile.layers.function import FUNCTIONS, Activation
from vgcompile.layers.layer import Layer, Site
from vgcompile.layers.part import kind_alone

if TYPE_CHECKING:
    import onnx_ir as ir

    AnyActivation = Activation
else:
    _Stated = Annotated[reduce(or_, (*FUNCTIONS, Expression)), Field(discriminator="kind")]
    _Alone = Literal[tuple(kind for function in FUNCTIONS for kind in get_args(function.model_fields["kind"].annotation))]
    AnyActivation = Annotated[_Stated, BeforeValidator(kind_alone, json_schema_input_type=_Alone | _Stated)]


class Activated(Layer):
    """A layer that may end in an activation."""

    activation: AnyActivation | None = Field(default=None, description="a function of the output; none where absent")

    def activate(self, site: Site, x: ir.Value) -> ir.Value:
        return x if self.activation is None else self.activation.apply(site, x)


class _AsLayer(Layer):
    """An activation as a layer: the function's fields beside every layer's own."""

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        assert isinstance(self, Activation)
        return self.apply(site, inputs[0])


LAYERS: tuple[type[Layer], ...] = tuple(
    create_model(f"{function.__name__}Layer", __base__=(function, _AsLayer), __module__=__name__)  # type: ignore[arg-type]
    for function in FUNCTIONS
)
