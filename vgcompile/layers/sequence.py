"""Sequences [batch, time, features]: what their layers share, and those that add a position or keep one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vgcompile.layers.distribution import Normal
from vgcompile.layers.initialization import AnyDistribution
from vgcompile.layers.layer import Layer, Shape, Site, Unfit, extent
from vgcompile.layers.part import Part

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter


class SmallInit(Part):
    """``init:`` of learned positions and tokens: normal with sd 0.02 as in BERT, GPT-2 and ViT, whatever the model's own says."""

    weight: AnyDistribution = Normal(kind="normal", sd=0.02)


class ClassToken(Layer):
    """A learned vector put before each sequence: [batch, time, features] -> [batch, 1 + time, features] (Devlin et al. 2019)."""

    kind: Literal["class_token"]
    init: SmallInit = SmallInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = require_sequence(self.kind, site.shape(x))
        features = extent(shape, 2)
        token = site.parameter("weight", (features,), self.init.weight, fan_in=features, fan_out=features)
        copies = op.Expand(token, op.Concat(op.Shape(x, end=1), [1, features], axis=0))
        return op.Concat(typed(copies, (shape[0], 1, features)), x, axis=1)  # type: ignore[no-any-return]


class TimePool(Layer):
    """The mean, or of each feature the largest value, over time: [batch, time, ...] -> [batch, ...] (Collobert et al. 2011)."""

    kind: Literal["time_pool"]
    take: Literal["mean", "max"] = "mean"

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        if len(site.shape(x)) < 2:
            raise Unfit("time_pool needs an input [batch, time, ...]")
        reduce = op.ReduceMean if self.take == "mean" else op.ReduceMax
        return reduce(x, [1], keepdims=0)  # type: ignore[no-any-return]


def require_sequence(kind: str, shape: Shape) -> Shape:
    """``shape`` itself. Raises Unfit where it is not [batch, time, features]."""
    if len(shape) != 3:
        raise Unfit(f"{kind} needs an input [batch, time, features]")
    return shape


def steps(op: Emitter, x: ir.Value, time: int | str) -> ir.Value:
    """0, 1, ..., time - 1 as int64, counted at run time where ``time``, the extent of axis 1 of ``x``, is a symbol."""
    if isinstance(time, int):
        return op.constant(np.arange(time))
    return typed(op.Range(0, op.Squeeze(op.Shape(x, start=1, end=2), [0]), 1), (time,))


def typed(value: Any, shape: Shape) -> ir.Value:
    """``value`` in a shape that is known here better than ONNX's inference knows it."""
    import onnx_ir as ir  # a complaint about the text comes before it is loaded

    assert isinstance(value, ir.Value)
    value.shape = ir.Shape(shape)
    return value
