"""Pooling over one to three spatial axes; the input says how many.

An adaptive pool has as many windows as its size says: window i of n reaches from floor(i s / n) up to ceil((i + 1) s / n), as in
PyTorch. Where n divides s that is an ordinary pool; else an average is a product with a constant matrix for each axis, and a
maximum gathers each window, its last element repeated, and reduces it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from vgcompile.layers.layer import Layer, Site, Unfit, extent, show
from vgcompile.layers.windows import Padding, PerAxis, per_axis, spatial, window

if TYPE_CHECKING:
    import onnx_ir as ir


class _Pool(Layer):
    kernel: PerAxis
    stride: PerAxis | None = Field(default=None, description="the kernel where absent: windows lie side by side")
    padding: Padding = "valid"
    dilation: PerAxis = 1
    ceil: bool = Field(default=False, description="keep a last window that only reaches in part into the input")

    def _attributes(self, site: Site, x: ir.Value) -> dict[str, Any]:
        sizes = spatial(self.kind, site.shape(x))
        stride = self.kernel if self.stride is None else self.stride
        at = window(sizes, self.kernel, stride, self.padding, self.dilation)
        for before, after, taps, gap in zip(at.before, at.after, at.kernel, at.dilation, strict=True):
            if max(before, after) > gap * (taps - 1):
                raise Unfit(f"padding of {max(before, after)} makes windows that hold nothing else", "pad less than the kernel")
        return {**at.attributes, "ceil_mode": int(self.ceil)}


class MaxPool(_Pool):
    kind: Literal["max_pool"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return site.op.MaxPool(inputs[0], **self._attributes(site, inputs[0]))  # type: ignore[no-any-return]


class AveragePool(_Pool):
    """The mean over each window; cells of the padding do not count unless ``count_padding`` says so."""

    kind: Literal["average_pool"]
    count_padding: bool = Field(default=False, description="take the padding's zeros into the mean, as PyTorch does")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        given = self._attributes(site, inputs[0])
        return site.op.AveragePool(inputs[0], **given, count_include_pad=int(self.count_padding))  # type: ignore[no-any-return]


class GlobalPool(Layer):
    """The mean or the maximum over all positions: [batch, channels, 1, ...]."""

    kind: Literal["global_average_pool", "global_max_pool"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        spatial(self.kind, site.shape(inputs[0]))
        return site.op.emit(_OVER_ALL[self.kind], inputs[0])  # type: ignore[no-any-return]


_OVER_ALL = {"global_average_pool": "GlobalAveragePool", "global_max_pool": "GlobalMaxPool"}


LARGEST_MATRIX = 2**24  # elements


class _AdaptivePool(Layer):
    size: PerAxis = Field(description="positions of the output along each axis")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        shape = site.shape(x)
        sizes = tuple(extent(shape, axis) for axis in range(2, 2 + len(spatial(self.kind, shape))))
        wanted = per_axis("size", self.size, len(sizes))
        if any(out > size for out, size in zip(wanted, sizes, strict=True)):
            raise Unfit(f"{self.kind} makes axes smaller, not {show(sizes)} into {show(wanted)}", "use upsample for larger ones")
        if all(size % out == 0 for out, size in zip(wanted, sizes, strict=True)):
            kernel = [size // out for out, size in zip(wanted, sizes, strict=True)]
            return site.op.emit(self._operator(), x, kernel_shape=kernel, strides=kernel)  # type: ignore[no-any-return]
        if any(out * size > LARGEST_MATRIX for out, size in zip(wanted, sizes, strict=True)):
            raise Unfit(f"{show(sizes)} into {show(wanted)} needs a matrix too large", "choose a size that divides the input's")
        for axis, (out, size) in enumerate(zip(wanted, sizes, strict=True), start=2):
            if out != size:
                x = self._along(site, x, axis, _reaches(size, out))
        return x

    @abstractmethod
    def _operator(self) -> str:
        """The ordinary pool's."""

    @abstractmethod
    def _along(self, site: Site, x: ir.Value, axis: int, windows: list[range]) -> ir.Value:
        """One axis pooled, a window for each output position."""


class AdaptiveAveragePool(_AdaptivePool):
    kind: Literal["adaptive_average_pool"]

    def _operator(self) -> str:
        return "AveragePool"

    def _along(self, site: Site, x: ir.Value, axis: int, windows: list[range]) -> ir.Value:
        op, rank = site.op, len(site.shape(x))
        shares = np.zeros((len(windows), windows[-1].stop), np.float32)
        for row, reach in zip(shares, windows, strict=True):
            row[reach.start : reach.stop] = 1.0 / len(reach)
        if axis == rank - 2:
            return op.MatMul(shares, x)  # type: ignore[no-any-return]
        if axis == rank - 1:
            return op.MatMul(x, np.ascontiguousarray(shares.T))  # type: ignore[no-any-return]
        last = [*(other for other in range(rank) if other != axis), axis]
        turned = op.MatMul(op.Transpose(x, perm=last), np.ascontiguousarray(shares.T))
        return op.Transpose(turned, perm=np.argsort(last).tolist())  # type: ignore[no-any-return]


class AdaptiveMaxPool(_AdaptivePool):
    kind: Literal["adaptive_max_pool"]

    def _operator(self) -> str:
        return "MaxPool"

    def _along(self, site: Site, x: ir.Value, axis: int, windows: list[range]) -> ir.Value:
        longest = max(map(len, windows))
        places = np.array([[min(reach.start + step, reach.stop - 1) for step in range(longest)] for reach in windows])
        return site.op.ReduceMax(site.op.Gather(x, places, axis=axis), [axis + 1], keepdims=0)  # type: ignore[no-any-return]


def _reaches(size: int, out: int) -> list[range]:
    return [range(index * size // out, -(-(index + 1) * size // out)) for index in range(out)]
