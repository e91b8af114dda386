"""Between class numbers and vectors: the embedding that looks vectors up, the unembedding that scores every class against one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vgcompile.layers.distribution import Normal
from vgcompile.layers.initialization import AnyDistribution, Init
from vgcompile.layers.layer import Layer, Reads, Site, Unfit, extent
from vgcompile.layers.part import Natural, Part, Positive

if TYPE_CHECKING:
    import onnx_ir as ir


class EmbeddingInit(Part):
    """``init:`` of an embedding: standard normal as in PyTorch, whatever the model's own ``init:`` says."""

    weight: AnyDistribution = Normal(kind="normal", sd=1.0)


class Embedding(Layer):
    """Class numbers [batch, ...] -> their rows of a learned table [size, units]: [batch, ..., units].

    The row of ``padding`` is zeros, and no gradient reaches it (from here: an unembedding may share the table).
    """

    reads: ClassVar[Reads] = "class numbers"
    kind: Literal["embedding"]
    units: Positive = Field(description="size of a vector")
    size: Positive | None = Field(default=None, description="rows of the table; the input's classes where absent")
    padding: Natural | None = Field(default=None, description="a class number that stands for nothing: its vector is zeros")
    init: EmbeddingInit = EmbeddingInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        classes = site.classes(x)
        size = self.size or classes
        if size is None:
            raise Unfit("the number of classes is not known", "give the table's size")
        if classes is not None and classes > size:
            raise Unfit(f"its input has {classes} classes, the table {size} rows", f"give size: {classes} or more")
        if self.padding is not None and self.padding >= size:
            raise Unfit(f"padding {self.padding} is no row of a table of {size}", f"rows are 0 to {size - 1}")
        weight = site.parameter("weight", (size, self.units), self.init.weight, fan_in=size, fan_out=self.units)
        y = op.Gather(weight, x, axis=0)
        if self.padding is None:
            return y  # type: ignore[no-any-return]
        return op.Where(op.Unsqueeze(op.Equal(x, self.padding), [-1]), 0.0, y)  # type: ignore[no-any-return]


class Unembedding(Layer):
    """Logits x W^T (+ b), W of shape [classes, features]: an embedding's where ``share:`` names one (Press and Wolf 2017)."""

    kind: Literal["unembedding"]
    classes: Positive | None = Field(
        default=None, description="size of the output's last axis; that of a shared table where absent"
    )
    bias: bool = False
    init: Init = Init()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = site.shape(x)
        if len(shape) < 2:
            raise Unfit("unembedding needs an input [batch, ..., features]")
        shared = site.shared("weight")
        classes = self.classes or (extent(shared, 0) if shared else None)
        if classes is None:
            raise Unfit("the number of classes is not known", "give classes: N, or the embedding to share: NAME")
        fans = {"fan_in": extent(shape, -1), "fan_out": classes}
        weight = site.parameter("weight", (classes, fans["fan_in"]), self.init.weight, **fans)
        bias = site.parameter("bias", (classes,), self.init.bias, **fans) if self.bias else None
        if len(shape) == 2:
            return op.Gemm(x, weight, bias, transB=1)  # type: ignore[no-any-return]
        y = op.MatMul(x, op.Transpose(weight, perm=[1, 0]))
        return y if bias is None else op.Add(y, bias)  # type: ignore[no-any-return]
