"""Layers made of layers.

    {kind: block, name: hidden, repeat: 20, layers: [...]}      hidden/1/dense ... hidden/20/dense
    {kind: residual, name: skip, layers: [...], shortcut: [...]}

They emit nothing themselves: spec/opening.py opens them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field

from vgcompile.layers.activation import Activated
from vgcompile.layers.factor import Factor, factor
from vgcompile.layers.layer import Layer, Name, Site
from vgcompile.layers.merge import Add
from vgcompile.layers.part import NotEmpty, Positive

if TYPE_CHECKING:
    import onnx_ir as ir

    AnyLayer = Layer

Layers = Annotated[tuple["AnyLayer", ...], NotEmpty]


class Composite(Layer):
    model_config = ConfigDict(defer_build=True)  # until layers/__init__.py knows what AnyLayer is

    repeat: Positive | None = Field(default=None, description="so many copies, one behind the other, named 1, 2, ...")
    index: Name = Field(default="i", description="what expressions inside call the number of the copy, 0, 1, ...")
    of: str | None = Field(default=None, exclude=True, description="the kind of block that it was written out for")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        raise AssertionError(f"{self.kind} is opened before anything is emitted")


class WrittenOut(Composite):
    """A composite whose layers follow from its other fields."""

    @abstractmethod
    def written_out(self) -> tuple[Layer, ...]:
        """Its layers, as a person would state them."""

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return self.written_out()


class Block(Composite):
    """A chain of layers under one name."""

    kind: Literal["block"]
    layers: Layers


class ResidualSum(Add):
    """What joins both ways of a residual: the layers' output times ``scale``, plus what went around."""

    scale: Factor | None = None

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        inner, around = inputs
        if self.scale is not None:
            inner = site.op.Mul(inner, factor(site, inner, self.scale, "scale"))
        return super().emit(site, (inner, around))


class Residual(Composite, Activated):
    """The input, or what ``shortcut`` makes of it, plus what ``layers`` make of it (He et al. 2016), then the activation.

    ``scale`` multiplies what ``layers`` make: 1 / sqrt(number of residuals) keeps the forward variance, {learned: 0.0} is ReZero
    (Bachlechner et al. 2020) and SkipInit (De and Smith 2020), {learned: 1e-6, axis: 1} LayerScale (Touvron et al. 2021).
    """

    kind: Literal["residual"]
    layers: Layers
    shortcut: Layers | None = Field(default=None, description="layers on the way around; the input itself where absent")
    scale: Factor | None = Field(default=None, description="multiplies what `layers` make: a number, or {learned: 0.0}")

    def join(self) -> ResidualSum:
        """The layer that joins both ways."""
        return ResidualSum(kind="add", activation=self.activation, scale=self.scale)
