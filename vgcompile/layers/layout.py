"""Layers that rearrange elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from vgcompile.layers.layer import Layer, Site

if TYPE_CHECKING:
    import onnx_ir as ir


class Flatten(Layer):
    """[batch, a, b, ...] -> [batch, a b ...]."""

    kind: Literal["flatten"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.Flatten(inputs[0], axis=1)  # type: ignore[no-any-return]
