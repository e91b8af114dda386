"""Layers that make spatial axes longer: by padding, by upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from vgcompile.layers.layer import Layer, Site, Unfit
from vgcompile.layers.part import LARGEST_INT, Finite, NotEmpty, PositiveFloat
from vgcompile.layers.windows import Explicit, PerAxis, ends, per_axis, spatial

if TYPE_CHECKING:
    import onnx_ir as ir


class Pad(Layer):
    """More elements at the ends of the spatial axes: a constant, or elements of the axis itself."""

    kind: Literal["pad"]
    padding: Explicit = Field(description="cells at both ends, or for each axis a number or [before, behind]")
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant"
    value: Finite = Field(default=0.0, description="of mode constant")

    @model_validator(mode="after")
    def _of_constant(self) -> Self:
        if self.value and self.mode != "constant":
            raise ValueError(f"mode {self.mode} takes its elements from the axis: leave out value")
        return self

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        sizes = spatial(self.kind, site.shape(x))
        before, after = ends(self.padding, len(sizes))
        for axis, (first, last, size) in enumerate(zip(before, after, sizes, strict=True), start=2):
            reach = {"reflect": -1, "wrap": 0}.get(self.mode)
            if reach is not None and isinstance(size, int) and max(first, last) > size + reach:
                raise Unfit(f"mode {self.mode} has at most {size + reach} cells to add to axis {axis}", "pad less, or use edge")
        value = self.value if self.mode == "constant" else None
        return site.op.Pad(x, [0, 0, *before, 0, 0, *after], value, mode=self.mode)  # type: ignore[no-any-return]


class Upsample(Layer):
    """Spatial axes resampled as in PyTorch (align_corners off): by the nearest element, along lines or, of images, by cubics."""

    kind: Literal["upsample"]
    scale: PositiveFloat | Annotated[tuple[PositiveFloat, ...], NotEmpty] | None = None
    size: PerAxis | None = Field(default=None, description="extents of the output, in place of scale")
    mode: Literal["nearest", "linear", "cubic"] = "nearest"

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.scale is None) == (self.size is None):
            raise ValueError("upsample needs either scale: or size:")
        return self

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        rank = len(spatial(self.kind, site.shape(x), 2 if self.mode == "cubic" else None))
        how: dict[str, Any] = {
            "coordinate_transformation_mode": "half_pixel",
            "mode": self.mode,
            "axes": list(range(2, 2 + rank)),
        }
        if self.mode == "nearest":
            how |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        elif self.mode == "cubic":
            how |= {"cubic_coeff_a": -0.75}
        if self.size is not None:
            sizes = list(per_axis("size", self.size, rank))
            return site.op.Resize(x, None, None, sizes, **how)  # type: ignore[no-any-return]
        given: Any = self.scale if isinstance(self.scale, tuple) else (self.scale,) * rank
        scales = np.asarray(per_axis("scale", given, rank), np.float32)
        for axis, (size, scale) in enumerate(zip(site.shape(x)[2:], scales, strict=True), start=2):
            if not 1 <= (size if isinstance(size, int) else 1 / min(scale, 1)) * float(scale) <= LARGEST_INT:
                raise Unfit(f"scale {scale:g} leaves axis {axis} without elements, or with too many", "choose one nearer to 1")
        return site.op.Resize(x, None, scales, **how)  # type: ignore[no-any-return]
