"""Losses: a scalar from the network's output and a target."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vgcompile.layers import criterion
from vgcompile.layers.layer import Name, Reference, Site, Unfit
from vgcompile.layers.part import Part

if TYPE_CHECKING:
    import onnx_ir as ir


class _Loss(Part):
    kind: str
    input: Reference | None = Field(default=None, description="the layer that enters the loss; the last one where absent")
    target: Name = Field(description="the input that it is compared with")
    reduction: Literal["mean", "sum"] = "mean"

    @abstractmethod
    def emit(self, site: Site, x: ir.Value, target: ir.Value, classes: int | None) -> ir.Value:
        """The loss, of shape []. Raises Unfit where output and target do not suit each other."""


class CrossEntropy(_Loss):
    """-log softmax(x)[target] over axis 1, for logits [batch, classes, ...] and class numbers [batch, ...]."""

    kind: Literal["cross_entropy"]

    def emit(self, site: Site, x: ir.Value, target: ir.Value, classes: int | None) -> ir.Value:
        logits, labels = site.shape(x), site.shape(target)
        if classes is None:
            raise Unfit("cross_entropy needs a target of class numbers", "give the target type: int64 and its number of classes")
        if len(logits) < 2 or labels != (logits[0], *logits[2:]):
            raise Unfit("cross_entropy needs logits [batch, classes, ...] and a target of that shape without the classes")
        if logits[1] != classes:
            raise Unfit(f"the target has {classes} classes, the logits have {logits[1]}", "make both numbers equal")
        return criterion.cross_entropy(site.op, x, target, self.reduction)  # type: ignore[no-any-return]


class Mse(_Loss):
    """The mean (or sum) of (x - target)^2 over all elements."""

    kind: Literal["mse"]

    def emit(self, site: Site, x: ir.Value, target: ir.Value, classes: int | None) -> ir.Value:
        if classes is not None:
            raise Unfit("mse needs a target of real numbers, found class numbers", "use cross_entropy, or drop type: int64")
        if site.shape(x) != site.shape(target):
            raise Unfit("mse needs an output and a target of one shape")
        return criterion.mse(site.op, x, target, self.reduction)  # type: ignore[no-any-return]


AnyLoss = Annotated[CrossEntropy | Mse, Field(discriminator="kind")]
