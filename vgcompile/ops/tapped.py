"""Convolutions of known kernels as linear maps of one sample, one matrix product for each tap: in float64, at any extents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from vgcompile.interval import EPSILON
from vgcompile.ops.op import Array, LinearMap
from vgcompile.ops.window import Window


@dataclass(frozen=True)
class Tapped:
    """A convolution of ``kernel`` [out, in / group, *taps] between positions of extents ``into`` and ``out``."""

    kernel: Array
    into: tuple[int, ...]
    out: tuple[int, ...]
    at: Window
    group: int = 1

    @property
    def channels(self) -> tuple[int, int]:
        return self.kernel.shape[1] * self.group, self.kernel.shape[0]

    def forward(self, x: Array) -> Array:
        """[S, in, *into] to [S, out, *out]."""
        padded = self._padded(x)
        y = np.zeros((len(x), self.group, self.kernel.shape[0] // self.group, math.prod(self.out)))
        for tap, seen in self._taps():
            part = padded[(slice(None), slice(None), *seen)].reshape(len(x), self.group, self.kernel.shape[1], -1)
            y += self._matrix(tap) @ part
        return y.reshape(len(x), -1, *self.out)

    def backward(self, g: Array) -> Array:
        """[S, out, *out] to [S, in, *into]."""
        back = np.zeros((len(g), self.channels[0], *self._extents()))
        parts = g.reshape(len(g), self.group, self.kernel.shape[0] // self.group, -1)
        for tap, seen in self._taps():
            part = np.swapaxes(self._matrix(tap), -1, -2) @ parts
            back[(slice(None), slice(None), *seen)] += part.reshape(len(g), -1, *self.out)
        inside = [slice(before, before + extent) for before, extent in zip(self.at.before, self.into, strict=True)]
        return np.ascontiguousarray(back[(slice(None), slice(None), *inside)])

    def _matrix(self, tap: tuple[int, ...]) -> Array:
        """One tap's matrix for each group: [group, out / group, in / group]."""
        matrix = np.moveaxis(self.kernel.reshape(*self.kernel.shape[:2], -1), -1, 0)[np.ravel_multi_index(tap, self.at.kernel)]
        return np.asarray(matrix.reshape(self.group, -1, self.kernel.shape[1]), np.float64)

    def _taps(self) -> Iterator[tuple[tuple[int, ...], list[slice]]]:
        """Every tap, with the padded elements that it meets as the window goes over the positions."""
        steps = list(zip(self.at.dilations, self.at.strides, self.out, strict=True))
        for tap in product(*map(range, self.at.kernel)):
            yield tap, [slice(t * d, t * d + s * (o - 1) + 1, s) for t, (d, s, o) in zip(tap, steps, strict=True)]

    def _extents(self) -> tuple[int, ...]:
        """Padded, and as far as the last window reaches."""
        reach = [s * (o - 1) + span + 1 for s, o, span in zip(self.at.strides, self.out, self.at.span, strict=True)]
        return tuple(
            max(before + extent + max(after, 0), last)
            for before, extent, after, last in zip(self.at.before, self.into, self.at.after, reach, strict=True)
        )

    def _padded(self, x: Array) -> Array:
        wide = np.zeros((*x.shape[:2], *self._extents()))
        inside = [slice(before, before + extent) for before, extent in zip(self.at.before, self.into, strict=True)]
        wide[(slice(None), slice(None), *inside)] = x
        return wide


def flattened(conv: Tapped, transposed: bool = False) -> LinearMap:
    """The convolution, or its transpose, on rows of flattened samples."""
    inside, outside = conv.channels
    into, out = (inside, *conv.into), (outside, *conv.out)

    def forward(t: Array) -> Array:
        return conv.forward(t.reshape(len(t), *into)).reshape(len(t), -1)

    def backward(g: Array) -> Array:
        return conv.backward(g.reshape(len(g), *out)).reshape(len(g), -1)

    terms = conv.at.taps * max(conv.kernel.shape[1], conv.kernel.shape[0] // conv.group) + 4
    size = float(np.linalg.norm(conv.kernel)) * math.sqrt(conv.at.overlap)
    error = 4.0 * terms * EPSILON * size
    return LinearMap(backward, forward, size, error) if transposed else LinearMap(forward, backward, size, error)
