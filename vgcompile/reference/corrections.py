"""Where onnx's evaluator (1.23.2) is wrong or imprecise: Erf and Gelu are good to float32 only, Softsign fails on a scalar,
ConvTranspose fails with groups, MaxPool gives wrong indices for some kernels, Pad takes no negative pads, Mean does not spread
its first operand, STFT takes no signal without an axis for its real part."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_stft

from vgcompile import special

Array = np.ndarray[Any, Any]


class Erf(OpRun):
    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.asarray(special.erf(x), x.dtype),)


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x: Array, approximate: str | None = None) -> tuple[Array]:
        if approximate == "tanh":
            return (0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1.0 + special.erf(x / np.sqrt(2.0))),)


class Softsign(OpRun):
    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.asarray(x / (1.0 + np.abs(x))),)


class Mean(OpRun):
    op_domain = ""

    def _run(self, *x: Array) -> tuple[Array]:
        return (np.asarray(sum(x) / len(x), x[0].dtype),)


def padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int] | None,
    auto: str,
) -> tuple[list[int], list[int]]:
    """Padding before and after each axis, as the standard resolves ``auto_pad``."""
    d = len(sizes)
    if auto in ("NOTSET", ""):
        return list((pads or [0] * 2 * d)[:d]), list((pads or [0] * 2 * d)[d:])
    if auto == "VALID":
        return [0] * d, [0] * d
    missing = [
        max((-(-n // s) - 1) * s + (k - 1) * a + 1 - n, 0) for n, k, s, a in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [m // 2 for m in missing], [m - m // 2 for m in missing]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


class MaxPool(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        auto_pad: str = "NOTSET",
        ceil_mode: int = 0,
        dilations: Sequence[int] | None = None,
        kernel_shape: Sequence[int] = (),
        pads: Sequence[int] | None = None,
        storage_order: int = 0,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array, ...]:
        d, sizes = len(kernel_shape), x.shape[2:]
        strides, dilations = strides or [1] * d, dilations or [1] * d
        before, after = padding(sizes, kernel_shape, strides, dilations, pads, auto_pad or "NOTSET")
        spans = [n + b + e - (k - 1) * a - 1 for n, b, e, k, a in zip(sizes, before, after, kernel_shape, dilations, strict=True)]
        extents = [(-(-span // s) if ceil_mode else span // s) + 1 for span, s in zip(spans, strides, strict=True)]
        # The last window must start inside the input or its left padding.
        extents = [m - ((m - 1) * s >= n + b) for m, s, n, b in zip(extents, strides, sizes, before, strict=True)]
        flat = x.reshape(*x.shape[:2], -1)
        y, indices = np.empty((*x.shape[:2], *extents), x.dtype), np.empty((*x.shape[:2], *extents), np.int64)
        for window in np.ndindex(*extents):
            places = list(_places(window, sizes, kernel_shape, strides, dilations, before))
            best = np.asarray(places)[flat[:, :, places].argmax(axis=2)]
            rows = np.arange(flat.shape[0] * flat.shape[1]).reshape(flat.shape[:2])
            y[(..., *window)] = flat.reshape(rows.size, -1)[rows.ravel(), best.ravel()].reshape(rows.shape)
            if storage_order:
                best = np.ravel_multi_index(np.unravel_index(best, sizes), sizes, order="F")
            if storage_order:
                best = np.ravel_multi_index(np.unravel_index(best, sizes), sizes, order="F")
            indices[(..., *window)] = best + rows * flat.shape[2]
        return (y, indices)[: len(self.output)]


def _places(
    window: Sequence[int],
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    before: Sequence[int],
) -> Iterator[int]:
    """The flat indices of a window's elements that lie in the input."""
    for tap in np.ndindex(*kernel):
        place = [w * s + t * a - b for w, s, t, a, b in zip(window, strides, tap, dilations, before, strict=True)]
        if all(0 <= p < n for p, n in zip(place, sizes, strict=True)):
            yield int(np.ravel_multi_index(place, sizes))


