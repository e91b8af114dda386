"""Sliding windows: the geometry that convolutions and pools share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.ops.op import Array, Attributes, Dim
from vgcompile.ops.shape import extents, shaped


@dataclass(frozen=True)
class Window:
    """A kernel of ``kernel`` taps an axis that visits a padded tensor; ``before`` and ``after`` are its pads."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def pads(self) -> list[int]:
        return [*self.before, *self.after]

    @property
    def span(self) -> tuple[int, ...]:
        """Extent from a window's first tap to its last, less one."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def overlap(self) -> int:
        """The largest number of windows that one element lies in."""
        steps = (s // math.gcd(s, d) for s, d in zip(self.strides, self.dilations, strict=True))
        return math.prod(-(-k // s) for k, s in zip(self.kernel, steps, strict=True))

    @property
    def attributes(self) -> dict[str, Any]:
        return {"strides": list(self.strides), "dilations": list(self.dilations), "pads": self.pads}

    def padded(self, extent: int, axis: int) -> int:
        return extent + self.before[axis] + self.after[axis]

    def remainder(self, extent: int, axis: int) -> int:
        """How many elements at the end of a padded axis no window reaches because the stride does not divide."""
        return (self.padded(extent, axis) - self.span[axis] - 1) % self.strides[axis]

    def meets(self, into: int, out: int, axis: int) -> Array:
        """[out, into]: how often a window reads an element of the unpadded axis."""
        k, s, d, pad = self.kernel[axis], self.strides[axis], self.dilations[axis], self.before[axis]
        places = np.arange(out)[:, None] * s - pad + np.arange(k) * d
        return np.asarray((places[:, :, None] == np.arange(into)).sum(axis=1, dtype=np.float64))

    def pairs(self, into: Dim, out: Dim, axis: int) -> tuple[float, float]:
        """Average number of taps of a window, and of windows over an element, that fall inside the unpadded axis."""
        k, s, d, pad = self.kernel[axis], self.strides[axis], self.dilations[axis], self.before[axis]
        if isinstance(into, str) or isinstance(out, str):
            return float(k), k / s
        inside = sum(0 <= o * s - pad + t * d < into for o in range(out) for t in range(k))
        return inside / max(out, 1), inside / max(into, 1)


def window(dims: Sequence[Dim], kernel: Sequence[int], attributes: Attributes) -> Window:
    """The window of a node over spatial extents ``dims``; where ``auto_pad`` depends on a symbolic extent, with the most padding
    that there can be: what the analyses read. Rules ask ``placed``."""
    rank = len(kernel)
    strides = tuple(attributes.get("strides") or (1,) * rank)
    dilations = tuple(attributes.get("dilations") or (1,) * rank)
    mode = attributes.get("auto_pad") or "NOTSET"
    if mode == "NOTSET":
        pads = tuple(attributes.get("pads") or (0,) * (2 * rank))
        return Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:])
    if mode == "VALID":
        return Window(tuple(kernel), strides, dilations, (0,) * rank, (0,) * rank)
    total = [_same(*sizes) for sizes in zip(dims, kernel, strides, dilations, strict=True)]
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return Window(tuple(kernel), strides, dilations, *((small, large) if mode == "SAME_UPPER" else (large, small)))


def _same(extent: Dim, kernel: int, stride: int, dilation: int) -> int:
    """Total padding for an output of ceil(extent / stride)."""
    last = 0 if isinstance(extent, str) else (extent - 1) % stride
    return max(dilation * (kernel - 1) - last, 0)


def padded_at_run_time(dims: Sequence[Dim], attributes: Attributes) -> bool:
    """Whether ``auto_pad`` depends on an extent that only a run tells."""
    strides = attributes.get("strides") or [1] * len(dims)
    same = (attributes.get("auto_pad") or "NOTSET").startswith("SAME")
    return same and any(isinstance(dim, str) and stride > 1 for dim, stride in zip(dims, strides, strict=True))


def disputed(dims: Sequence[Dim], kernel: Sequence[int], attributes: Attributes) -> str:
    """Why ``auto_pad`` is not read in one way, or "".

    Windows that leave gaps reach fewer elements than there are: the runtimes then drop the excess at either end, or at both.
    """
    if not (attributes.get("auto_pad") or "NOTSET").startswith("SAME"):
        return ""
    at = window(dims, kernel, attributes)
    last = [(dim - 1) % s if isinstance(dim, int) else s - 1 for dim, s in zip(dims, at.strides, strict=True)]
    if all(span - rest > -2 for span, rest in zip(at.span, last, strict=True)):
        return ""
    return "auto_pad SAME with a stride far beyond the kernel is read in several ways by the runtimes; give explicit pads"


@dataclass(frozen=True)
class Placed:
    """A tensor that a window visits, with pads that are known: as it was, or padded at run time already."""

    x: Any
    at: Window
    cut: Callable[[Any], Any]  # an adjoint of ``x`` -> the adjoint of the tensor as it was
    padded: Callable[[Any], Any]  # another tensor of these extents, put in the same frame


def placed(op: Any, x: Any, kernel: Sequence[int], attributes: Attributes) -> Placed:
    """``x`` for a window of known pads.

    Where ``auto_pad`` depends on a symbolic extent n, its total is max(span - (n - 1) mod stride, 0), and x is padded by it.
    """
    at = window(extents(x)[2:], kernel, attributes)
    if not padded_at_run_time(extents(x)[2:], attributes):
        return Placed(x, at, lambda dx: dx, lambda other: other)
    axes, size = list(range(2, len(x.shape))), op.Shape(x, start=2)
    last, strides = size - 1, np.asarray(at.strides)
    total = op.Max(op.Sub(np.asarray(at.span), last - op.Div(last, strides) * strides), 0)
    small = op.Div(total, 2)
    before, after = (small, total - small) if attributes["auto_pad"] == "SAME_UPPER" else (total - small, small)
    pads = op.Concat(before, after, axis=0)

    def pad(other: Any) -> Any:
        made = op.Pad(other, pads, None, axes)
        return with_spatial(made, other, made)

    bare = Window(at.kernel, at.strides, at.dilations, (0,) * len(axes), (0,) * len(axes))
    return Placed(pad(x), bare, lambda dx: shaped(op.Slice(dx, before, before + size, axes), x), pad)


def same_extents(x: Any, kernel: Sequence[Dim], attributes: Attributes) -> Any:
    """``x`` where a window of stride 1 gives out as many positions as it visits, else None: ONNX's inference does not see it."""
    strides = attributes.get("strides") or [1] * len(kernel)
    if set(strides) != {1} or any(isinstance(k, str) for k in kernel):
        return None
    at = window(extents(x)[2:], [int(k) for k in kernel], attributes)
    return x if all(b + a == s for b, a, s in zip(at.before, at.after, at.span, strict=True)) else None


