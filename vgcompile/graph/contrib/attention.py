"""Attention in which every query has keys of its own head.

The forms that carry a cache of past keys are refused: they are for generating, one word at a time.
"""

from __future__ import annotations

from typing import Any

from vgcompile.graph.contrib.forms import covered, plus
from vgcompile.graph.contrib.heads import FILTER, NO_CACHE, apart, attend, causal, masked
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents


def _attention(
    op: Any,
    x: Any,
    weights: Any,
    bias: Any = None,
    mask: Any = None,
    past: Any = None,
    attention_bias: Any = None,
    past_length: Any = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    scale: float | None = None,
    mask_filter_value: float = FILTER,
    qkv_hidden_sizes: Any = None,
    do_rotary: int = 0,
    **_: Any,
) -> tuple[Any, ...]:
    """One product makes queries, keys and values; ``weights`` is [width, q + k + v]."""
    covered(past is None and past_length is None, NO_CACHE)
    covered(not do_rotary, "it rotates positions inside; export it unfused")
    total = extents(weights)[1]
    sizes = [int(size) for size in qkv_hidden_sizes or [int(total) // 3] * 3]
    made = op.Split(plus(op.MatMul(x, weights), bias), sizes, axis=-1, outputs=3)
    q, k, v = (apart(op, part, num_heads) for part in made)
    biases = [attention_bias, masked(op, mask, q, k, mask_filter_value), causal(op, q, k) if unidirectional else None]
    return attend(op, q, k, v, biases, scale), None


def _multi_head(
    op: Any,
    query: Any,
    key: Any = None,
    value: Any = None,
    bias: Any = None,
    mask: Any = None,
    attention_bias: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    *_more: Any,
    num_heads: int,
    unidirectional: int = 0,
    scale: float | None = None,
    mask_filter_value: float = FILTER,
    **_: Any,
) -> tuple[Any, ...]:
    """Queries [batch, length, width]; keys and values the same, or with their heads already apart."""
    covered(past_key is None and past_value is None and not any(m is not None for m in _more), NO_CACHE)
    if value is None:
        query, key, value = _unpacked(op, query, key)
    if bias is not None:
        covered(len(query.shape) == len(key.shape) == 3, "its heads are apart and biased; export it unfused")
        sizes = [int(extents(query)[2])] * 2
        sizes.append(int(extents(bias)[0]) - sum(sizes))
        parts = op.Split(bias, sizes, axis=0, outputs=3)
        query, key, value = (x + part for x, part in zip((query, key, value), parts, strict=True))
    q, k, v = (apart(op, part, num_heads) for part in (query, key, value))
    biases = [attention_bias, masked(op, mask, q, k, mask_filter_value), causal(op, q, k) if unidirectional else None]
    return attend(op, q, k, v, biases, scale), None, None


def _unpacked(op: Any, query: Any, key: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values from [batch, length, heads, 3, size], or keys and values from [batch, length, heads, 2, size]."""
    packed, count = (query, 3) if key is None else (key, 2)
    covered(len(packed.shape) == 5, "it has keys and no values; export it with both")
    parts = op.Split(packed, num_outputs=count, axis=3, outputs=count)
    heads = [op.Transpose(op.Squeeze(part, [3]), perm=[0, 2, 1, 3]) for part in parts]
    return (query, *heads) if count == 2 else tuple(heads)


FORMULAS: dict[str, Rule] = {"Attention": _attention, "MultiHeadAttention": _multi_head}