class ConvTranspose(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        w: Array,
        bias: Array | None = None,
        auto_pad: str = "NOTSET",
        dilations: Sequence[int] | None = None,
        group: int = 1,
        kernel_shape: Sequence[int] | None = None,
        output_padding: Sequence[int] | None = None,
        output_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[Array]:
        """Every input element adds its multiple of the kernel; then the pads are cut off."""
        d, kernel = x.ndim - 2, w.shape[2:]
        strides, dilations, extra = strides or [1] * d, dilations or [1] * d, output_padding or [0] * d
        full = [
            (n - 1) * s + (k - 1) * a + 1 + e
            for n, s, k, a, e in zip(x.shape[2:], strides, kernel, dilations, extra, strict=True)
        ]
        before, kept = self._cut(x.shape[2:], full, strides, pads, output_shape, auto_pad or "NOTSET")
        room = [max(f, b + m) for f, b, m in zip(full, before, kept, strict=True)]
        y = np.zeros((x.shape[0], w.shape[1] * group, *room), np.result_type(x, w))
        inputs, outputs = x.shape[1] // group, w.shape[1]
        for part, tap in itertools.product(range(group), np.ndindex(*kernel)):
            values = np.einsum(
                "nc...,co->no...",
                x[:, part * inputs : (part + 1) * inputs],
                w[(slice(part * inputs, (part + 1) * inputs), slice(None), *tap)],
            )
            where = [
                slice(t * a, t * a + (n - 1) * s + 1, s) for t, a, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
            ]
            y[(slice(None), slice(part * outputs, (part + 1) * outputs), *where)] += values
        inside: Any = (..., *(slice(b, b + m) for b, m in zip(before, kept, strict=True)))
        y = y[inside]
        return (y if bias is None else y + bias.reshape(-1, *[1] * d),)

    @staticmethod
    def _cut(
        sizes: Sequence[int],
        full: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int] | None,
        shape: Sequence[int] | None,
        auto: str,
    ) -> tuple[list[int], list[int]]:
        """How much is cut off before each axis, and how much is kept."""
        d = len(sizes)
        if shape is None and auto in ("NOTSET", "VALID"):
            pads = pads or [0] * 2 * d
            return list(pads[:d]), [f - b - e for f, b, e in zip(full, pads[:d], pads[d:], strict=True)]
        kept = list(shape) if shape is not None else [n * s for n, s in zip(sizes, strides, strict=True)]
        excess = [f - m for f, m in zip(full, kept, strict=True)]
        return [max(e, 0) // 2 if auto == "SAME_UPPER" else max(e, 0) - max(e, 0) // 2 for e in excess], kept


class Pad(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, mode: str | None = None
    ) -> tuple[Array]:
        """Widen by the positive pads, then cut by the negative ones; in the other modes than constant the standard has none."""
        axes = np.arange(x.ndim) if axes is None else np.ravel(axes) % x.ndim
        both = np.zeros((x.ndim, 2), np.int64)
        both[axes] = np.reshape(pads, (2, -1)).T
        modes = {
            "constant": {"constant_values": 0 if value is None else np.ravel(value)[0]},
            "edge": {},
            "reflect": {},
            "wrap": {},
        }
        wide = np.pad(x, np.maximum(both, 0), mode=mode or "constant", **modes[mode or "constant"])  # type: ignore[call-overload]
        cut = np.maximum(-both, 0)
        return (wide[tuple(slice(b, n - e) for n, (b, e) in zip(wide.shape, cut, strict=True))],)


class STFT(op_stft.STFT):
    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self, x: Array, step: Array, window: Array | None = None, length: Array | None = None, onesided: int | None = None
    ):
        return super()._run(x[..., None] if x.ndim == 2 else x, step, window, length, onesided)  # type: ignore[no-untyped-call]


OPERATORS = (Erf, Gelu, Softsign, Mean, MaxPool, ConvTranspose, Pad, STFT)