def cropped(op: Any, y: Any, x: Any) -> Any:
    """The first elements of ``y`` along each spatial axis, as many as ``x`` has."""
    axes, spatial = list(range(2, len(x.shape))), extents(x)[2:]
    ends = op.Shape(x, start=2) if any(isinstance(dim, str) for dim in spatial) else list(spatial)
    return with_spatial(op.Slice(y, [0] * len(axes), ends, axes), x if y.shape is None else y, x)


def with_spatial(made: Any, front: Any, x: Any) -> Any:
    """Say that a value has the batch and channels of ``front`` and the spatial extents of ``x``."""
    made.shape = type(x.shape)([*front.shape[:2], *x.shape[2:]])
    return made


def ends(at: Window, dims: Sequence[Dim]) -> tuple[list[int], list[int], bool]:
    """How a transposed convolution ends that goes back over a window's visits to extents ``dims``: what it cuts off after them,
    what it adds (its ``output_padding``), and whether that is more than may be needed.

    The stride may leave a remainder that no window reached. Where it is not known the most of it is added.
    """
    cut, add, beyond = [], [], False
    for axis, dim in enumerate(dims):
        rest = at.remainder(dim, axis) if isinstance(dim, int) else at.strides[axis] - 1
        both = min(at.after[axis], rest) if isinstance(dim, int) else 0
        cut.append(at.after[axis] - both)
        add.append(rest - both)
        beyond |= isinstance(dim, str) and rest > 0
    return cut, add, beyond
