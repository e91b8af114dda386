"""Sliding windows: the geometry that convolutions and pools share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgcompile.ops.op import Attributes, Case, Dim


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

    def pairs(self, into: Dim, out: Dim, axis: int) -> tuple[float, float]:
        """Average number of taps of a window, and of windows over an element, that fall inside the unpadded axis."""
        k, s, d, pad = self.kernel[axis], self.strides[axis], self.dilations[axis], self.before[axis]
        if isinstance(into, str) or isinstance(out, str):
            return float(k), k / s
        inside = sum(0 <= o * s - pad + t * d < into for o in range(out) for t in range(k))
        return inside / max(out, 1), inside / max(into, 1)


def window(dims: Sequence[Dim], kernel: Sequence[int], attributes: Attributes) -> Window:
    """The window of a node over spatial extents ``dims``. Raises ValueError where ``auto_pad`` depends on a symbolic extent."""
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
    if stride == 1:
        return dilation * (kernel - 1)
    if isinstance(extent, str):
        raise ValueError(
            f"auto_pad SAME with a stride needs to know the extent {extent!r}; give explicit pads, or a static shape"
        )
    return max((-(-extent // stride) - 1) * stride + dilation * (kernel - 1) + 1 - extent, 0)


def same_extents(x: Any, kernel: Sequence[Dim], attributes: Attributes) -> Any:
    """``x`` where a window of stride 1 gives out as many positions as it visits, else None: ONNX's inference does not see it."""
    dims = [dim if isinstance(dim, int) else str(dim.value) for dim in x.shape][2:]
    strides = attributes.get("strides") or [1] * len(kernel)
    if set(strides) != {1} or any(isinstance(k, str) for k in kernel):
        return None
    at = window(dims, [int(k) for k in kernel], attributes)
    return x if all(b + a == s for b, a, s in zip(at.before, at.after, at.span, strict=True)) else None


def unresolved(case: Case, kernel: Sequence[Dim] | None) -> str:
    """Why the window of a node cannot be resolved, or ""."""
    dims = case.shapes[0]
    if dims is None or kernel is None or any(isinstance(k, str) for k in kernel):
        return "the kernel's extents are not known when compiling"
    try:
        window(dims[2:], [int(k) for k in kernel], case.attributes)
    except ValueError as error:
        return str(error)
    return ""


def cropped(op: Any, y: Any, x: Any) -> Any:
    """The first elements of ``y`` along each spatial axis, as many as ``x`` has."""
    axes = list(range(2, len(x.shape)))
    return op.Slice(y, [0] * len(axes), op.Shape(x, start=2), axes)
