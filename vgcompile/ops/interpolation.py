"""The interpolation matrix of one resized axis: a row holds the weights of an output position.

A matrix is given only where the standard leaves no doubt about it: runtimes differ where a scale leaves a fraction of a pixel,
and round differently where a position falls between two pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.ops.op import Array, Attributes, Dim

FREE = ("half_pixel", "asymmetric")  # where a position depends on the scale alone and not on an extent


@dataclass(frozen=True)
class Along:
    """One resized axis: its entry in the operands, its extents, its scale, and its part of the region; None where unknown."""

    axis: int
    entry: int
    into: Dim
    out: Dim
    scale: float | None
    region: tuple[float, float] | None


def resized(
    x: Sequence[Dim], y: Sequence[Dim], operands: Sequence[Array | None], scaled: bool, attributes: Attributes
) -> list[Along]:
    """The axes that a node resizes; ``operands`` are region, scales and sizes where they are known, ``scaled`` says that there
    are scales. An axis of scale 1 stays as it is, except that a region may move along it."""
    region, scales, sizes = operands
    axes = [axis % len(x) for axis in attributes["axes"] or range(len(x))]
    crops = attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    keeps_ratio = not scaled and attributes["keep_aspect_ratio_policy"] != "stretch"
    found = []
    for entry, axis in enumerate(axes):
        into, out = x[axis], y[axis]
        if scales is not None:
            scale: float | None = float(scales[entry])
        elif scaled:
            scale = None
        elif keeps_ratio:
            scale = _common_scale([x[axis] for axis in axes], sizes, attributes["keep_aspect_ratio_policy"])
        elif isinstance(into, int) and isinstance(out, int):
            scale = out / max(into, 1)
        else:
            scale = 1.0 if into == out else None
        part = None if region is None else (float(region[entry]), float(region[entry + len(axes)]))
        if scale != 1.0 or crops:
            found.append(Along(axis, entry, into, out, scale, part if crops else (0.0, 1.0)))
    return found


def _common_scale(into: Sequence[Dim], sizes: Array | None, policy: str) -> float | None:
    if sizes is None or any(isinstance(dim, str) for dim in into):
        return None
    ratios = [float(size) / int(dim) for size, dim in zip(sizes, into, strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


def interpolation(at: Along, attributes: Attributes) -> Array | None:
    """The matrix [out, into] of one axis, None where it is not known or not the same in every runtime."""
    if not isinstance(at.into, int) or not isinstance(at.out, int) or at.scale is None or at.region is None:
        return None
    fraction = at.scale * at.into != at.out
    single = attributes["coordinate_transformation_mode"] == "pytorch_half_pixel" and at.out == 1
    outside = attributes["exclude_outside"] and attributes["mode"] != "cubic"
    unsettled = fraction and attributes["coordinate_transformation_mode"] not in FREE
    if attributes["antialias"] or single or outside or unsettled or 0 in (at.into, at.out):
        return None
    exact, rounded = (_weights(_positions(at, attributes, real), at.into, attributes) for real in (np.float64, np.float32))
    return exact if np.abs(exact - rounded).max() < 1e-2 else None


def _positions(at: Along, attributes: Attributes, real: Any) -> Array:
    """Where in the input each output position lies, computed in the given precision; NaN where a region leaves the input."""
    assert isinstance(at.into, int) and isinstance(at.out, int) and at.scale is not None and at.region is not None
    mode, o, scale = attributes["coordinate_transformation_mode"], np.arange(at.out, dtype=real), real(at.scale)
    if mode == "asymmetric":
        return np.asarray(o / scale)
    if mode == "align_corners":
        return np.asarray(o * real(at.into - 1) / real(max(at.out - 1, 1)))
    if mode == "tf_crop_and_resize":
        start, end = (real(part) * real(at.into - 1) for part in at.region)
        x = start + o * (end - start) / real(at.out - 1) if at.out > 1 else real(0.5) * (start + end) + o
        return np.where((x < 0) | (x > at.into - 1), np.nan, x)
    return np.asarray((o + real(0.5)) / scale - real(0.5))


def _weights(x: Array, into: int, attributes: Attributes) -> Array:
    """Taps of each position with their weights; beyond the ends the last element counts, or (exclude_outside) nothing does."""
    outside, x = np.isnan(x), np.nan_to_num(x).astype(np.float64)
    if attributes["mode"] == "nearest":
        pick = {"floor": np.floor(x), "ceil": np.ceil(x), "round_prefer_ceil": np.floor(x + 0.5)}
        taps, weights = pick.get(attributes["nearest_mode"], np.ceil(x - 0.5))[:, None], np.ones((len(x), 1))
    else:
        first = np.floor(x)
        offsets = np.arange(-1, 3) if attributes["mode"] == "cubic" else np.arange(2)
        taps = first[:, None] + offsets
        distance = np.abs(x[:, None] - taps)
        weights = _keys(distance, attributes["cubic_coeff_a"]) if attributes["mode"] == "cubic" else 1.0 - distance
    if attributes["exclude_outside"]:
        weights = np.where((taps >= 0) & (taps < into), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(x), into))
    rows = np.broadcast_to(np.arange(len(x))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, into - 1).astype(int)), np.where(outside[:, None], 0.0, weights))
    return matrix


def _keys(distance: Array, a: float) -> Array:
    """The cubic convolution kernel (Keys 1981)."""
    near = ((a + 2.0) * distance - (a + 3.0)) * distance**2 + 1.0
    far = ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
    return np.where(distance <= 1.0, near, far)


def repetition(at: Along, attributes: Attributes) -> int:
    """How often each element is repeated in a row, where that is all that happens; else 0."""
    mode, k = attributes["coordinate_transformation_mode"], at.scale
    if k is None or k < 2.0 or k != int(k) or attributes["mode"] != "nearest" or mode == "tf_crop_and_resize":
        return 0
    if mode == "align_corners" and not isinstance(at.into, int):
        return 0
    few = at.into if mode == "align_corners" and isinstance(at.into, int) else 4
    matrix = interpolation(Along(at.axis, at.entry, few, few * int(k), k, at.region), attributes)
    return int(k) if matrix is not None and np.array_equal(matrix, np.repeat(np.eye(few), int(k), axis=0)) else 0
