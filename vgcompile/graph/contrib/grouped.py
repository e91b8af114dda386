"""Attention in which several queries share a head of keys and values, as decoders have it.

Only the first pass over a text is opened, which has no past. Behind the end of a shorter text, where ONNX Runtime leaves the rows
open (``seqlens_k``), they are computed like all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.graph.contrib.forms import covered
from vgcompile.graph.contrib.heads import NO_CACHE, apart, attend, causal, width_of
from vgcompile.graph.contrib.rotary import rotated
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents

_SCALED_OR_NORMED = "it scales its cache, normalizes its heads or pads its queries inside; export it unfused"


def _grouped(
    op: Any,
    query: Any,
    key: Any = None,
    value: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    seqlens_k: Any = None,
    total_sequence_length: Any = None,
    cos: Any = None,
    sin: Any = None,
    position_ids: Any = None,
    attention_bias: Any = None,
    head_sink: Any = None,
    *_more: Any,
    num_heads: int,
    kv_num_heads: int,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    local_window_size: int = -1,
    smooth_softmax: int = -1,
    softcap: float = 0.0,
    scale: float | None = None,
    **attributes: Any,
) -> tuple[Any, ...]:
    """Gives out the keys and values too, their heads apart: the cache for the words that follow."""
    _refuse(past_key, past_value, _more, attributes)
    if key is None:
        size = width_of(query) // (num_heads + 2 * kv_num_heads)
        query, key, value = op.Split(
            query, [heads * size for heads in (num_heads, kv_num_heads, kv_num_heads)], axis=-1, outputs=3
        )
    if do_rotary:
        first = np.zeros(1, np.int64) if position_ids is None else op.Slice(op.Reshape(position_ids, [-1]), [0], [1])
        query, key = (
            _turned(op, x, first, cos, sin, heads, rotary_interleaved) for x, heads in ((query, num_heads), (key, kv_num_heads))
        )
    q = apart(op, query, num_heads)
    k, v = (apart(op, _repeated(op, x, kv_num_heads, num_heads), num_heads) for x in (key, value))
    sink = np.zeros(num_heads, q.dtype.numpy()) if smooth_softmax == 1 and head_sink is None else head_sink
    y = attend(op, q, k, v, [attention_bias, causal(op, q, k, local_window_size)], scale, softcap, sink)
    return y, *(apart(op, x, kv_num_heads) for x in (key, value))


def _refuse(past_key: Any, past_value: Any, more: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    """Raises ModelError for what the formula does not do."""
    for past in (past_key, past_value):
        covered(past is None or extents(past)[2] == 0, f"{NO_CACHE}, or make its past an empty constant")
    covered(not attributes.get("sliding_window_cache"), NO_CACHE)
    covered(all(operand is None for operand in more), _SCALED_OR_NORMED)
    covered(attributes.get("causal", 1) == 1, "it looks ahead, as far as each text goes; export it unfused")


def _turned(op: Any, x: Any, first: Any, cos: Any, sin: Any, heads: int, interleaved: int) -> Any:
    """By the positions from ``first`` on."""
    covered(cos is not None and sin is not None, "it rotates, by nothing; export it with both caches")
    half = extents(cos)[1]
    covered(isinstance(half, int), "the number of rotated entries is a symbol; export it with fixed caches")
    return rotated(op, x, first, cos, sin, interleaved=interleaved, num_heads=heads, rotary_embedding_dim=2 * int(half))


def _repeated(op: Any, x: Any, heads: int, queries: int) -> Any:
    """[batch, length, heads * size] with each head as often as queries share it."""
    if heads == queries:
        return x
    size, group = width_of(x) // heads, queries // heads
    copies = op.Expand(op.Reshape(x, [0, 0, heads, 1, size]), [1, 1, 1, group, 1])
    return op.Reshape(copies, [0, 0, queries * size])


FORMULAS: dict[str, Rule] = {"GroupQueryAttention": _grouped}
