"""Reading between elements, and pools over regions: plain loops from the definitions, nothing shared with the rules."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


def interpolated(image: Array, place: Array) -> Any:
    """Multilinear, with zeros outside of the image [..., n1, n2, ...]."""
    total: Any = 0.0
    low = np.floor(place).astype(int)
    for step in itertools.product((0, 1), repeat=len(place)):
        corner = low + step
        if all(0 <= i < n for i, n in zip(corner, image.shape[-len(place) :], strict=True)):
            total = total + np.prod(1.0 - np.abs(place - corner)) * image[(..., *corner)]
    return total


class DeformConv(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        w: Array,
        offset: Array,
        b: Array | None = None,
        mask: Array | None = None,
        dilations: Any = None,
        group: int = 1,
        kernel_shape: Any = None,
        offset_group: int = 1,
        pads: Any = None,
        strides: Any = None,
    ) -> tuple[Array]:
        rank, kernel = x.ndim - 2, w.shape[2:]
        strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * (2 * rank)
        y = np.zeros((x.shape[0], w.shape[0], *offset.shape[2:]), x.dtype)
        moved = offset.reshape(x.shape[0], offset_group, math.prod(kernel), rank, *offset.shape[2:])
        shares = np.ones_like(moved[:, :, :, 0]) if mask is None else mask.reshape(moved[:, :, :, 0].shape)
        for n, c, out in np.ndindex(x.shape[0], x.shape[1], math.prod(offset.shape[2:])):
            where = np.unravel_index(out, offset.shape[2:])
            part, own = c // (x.shape[1] // offset_group), c % w.shape[1]
            first = c // w.shape[1] * (w.shape[0] // group)
            outputs = slice(first, first + w.shape[0] // group)
            for k, tap in enumerate(np.ndindex(*kernel)):
                base = [o * s - p + t * d for o, s, p, t, d in zip(where, strides, pads[:rank], tap, dilations, strict=True)]
                value = interpolated(x[n, c], np.array(base) + moved[(n, part, k, slice(None), *where)])
                y[(n, outputs, *where)] += w[(outputs, own, *tap)] * value * shares[(n, part, k, *where)]
        return (y if b is None else y + b.reshape(-1, *(1 for _ in range(rank))),)


def _sample(extent: int, place: float) -> list[tuple[int, float]]:
    """(element, weight) of the two elements that a place along an axis lies between; within 1 of the end it is the end."""
    if place < -1.0 or place > extent:
        return [(0, 0.0), (0, 0.0)]
    place = min(max(place, 0.0), extent - 1.0)
    low = int(place)
    return [(low, 1.0 - (place - low)), (min(low + 1, extent - 1), place - low)]


class RoiAlign(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        rois: Array,
        batch: Array,
        coordinate_transformation_mode: str = "half_pixel",
        mode: str = "avg",
        output_height: int = 1,
        output_width: int = 1,
        sampling_ratio: int = 0,
        spatial_scale: float = 1.0,
    ) -> tuple[Array]:
        half = coordinate_transformation_mode == "half_pixel"
        bins = (output_height, output_width)
        y = np.zeros((len(rois), x.shape[1], *bins), x.dtype)
        for r, (x1, y1, x2, y2) in enumerate(rois * spatial_scale - (0.5 if half else 0.0)):
            lengths = [y2 - y1 if half else max(y2 - y1, 1.0), x2 - x1 if half else max(x2 - x1, 1.0)]
            each = [length / bin_ for length, bin_ in zip(lengths, bins, strict=True)]
            grid = [sampling_ratio or max(math.ceil(e), 0) for e in each]
            for at in np.ndindex(*bins):
                found = []
                for inner in np.ndindex(*grid):
                    places = [s + (b + (i + 0.5) / n) * e for s, b, i, n, e in zip((y1, x1), at, inner, grid, each, strict=True)]
                    rows, columns = (_sample(n, place) for n, place in zip(x.shape[2:], places, strict=True))
                    found.append([wi * wj * x[batch[r], :, i, j] for (i, wi), (j, wj) in itertools.product(rows, columns)])
                if found:
                    values = np.array(found)  # [samples, 4, C]
                    y[(r, slice(None), *at)] = values.sum(1).mean(0) if mode == "avg" else values.max(axis=(0, 1))
        return (y,)


class MaxRoiPool(OpRun):
    op_domain = ""

    def _run(self, x: Array, rois: Array, pooled_shape: Any = (), spatial_scale: float = 1.0) -> tuple[Array]:
        y = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
        for r, (n, *box) in enumerate(rois):
            x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(v * spatial_scale) + 0.5), v)) for v in box)
            for at in np.ndindex(*pooled_shape):
                cut = []
                for b, first, last, bins, extent in zip(at, (y1, x1), (y2, x2), pooled_shape, x.shape[2:], strict=True):
                    each = max(last - first + 1, 1) / bins
                    ends = math.floor(b * each) + first, math.ceil((b + 1) * each) + first
                    cut.append(slice(*(min(max(end, 0), extent) for end in ends)))
                part = x[(int(n), slice(None), *cut)]
                if part[0].size:
                    y[(r, slice(None), *at)] = part.max(axis=(1, 2))
        return (y,)


OPERATORS = [DeformConv, RoiAlign, MaxRoiPool]
