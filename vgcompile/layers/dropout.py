"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vgcompile.layers.layer import Layer, Site

if TYPE_CHECKING:
    import onnx_ir as ir


class Dropout(Layer):
    """Zeroes each element with probability ``rate`` and divides the rest by 1 - rate (Srivastava et al. 2014); passes all on in
    inference mode."""

    kind: Literal["dropout"]
    rate: Annotated[float, Field(ge=0, lt=1)]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.Dropout(inputs[0], float(self.rate), site.training, seed=site.stream("mask"))  # type: ignore[no-any-return]
