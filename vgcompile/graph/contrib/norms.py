"""Normalizations, and what is added before them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.graph.contrib.forms import covered, plus, to_channels_first, to_channels_last
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents


def _layer_normalization(
    op: Any, x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, **_: Any
) -> Any:
    return op.LayerNormalization(x, scale, bias, axis=axis, epsilon=epsilon, outputs=3)


def root_mean_square(op: Any, x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> tuple[Any, ...]:
    """x over its root mean square, scaled; the second output is missing, the third is the factor."""
    axes = list(range(axis % len(x.shape), len(x.shape)))
    factor = op.Reciprocal(op.Sqrt(op.ReduceMean(x * x, axes, keepdims=1) + epsilon))
    return x * factor * scale, factor


def _skip_layer_normalization(
    op: Any, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None, *, epsilon: float = 1e-12
) -> tuple[Any, ...]:
    total = plus(x, skip, bias)
    return (*op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon, outputs=3), total)


def _skip_simplified(op: Any, x: Any, skip: Any, gamma: Any, bias: Any = None, *, epsilon: float = 1e-12) -> tuple[Any, ...]:
    total = plus(x, skip, bias)
    y, factor = root_mean_square(op, total, gamma, epsilon=epsilon)
    return y, None, factor, total


def _embedding(
    op: Any,
    ids: Any,
    segments: Any,
    words: Any,
    places: Any,
    kinds: Any,
    gamma: Any,
    beta: Any,
    mask: Any = None,
    position_ids: Any = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Any, ...]:
    """Words, their places and kinds, added and normalized; how many words of each row count, 0 without a mask."""
    if position_ids is None:
        length = extents(ids)[1]
        end = [length] if isinstance(length, int) else op.Shape(ids, start=1, end=2)
        at = op.Slice(places, [0], end, [0])
    else:
        at = op.Gather(places, position_ids)
    total = plus(op.Gather(words, ids), at, None if segments is None else op.Gather(kinds, segments))
    y = op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon)
    counts = op.Expand(np.zeros(1, np.int32), op.Shape(ids, end=1)) if mask is None else op.ReduceSum(mask, [1], keepdims=0)
    return y, counts, total


def _group_norm(
    op: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    *,
    groups: int,
    activation: int,
    epsilon: float = 1e-5,
    channels_last: int = 1,
) -> Any:
    """In the type of ``gamma``, which may be wider than that of x."""
    wide = x if x.dtype == gamma.dtype else op.Cast(x, to=int(gamma.dtype))
    wide = to_channels_first(op, wide) if channels_last else wide
    y = op.GroupNormalization(wide, gamma, beta, num_groups=groups, epsilon=epsilon)
    y = op.Swish(y) if activation else y
    y = to_channels_last(op, y) if channels_last else y
    return y if x.dtype == gamma.dtype else op.Cast(y, to=int(x.dtype))


def _skip_group_norm(
    op: Any, x: Any, gamma: Any, beta: Any, skip: Any, bias: Any = None, *, channels_last: int = 1, **attributes: Any
) -> tuple[Any, ...]:
    """``skip`` is in the shape of x, or one row of channels for each sample: [batch, channels]."""
    covered(bool(channels_last), "its channels come first, which ONNX Runtime has no kernel for; export it unfused")
    if len(skip.shape) == 2:
        skip = op.Unsqueeze(skip, list(range(1, len(x.shape) - 1)))
    total = plus(x, skip, bias)
    return _group_norm(op, total, gamma, beta, **attributes), total


def _gated(op: Any, x: Any, scale: Any, gate: Any, *, activation: str = "silu", epsilon: float = 1e-5) -> Any:
    """Groups of as many neighbours along the last axis as ``scale`` has are normalized, each by itself."""
    covered(activation in ("silu", "swish", "sigmoid"), f"its activation {activation} is not known; export it unfused")
    heads = op.Reshape(x, [*[0] * (len(x.shape) - 1), -1, extents(scale)[0]])
    y, _ = root_mean_square(op, heads, scale, epsilon=epsilon)
    opened = op.Sigmoid(gate) if activation == "sigmoid" else op.Swish(gate)
    return op.Reshape(y, op.Shape(x)) * opened


FORMULAS: dict[str, Rule] = {
    "LayerNormalization": _layer_normalization,
    "SimplifiedLayerNormalization": root_mean_square,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_simplified,
    "EmbedLayerNormalization": _embedding,
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _skip_group_norm,
    "GatedRMSNorm": _gated,
}
