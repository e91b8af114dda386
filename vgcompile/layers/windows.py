"""Sliding windows over the spatial axes of [batch, channels, ...], one to three of them: what convolution and pooling share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from vgcompile.layers.layer import Shape, Unfit
from vgcompile.layers.part import Natural, NotEmpty, Positive

SPATIAL = {1: "[batch, channels, length]", 2: "[batch, channels, height, width]", 3: "[batch, channels, depth, height, width]"}

PerAxis = Positive | Annotated[tuple[Positive, ...], NotEmpty]
Ends = Natural | tuple[Natural, Natural]
Explicit = Natural | Annotated[tuple[Ends, ...], NotEmpty]
Padding = Literal["same", "valid"] | Explicit


@dataclass(frozen=True)
class Window:
    """One entry an axis; ``before`` and ``after`` are cells of padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def attributes(self) -> dict[str, Any]:
        """ONNX's: pads are those before each axis, then those behind each."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "pads": [*self.before, *self.after],
        }


def spatial(kind: str, shape: Shape, rank: int | None = None) -> Shape:
    """The spatial extents of [batch, channels, ...]. Raises Unfit where there are not ``rank`` of them, or 1 to 3."""
    if len(shape) - 2 not in (SPATIAL if rank is None else (rank,)):
        wanted = " or ".join(SPATIAL.values()) if rank is None else SPATIAL[rank]
        raise Unfit(f"{kind} needs an input {wanted}")
    return shape[2:]


def per_axis(field: str, given: int | Sequence[Any], rank: int) -> tuple[Any, ...]:
    """One entry for each axis. Raises Unfit where a list has another length."""
    if isinstance(given, int):
        return (given,) * rank
    if len(given) != rank:
        names = SPATIAL[rank].removeprefix("[batch, channels, ")
        raise Unfit(f"{field} should be one number or [{names}, found a list of {len(given)}")
    return tuple(given)


def ends(given: Explicit, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cells before and behind each axis."""
    pairs = [(end, end) if isinstance(end, int) else end for end in per_axis("padding", given, rank)]
    return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def window(
    sizes: Shape, kernel: int | Sequence[int], stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int] = 1
) -> Window:
    """The window that moves over axes of these sizes.

    ``same`` keeps ceil(size / stride) positions and puts an odd cell at the end, as TensorFlow does. Raises Unfit where the
    window is larger than the padded image, or ``same`` hangs on a symbolic size.
    """
    given = {"kernel": kernel, "stride": stride, "dilation": dilation}
    taps, steps, gaps = (per_axis(field, value, len(sizes)) for field, value in given.items())
    reach = [gap * (tap - 1) + 1 for gap, tap in zip(gaps, taps, strict=True)]
    if padding == "same":
        totals = [_same(*axis) for axis in zip(sizes, reach, steps, strict=True)]
        before, after = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    else:
        before, after = ends(0 if padding == "valid" else padding, len(sizes))
    for axis, size in enumerate(sizes):
        if isinstance(size, int) and size + before[axis] + after[axis] < reach[axis]:
            raise Unfit(
                f"a window of {reach[axis]} is larger than axis {axis + 2} with its padding",
                "choose a smaller kernel or more padding",
            )
    return Window(taps, steps, gaps, before, after)


def _same(size: int | str, reach: int, stride: int) -> int:
    """Cells of padding along one axis."""
    if stride == 1:
        return reach - 1
    if isinstance(size, str):
        raise Unfit(f"padding 'same' with stride {stride} needs a known size, not {size!r}", "give the padding as a number")
    return max((-(-size // stride) - 1) * stride + reach - size, 0)
