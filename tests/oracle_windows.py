"""Operators with windows, in plain NumPy from their definitions: a loop for each window, and nothing shared with the rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


def _pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Any, auto: str
) -> list[tuple[int, int]]:
    """(before, after) of each axis."""
    rank = len(kernel)
    if auto == "VALID":
        return [(0, 0)] * rank
    if auto == "NOTSET":
        given = pads or [0] * (2 * rank)
        return list(zip(given[:rank], given[rank:], strict=True))
    found = []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        windows = -(-n // s)
        missing = max((windows - 1) * s + d * (k - 1) + 1 - n, 0)
        less, more = missing // 2, missing - missing // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def pooled(x: Array, pool: Callable[[Array, int], Array], attributes: dict[str, Any]) -> Array:
    """``pool(elements [N, C, count], taps)`` of each window; taps are those over elements and padding, not those beyond both."""
    kernel, sizes = attributes["kernel_shape"], x.shape[2:]
    rank = len(kernel)
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    auto = attributes.get("auto_pad") or "NOTSET"
    pads = _pads(sizes, kernel, strides, dilations, attributes.get("pads"), auto)
    starts = []
    for n, k, s, d, (before, after) in zip(sizes, kernel, strides, dilations, pads, strict=True):
        span = d * (k - 1)
        last = n + after - span - 1  # the last start of a window that lies within the padded axis
        if attributes.get("ceil_mode") and (last + before) % s:
            last += s
        starts.append([start for start in range(-before, last + 1, s) if start < n])
    y = np.empty((*x.shape[:2], *map(len, starts)), x.dtype)
    for where in np.ndindex(*map(len, starts)):
        inside, taps = [], 0
        for tap in np.ndindex(*kernel):
            place = [starts[a][w] + t * dilations[a] for a, (w, t) in enumerate(zip(where, tap, strict=True))]
            taps += all(-b <= p < n + a for p, n, (b, a) in zip(place, sizes, pads, strict=True))
            if all(0 <= p < n for p, n in zip(place, sizes, strict=True)):
                inside.append(x[(slice(None), slice(None), *place)])
        y[(..., *where)] = pool(np.stack(inside, axis=-1), taps)
    return y


class AveragePool(OpRun):
    op_domain = ""

    def _run(self, x: Array, count_include_pad: int = 0, **attributes: Any) -> tuple[Array]:
        return (pooled(x, lambda v, taps: v.sum(axis=-1) / (taps if count_include_pad else v.shape[-1]), attributes),)


class LpPool(OpRun):
    op_domain = ""

    def _run(self, x: Array, p: int = 2, **attributes: Any) -> tuple[Array]:
        return (pooled(x, lambda v, taps: (np.abs(v) ** p).sum(axis=-1) ** (1.0 / p), attributes),)


class GlobalLpPool(OpRun):
    op_domain = ""

    def _run(self, x: Array, p: int = 2) -> tuple[Array]:
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1.0 / p),)


class MaxUnpool(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, indices: Array, output_shape: Any = None, kernel_shape: Any = (), strides: Any = None, pads: Any = None
    ) -> tuple[Array]:
        """Places count through the output that the window implies; a larger one has zeros around it."""
        rank = len(kernel_shape)
        strides, pads = strides or [1] * rank, pads or [0] * (2 * rank)
        implied = [
            (n - 1) * s + k - b - a
            for n, s, k, b, a in zip(x.shape[2:], strides, kernel_shape, pads[:rank], pads[rank:], strict=True)
        ]
        y = np.zeros((*x.shape[:2], *implied), x.dtype)
        for place, value in zip(indices.ravel(), x.ravel(), strict=True):
            y.flat[place] = value
        if output_shape is None:
            return (y,)
        wide = np.zeros(output_shape, x.dtype)
        wide[tuple(slice(0, n) for n in y.shape)] = y
        return (wide,)


def _visits(
    image: Sequence[int], block: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """(tap, window, pixel) for each copy of a pixel in the columns."""
    rank = len(block)
    windows = [(n + pads[a] + pads[a + rank] - dilations[a] * (block[a] - 1) - 1) // strides[a] + 1 for a, n in enumerate(image)]
    taps = np.ndindex(*block)
    for (k, tap), (o, window) in itertools.product(enumerate(taps), enumerate(list(np.ndindex(*windows)))):
        place = tuple(w * strides[a] - pads[a] + t * dilations[a] for a, (w, t) in enumerate(zip(window, tap, strict=True)))
        if all(0 <= p < n for p, n in zip(place, image, strict=True)):
            yield k, o, place


class Col2Im(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, image: Array, block: Array, strides: Any = None, dilations: Any = None, pads: Any = None
    ) -> tuple[Array]:
        rank, taps = len(block), int(np.prod(block))
        strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * (2 * rank)
        columns = x.reshape(x.shape[0], -1, taps, x.shape[2])
        y = np.zeros((*columns.shape[:2], *image), x.dtype)
        for k, o, place in _visits(image.tolist(), block.tolist(), strides, dilations, pads):
            y[(slice(None), slice(None), *place)] += columns[:, :, k, o]
        return (y,)


OPERATORS = [AveragePool, LpPool, GlobalLpPool, MaxUnpool, Col2Im]
