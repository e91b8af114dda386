"""Layers that rearrange elements, or take some of them. The batch stays where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from vgcompile.layers.layer import Layer, Shape, Site, Unfit, behind_batch, extent, show
from vgcompile.layers.part import LARGEST_INT, Index, Natural, NotEmpty, Positive

if TYPE_CHECKING:
    import onnx_ir as ir


class Flatten(Layer):
    """The axes from ``start`` to ``end`` as one: [batch, a, b, ...] -> [batch, a b ...]."""

    kind: Literal["flatten"]
    start: int = 1
    end: int = -1

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if (self.start, self.end) == (1, -1):
            return op.Flatten(x, axis=1)  # type: ignore[no-any-return]
        start, end = behind_batch(self.start, shape, "use 1 for the first one"), behind_batch(self.end, shape)
        if start > end:
            raise Unfit(f"flatten from axis {self.start} to axis {self.end} holds no axis", "let start stand before end")
        return _reshaped(site, x, [shape[start : end + 1]], at=start)


class Reshape(Layer):
    """The elements of each sample in another shape; one extent may be -1, for what is left."""

    kind: Literal["reshape"]
    shape: Annotated[tuple[Annotated[int, Field(ge=-1, le=LARGEST_INT)], ...], NotEmpty] = Field(description="without the batch")

    @field_validator("shape")
    @classmethod
    def _one_open(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape.count(-1) > 1 or 0 in shape:
            raise ValueError("shape is a list of positive extents without the batch, of which one may be -1")
        return shape

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        given = site.shape(x)
        known = math.prod(size for size in given[1:] if isinstance(size, int))
        stated = math.prod(size for size in self.shape if size != -1)
        symbols = sum(isinstance(size, str) for size in given[1:])
        if stated > LARGEST_INT:
            raise Unfit(f"{list(self.shape)} has more elements than any array", "choose smaller extents")
        if symbols and -1 not in self.shape:
            raise Unfit(f"reshape to {list(self.shape)} needs inputs of known extents", "write -1 for one of them")
        if not symbols and (known % stated if -1 in self.shape else known != stated):
            raise Unfit(f"{known} elements a sample do not fill {list(self.shape)}", f"let the extents multiply to {known}")
        return site.op.Reshape(x, [0, *self.shape])  # type: ignore[no-any-return]


def _reshaped(site: Site, x: ir.Value, joined: Sequence[Shape], at: int) -> ir.Value:
    """``x`` with the axes from ``at`` on that ``joined`` lists made one each. Raises Unfit where symbols hide two extents."""
    shape = site.shape(x)
    behind = shape[at + sum(map(len, joined)) :]
    wanted: list[int] = [0] * at  # 0: an extent is taken over
    for part in [*joined, *((size,) for size in behind)]:
        known = all(isinstance(size, int) for size in part)
        wanted.append(math.prod(int(size) for size in part) if known else -1)
    if wanted.count(-1) > 1:
        raise Unfit(f"the extents of {show(shape)} from axis {at} on must be known, but for one", "give the inputs fixed sizes")
    return site.op.Reshape(x, wanted)  # type: ignore[no-any-return]


class Transpose(Layer):
    """The axes in another order."""

    kind: Literal["transpose"]
    perm: Annotated[tuple[Natural, ...], NotEmpty] = Field(description="old axis for each new one; the batch, 0, comes first")

    @field_validator("perm")
    @classmethod
    def _a_permutation(cls, perm: tuple[int, ...]) -> tuple[int, ...]:
        if sorted(perm) != list(range(len(perm))) or perm[0] != 0:
            raise ValueError("perm lists each axis once and the batch first, such as [0, 2, 1]")
        return perm

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        rank = len(site.shape(inputs[0]))
        if rank != len(self.perm):
            raise Unfit(f"perm {list(self.perm)} orders {len(self.perm)} axes, the input has {rank}", "list each axis once")
        return site.op.Transpose(inputs[0], perm=list(self.perm))  # type: ignore[no-any-return]


class Split(Layer):
    """One of the parts that an axis is split into; another split layer takes the next one."""

    kind: Literal["split"]
    axis: int = 1
    parts: Positive | None = Field(default=None, description="so many parts of one size")
    sizes: Annotated[tuple[Positive, ...], NotEmpty] | None = Field(default=None, description="the size of each part")
    take: Natural = Field(description="which part, from 0")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.parts is None) == (self.sizes is None):
            raise ValueError("split needs either parts: or sizes:")
        if self.take >= (self.parts or len(self.sizes or ())):
            raise ValueError(
                f"there is no part {self.take}: the first is 0, the last {(self.parts or len(self.sizes or ())) - 1}"
            )
        return self

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        shape = site.shape(inputs[0])
        axis = behind_batch(self.axis, shape)
        size = extent(shape, axis)
        if self.parts is not None and size % self.parts:
            raise Unfit(f"{size} entries of axis {self.axis} do not fall into {self.parts} parts", "use sizes: for unequal parts")
        sizes = self.sizes or (size // (self.parts or 1),) * (self.parts or 1)
        if sum(sizes) != size:
            raise Unfit(f"sizes {list(sizes)} do not add up to the {size} entries of axis {self.axis}")
        start = sum(sizes[: self.take])
        return site.op.Slice(inputs[0], [start], [start + sizes[self.take]], [axis])  # type: ignore[no-any-return]


class Slice(Layer):
    """Entries ``start`` up to, not with, ``end`` of an axis, as Python counts them; every ``step``-th."""

    kind: Literal["slice"]
    axis: int = 1
    start: Index = 0
    end: Index | None = Field(default=None, description="the end of the axis where absent")
    step: Positive = 1

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        shape = site.shape(inputs[0])
        axis = behind_batch(self.axis, shape)
        size = shape[axis]
        end = LARGEST_INT if self.end is None else self.end
        if isinstance(size, int) and not range(size)[self.start : end]:
            raise Unfit(f"the slice from {self.start} to {end if self.end is not None else 'the end'} is empty", "widen it")
        return site.op.Slice(inputs[0], [self.start], [end], [axis], [self.step])  # type: ignore[no-any-return]


class Select(Layer):
    """One entry of an axis, without the axis: the first position of [batch, positions, features] is [batch, features]."""

    kind: Literal["select"]
    axis: int = 1
    index: Index = Field(description="from 0, or from the end for -1, -2, ...")

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        shape = site.shape(inputs[0])
        axis = behind_batch(self.axis, shape)
        size = shape[axis]
        if isinstance(size, int) and not -size <= self.index < size:
            raise Unfit(f"axis {self.axis} has {size} entries, none at {self.index}", f"choose one of 0 ... {size - 1}")
        return site.op.Gather(inputs[0], self.index, axis=axis)  # type: ignore[no-any-return]
