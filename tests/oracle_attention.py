"""Attention and normalizations in plain NumPy, written from the standard's text, where its evaluator (onnx 1.23.2) falls short.

Its Attention takes a mask's extent for the number of queries when it is causal, and shows raw scores after the softcap; its LRN
counts channels by the batch; its L1 norm adds the elements themselves; its MeanVarianceNormalization,
its GroupNormalization, its LinearAttention and the activation of CausalConvWithState are of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


def heads_of(x: Array, heads: int | None) -> Array:
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


class Attention(OpRun):
    """One query after the other; a hidden key is left out, not given a great negative score."""

    op_domain = ""

    def _run(
        self,
        q: Array,
        k: Array,
        v: Array,
        mask: Array | None = None,
        past_key: Array | None = None,
        past_value: Array | None = None,
        valid: Array | None = None,
        is_causal: int = 0,
        kv_num_heads: int | None = None,
        left_window_size: int | None = -1,
        q_num_heads: int | None = None,
        qk_matmul_output_mode: int = 0,
        right_window_size: int | None = -1,
        scale: float | None = None,
        softcap: float = 0.0,
        softmax_precision: int | None = None,
    ) -> tuple[Array, ...]:
        packed, past = q.ndim == 3, 0 if past_key is None else past_key.shape[2]
        q, k, v = heads_of(q, q_num_heads), heads_of(k, kv_num_heads), heads_of(v, kv_num_heads)
        if past_key is not None:
            k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)
        batch, heads, queries, size = q.shape
        keys, share = k.shape[2], heads // k.shape[1]
        bias = self._bias(mask, (batch, heads, queries, keys))
        left = np.inf if left_window_size in (None, -1) else left_window_size
        right = np.inf if right_window_size in (None, -1) else right_window_size
        y, shown = np.zeros((*q.shape[:3], v.shape[3]), q.dtype), np.zeros((batch, heads, queries, keys), q.dtype)
        for b, h, i in np.ndindex(batch, heads, queries):
            key, value = k[b, h // share], v[b, h // share]
            raw = key @ q[b, h, i] * (size**-0.5 if scale is None else scale)
            capped = softcap * np.tanh(raw / softcap) if softcap else raw
            here = i + (past if valid is None else int(valid[b]) - queries)
            there = np.arange(keys)
            seen = (there >= here - left) & (there <= here + min(right, 0 if is_causal else np.inf))
            seen &= there < (keys if valid is None else int(valid[b]))
            row = np.where(seen, bias[b, h, i], -np.inf)
            found, weights = row > -np.inf, np.zeros(keys, q.dtype)
            if found.any():
                e = np.exp(capped[found] + row[found] - (capped[found] + row[found]).max())
                weights[found] = e / e.sum()
            y[b, h, i] = weights[found] @ value[found]
            shown[b, h, i] = (raw, capped, np.where(found, capped + row, -np.inf), weights)[qk_matmul_output_mode or 0]
        if packed:
            y = y.transpose(0, 2, 1, 3).reshape(batch, queries, -1)
        return (y, k, v, shown)[: len(self.output)]

    @staticmethod
    def _bias(mask: Array | None, shape: Sequence[int]) -> Array:
        if mask is None:
            return np.zeros(shape)
        bias = np.where(mask, 0.0, -np.inf) if mask.dtype == np.bool_ else np.asarray(mask, np.float64)
        missing = np.full((*bias.shape[:-1], shape[-1] - bias.shape[-1]), -np.inf)
        return np.broadcast_to(np.concatenate([bias, missing], axis=-1), shape)


class LRN(OpRun):
    op_domain = ""

    def _run(self, x: Array, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int = 1) -> tuple[Array]:
        y = np.empty_like(x)
        for c in range(x.shape[1]):
            near = x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1]
            y[:, c] = x[:, c] / (bias + alpha / size * (near * near).sum(axis=1)) ** beta
        return (y,)


class LpNormalization(OpRun):
    op_domain = ""

    def _run(self, x: Array, axis: int = -1, p: int = 2) -> tuple[Array]:
        norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0.0),)


class MeanVarianceNormalization(OpRun):
    op_domain = ""

    def _run(self, x: Array, axes: Sequence[int] = (0, 2, 3)) -> tuple[Array]:
        over = tuple(axes)
        return ((x - x.mean(axis=over, keepdims=True)) / (x.std(axis=over, keepdims=True) + 1e-9),)


class GroupNormalization(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, scale: Array, bias: Array, epsilon: float = 1e-5, num_groups: int = 1, stash_type: int = 1
    ) -> tuple[Array]:
        rows = x.reshape(x.shape[0], num_groups, -1)
        z = (rows - rows.mean(axis=2, keepdims=True)) / np.sqrt(rows.var(axis=2, keepdims=True) + epsilon)
        channels = (-1, *[1] * (x.ndim - 2))
        return (z.reshape(x.shape) * scale.reshape(channels) + bias.reshape(channels),)


class LinearAttention(OpRun):
    """Token after token, head after head."""

    op_domain = ""

    def _run(
        self,
        q: Array,
        k: Array,
        v: Array,
        past: Array | None = None,
        decay: Array | None = None,
        beta: Array | None = None,
        chunk_size: int = 64,
        kv_num_heads: int = 1,
        q_num_heads: int = 1,
        scale: float = 0.0,
        update_rule: str = "gated_delta",
    ) -> tuple[Array, Array]:
        q, k, v = heads_of(q, q_num_heads), heads_of(k, kv_num_heads), heads_of(v, kv_num_heads)
        batch, heads, tokens, size = q.shape
        share = heads // kv_num_heads
        state = np.zeros((batch, kv_num_heads, size, v.shape[3]), q.dtype) if past is None else past.copy()
        y = np.empty((batch, tokens, heads, v.shape[3]), q.dtype)
        rate = None if decay is None else np.exp(heads_of(decay, kv_num_heads))
        for b, h, t in np.ndindex(batch, kv_num_heads, tokens):
            held = state[b, h] if rate is None else state[b, h] * rate[b, h, t][:, None]
            written = v[b, h, t]
            if beta is not None:
                written = (written - k[b, h, t] @ held) * beta[b, t, h if beta.shape[2] > 1 else 0]
            state[b, h] = held + np.outer(k[b, h, t], written)
            for reader in range(h * share, (h + 1) * share):
                y[b, t, reader] = (scale or size**-0.5) * q[b, reader, t] @ state[b, h]
        return y.reshape(batch, tokens, -1), state


class CausalConvWithState(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, w: Array, bias: Array | None = None, past: Array | None = None, activation: str | None = "none"
    ) -> tuple[Array, Array]:
        taps, length = w.shape[2], x.shape[2]
        line = np.concatenate([np.zeros((*x.shape[:2], taps - 1), x.dtype) if past is None else past, x], axis=2)
        y = sum(w[:, 0, tap, None] * line[:, :, tap : tap + length] for tap in range(taps))
        y = y if bias is None else y + bias[:, None]
        return (y if activation in (None, "none") else y / (1.0 + np.exp(-y))), line[:, :, length:]


OPERATORS = [Attention, LRN, LpNormalization, MeanVarianceNormalization, GroupNormalization, LinearAttention, CausalConvWithState]
