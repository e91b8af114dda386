"""ONNX Runtime's attention operators, opened: heads apart, scores, mask, softmax, values, heads together.

    Y = softmax(scale Q K^T + bias) V        [batch, length, heads * size] in and out

The forms that carry a cache of past keys are refused: they are for generating, one word at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.graph.contrib import covered, plus
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents

_FILTER = -10000.0  # what ONNX Runtime adds to a masked score
_NO_CACHE = "it carries a cache of past keys; export the model without it (use_cache=False)"


def _apart(op: Any, x: Any, heads: int) -> Any:
    """[batch, length, heads * size] as [batch, heads, length, size]."""
    if len(x.shape) == 4:
        return x
    width = extents(x)[2]
    covered(isinstance(width, int), "the width of its heads is a symbol; export it with a fixed width")
    return op.Transpose(op.Reshape(x, [0, 0, heads, int(width) // heads]), perm=[0, 2, 1, 3])


def _attend(op: Any, q: Any, k: Any, v: Any, bias: Any, scale: float | None) -> Any:
    """On heads that stand apart; the result has them together."""
    size = extents(q)[3]
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])) * float(scale or int(size) ** -0.5)
    y = op.MatMul(op.Softmax(plus(scores, bias), axis=-1), v)
    heads, width = extents(v)[1], extents(v)[3]
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, int(heads) * int(width)])


def _causal(op: Any, q: Any, k: Any, filtered: float) -> Any:
    """[queries, keys]: the filter above the diagonal."""
    shape = op.Concat(op.Shape(q, start=2, end=3), op.Shape(k, start=2, end=3), axis=0)
    above = op.Trilu(op.Expand(np.ones((1, 1), np.int32), shape), np.array(1), upper=1)
    return op.Cast(above, to=int(q.dtype)) * filtered


def _hidden(op: Any, mask: Any, q: Any, k: Any, filtered: float) -> Any:
    """A mask as a bias: [batch, keys] or [batch, queries, keys], 1 where a key counts; or [batch], how many count."""
    rank = len(mask.shape)
    covered(rank in (1, 2, 3), "its mask has more than three axes; export it with a mask of [batch, length]")
    if rank == 1:
        batch = extents(mask)[0]
        covered(batch == extents(q)[0], "its mask tells where rows begin and end; export it with a mask of [batch, length]")
        length = op.Squeeze(op.Shape(k, start=2, end=3), [0])
        mask = op.Less(op.Range(np.array(0), length, np.array(1)), op.Unsqueeze(op.Cast(mask, to=7), [1]))
    shown = op.Cast(mask, to=int(q.dtype))
    return (1.0 - op.Unsqueeze(shown, [1] if rank == 3 else [1, 2])) * filtered


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
    mask_filter_value: float = _FILTER,
    qkv_hidden_sizes: Any = None,
    do_rotary: int = 0,
    **_: Any,
) -> tuple[Any, ...]:
    """One product makes queries, keys and values; ``weights`` is [width, q + k + v]."""
    covered(past is None and past_length is None, _NO_CACHE)
    covered(not do_rotary, "it rotates positions inside; export it unfused")
    total = extents(weights)[1]
    sizes = [int(size) for size in qkv_hidden_sizes or [int(total) // 3] * 3]
    made = op.Split(plus(op.MatMul(x, weights), bias), sizes, axis=-1, outputs=3)
    q, k, v = (_apart(op, part, num_heads) for part in made)
    terms = [attention_bias]
    if mask is not None:
        terms.append(_hidden(op, mask, q, k, mask_filter_value))
    if unidirectional:
        terms.append(_causal(op, q, k, float(np.finfo(np.float32).min)))
    there = [term for term in terms if term is not None]
    return (_attend(op, q, k, v, plus(*there) if there else None, scale), None)


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
    mask_filter_value: float = _FILTER,
    **_: Any,
) -> tuple[Any, ...]:
    """Queries [batch, length, width]; keys and values the same, or with their heads already apart."""
    covered(past_key is None and past_value is None and not any(m is not None for m in _more), _NO_CACHE)
    covered(
        key is not None and value is not None and len(key.shape) in (3, 4), "its keys and values are packed; export it unpacked"
    )
    if bias is not None:
        sizes = [int(extents(query)[2])] * 2
        sizes.append(int(extents(bias)[0]) - sum(sizes))
        parts = op.Split(bias, sizes, axis=0, outputs=3)
        covered(len(key.shape) == 3, "its heads are apart and biased; export it unfused")
        query, key, value = (x + part for x, part in zip((query, key, value), parts, strict=True))
    q, k, v = (_apart(op, part, num_heads) for part in (query, key, value))
    terms = [attention_bias]
    if mask is not None:
        terms.append(_hidden(op, mask, q, k, mask_filter_value))
    if unidirectional:
        terms.append(_causal(op, q, k, float(np.finfo(np.float32).min)))
    there = [term for term in terms if term is not None]
    return _attend(op, q, k, v, plus(*there) if there else None, scale), None, None


def _rotary(
    op: Any,
    x: Any,
    positions: Any,
    cos: Any,
    sin: Any,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
    is_packed_batching: int = 0,
    **_: Any,
) -> Any:
    """Each pair (a, b) of a head turned by its position's angle: (a cos - b sin, a sin + b cos)."""
    covered(not is_packed_batching and scale == 1.0, "it packs or scales its positions; export it unfused")
    half = extents(cos)[1]
    covered(isinstance(half, int), "the number of rotated entries is a symbol; export it with fixed caches")
    heads = num_heads if rotary_embedding_dim else int(extents(x)[-1]) // (2 * int(half))
    given = len(x.shape) == 3
    rows = _apart(op, x, heads)
    if len(positions.shape) == 1 or extents(positions) == (1,):  # where the first row begins
        length = op.Squeeze(op.Shape(rows, start=2, end=3), [0])
        first = op.Reshape(positions, [])
        positions = op.Unsqueeze(first + op.Range(np.array(0), length, np.array(1)), [0])
    c, s = (op.Unsqueeze(op.Gather(cache, positions), [1]) for cache in (cos, sin))  # [batch, 1, length, half]
    half = int(half)
    rest = op.Slice(rows, [2 * half], [2**31 - 1], [-1]) if rotary_embedding_dim else None
    if interleaved:
        a, b = op.Slice(rows, [0], [2 * half], [-1], [2]), op.Slice(rows, [1], [2 * half], [-1], [2])
        pair = op.Concat(*(op.Unsqueeze(part, [-1]) for part in (a * c - b * s, a * s + b * c)), axis=-1)
        turned = op.Reshape(pair, op.Concat(op.Shape(rows, end=3), [2 * half], axis=0))
    else:
        a, b = op.Slice(rows, [0], [half], [-1]), op.Slice(rows, [half], [2 * half], [-1])
        turned = op.Concat(a * c - b * s, a * s + b * c, axis=-1)
    if rest is not None:
        turned = op.Concat(turned, rest, axis=-1)
    return op.Reshape(op.Transpose(turned, perm=[0, 2, 1, 3]), [0, 0, int(extents(x)[2])]) if given else turned


FORMULAS: dict[str, Rule] = {"Attention": _attention, "MultiHeadAttention": _multi_head, "RotaryEmbedding": _rotary}
