"""GridSample and AffineGrid in float64, a loop for each point, from the definitions: the reference evaluator (onnx 1.23.2) works
in float32, and stops a cubic's place at the border, where ONNX Runtime and PyTorch stop each tap."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class GridSample(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, grid: Array, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
    ) -> tuple[Array]:
        sizes = x.shape[2:]
        y = np.zeros((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
        for point in np.ndindex(grid.shape[0], *grid.shape[1:-1]):
            axes = [_taps(float(c), n, align_corners, mode, padding_mode) for c, n in zip(grid[point][::-1], sizes, strict=True)]
            for taps in itertools.product(*axes):
                weight = math.prod(w for _, w in taps)
                y[(point[0], slice(None), *point[1:])] += weight * x[(point[0], slice(None), *(i for i, _ in taps))]
        return (y,)


def _taps(c: float, n: int, align: int, mode: str, padding: str) -> list[tuple[int, float]]:
    """Pixels of one axis with their weights, for a coordinate in [-1, 1]."""
    u = (c + 1.0) / 2.0 * (n - 1) if align else ((c + 1.0) * n - 1.0) / 2.0
    ends = (0.0, n - 1.0) if align else (-0.5, n - 0.5)
    if mode == "nearest":
        u = float(np.rint(u))
    if mode not in ("cubic", "bicubic") and not ends[0] <= u <= ends[1]:
        u = min(max(u, 0.0), n - 1.0) if padding == "border" else _mirror(u, *ends) if padding == "reflection" else u
    low = math.floor(u)
    t = u - low
    if mode == "nearest":
        weights = {low: 1.0}
    elif mode in ("linear", "bilinear"):
        weights = {low: 1.0 - t, low + 1: t}
    else:
        weights = {low + k: _cubic(abs(k - t)) for k in (-1, 0, 1, 2)}
    if padding == "zeros":
        return [(i, w) for i, w in weights.items() if 0 <= i < n]
    place = (lambda i: min(max(i, 0), n - 1)) if padding == "border" else (lambda i: int(_mirror(i, *ends)))
    return [(place(i), w) for i, w in weights.items()]


def _mirror(u: float, lo: float, hi: float) -> float:
    if lo == hi:
        return lo
    while not lo <= u <= hi:
        u = 2.0 * lo - u if u < lo else 2.0 * hi - u
    return u


def _cubic(d: float, a: float = -0.75) -> float:
    return ((a + 2) * d - (a + 3)) * d * d + 1 if d <= 1 else ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


class AffineGrid(OpRun):
    op_domain = ""

    def _run(self, theta: Array, size: Array, align_corners: int = 0) -> tuple[Array]:
        sizes = [int(n) for n in size[2:]]
        y = np.empty((theta.shape[0], *sizes, len(sizes)), theta.dtype)
        for point in np.ndindex(*sizes):
            p = [_centre(i, n, align_corners) for i, n in zip(point[::-1], sizes[::-1], strict=True)]
            y[(slice(None), *point)] = theta @ np.array([*p, 1.0])
        return (y,)


def _centre(i: int, n: int, align: int) -> float:
    return -1.0 + 2.0 * i / max(n - 1, 1) if align else (2.0 * i + 1.0) / n - 1.0


OPERATORS = [GridSample, AffineGrid]
