"""A factor as a model file states it: a number, or one that is learned.

scale: 0.1
scale: {learned: 0.0}              one number for the layer, starting at 0
scale: {learned: 1e-6, axis: 1}    one for each entry of an axis
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from vgcompile.layers.distribution import Constant
from vgcompile.layers.layer import Site, behind_batch, extent
from vgcompile.layers.part import Finite, Part

if TYPE_CHECKING:
    import onnx_ir as ir


class Learned(Part):
    """A trainable number, or one for each entry of an axis."""

    learned: Finite = Field(description="the value that it starts from")
    axis: int | None = Field(default=None, description="the axis with an entry of its own each; one number for all where absent")


Factor = Finite | Learned


def factor(site: Site, x: ir.Value, given: float | Learned, name: str) -> ir.Value:
    """The factor in a shape that broadcasts to that of ``x``. Raises Unfit where ``x`` has no such axis behind the batch."""
    if not isinstance(given, Learned):
        return site.op.constant(np.float32(given))
    return site.parameter(name, _extents(site, x, given.axis), Constant(kind="constant", value=given.learned))


def _extents(site: Site, x: ir.Value, axis: int | None) -> tuple[int, ...]:
    if axis is None:
        return ()
    shape = site.shape(x)
    place = behind_batch(axis, shape, "leave it out for one number, or use 1 for channels")
    return (extent(shape, place), *(1 for _ in shape[place + 1 :]))
