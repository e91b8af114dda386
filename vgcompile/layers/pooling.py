"""Pooling over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from vgcompile.layers.layer import Layer, Site
from vgcompile.layers.windows import Padding, Pair, require_image, window

if TYPE_CHECKING:
    import onnx_ir as ir


class _Pool(Layer):
    kernel: Pair
    stride: Pair | None = None
    padding: Padding = "valid"

    def _window(self, site: Site, x: ir.Value) -> dict[str, Any]:
        """ONNX's attributes; windows lie side by side where no stride is given."""
        shape = site.shape(x)
        require_image(self.kind, shape)
        return window(shape, self.kernel, self.stride or self.kernel, self.padding)


class MaxPool(_Pool):
    kind: Literal["max_pool"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.MaxPool(inputs[0], **self._window(site, inputs[0]))  # type: ignore[no-any-return]


class AveragePool(_Pool):
    """The mean over each window; cells of the padding do not count."""

    kind: Literal["average_pool"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.AveragePool(inputs[0], **self._window(site, inputs[0]))  # type: ignore[no-any-return]


class GlobalAveragePool(Layer):
    """The mean over height and width: [batch, channels, 1, 1]."""

    kind: Literal["global_average_pool"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        require_image(self.kind, site.shape(inputs[0]))
        return site.op.GlobalAveragePool(inputs[0])  # type: ignore[no-any-return]
