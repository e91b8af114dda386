"""Positions as rotations."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.graph.contrib.forms import covered
from vgcompile.graph.contrib.heads import apart
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents


def rotated(
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
    rows = apart(op, x, heads)
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


FORMULAS: dict[str, Rule] = {"RotaryEmbedding": rotated}
