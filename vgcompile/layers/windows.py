"""Sliding windows over the two spatial axes of [batch, channels, height, width]: what convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from vgcompile.layers.layer import Shape, Unfit
from vgcompile.layers.part import Natural, Positive


def _both(given: object) -> object:
    return (given, given) if isinstance(given, int) else given


Pair = Annotated[tuple[Positive, Positive], BeforeValidator(_both, json_schema_input_type=Positive | tuple[Positive, Positive])]
_Explicit = Annotated[tuple[Natural, Natural], BeforeValidator(_both, json_schema_input_type=Natural | tuple[Natural, Natural])]
Padding = Literal["same", "valid"] | _Explicit


def require_image(kind: str, shape: Shape) -> None:
    """Raises Unfit where ``shape`` is not [batch, channels, height, width]."""
    if len(shape) != 4:
        raise Unfit(f"{kind} needs an input [batch, channels, height, width]")


def window(
    shape: Shape, kernel: Sequence[int], stride: Sequence[int], padding: str | Sequence[int], dilation: Sequence[int] = (1, 1)
) -> dict[str, Any]:
    """ONNX's ``kernel_shape``, ``strides`` and explicit ``pads`` [top, left, bottom, right].

    ``same`` keeps ceil(size / stride) positions and puts an odd cell at the end, as TensorFlow does. Raises Unfit where the
    window is larger than the padded image, or ``same`` hangs on a symbolic size.
    """
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        totals = [_same(*axis) for axis in zip(shape[2:], reach, stride, strict=True)]
        pads = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    else:
        pads = [0, 0, 0, 0] if padding == "valid" else [int(pad) for pad in (*padding, *padding)]
    for axis, size in enumerate(shape[2:]):
        if isinstance(size, int) and size + pads[axis] + pads[axis + 2] < reach[axis]:
            raise Unfit(
                f"a window of {reach[axis]} is larger than axis {axis + 2} with its padding",
                "choose a smaller kernel or more padding",
            )
    return {"kernel_shape": list(kernel), "strides": list(stride), "pads": pads}


def _same(size: int | str, reach: int, stride: int) -> int:
    """Cells of padding along one axis."""
    if stride == 1:
        return reach - 1
    if isinstance(size, str):
        raise Unfit(f"padding 'same' with stride {stride} needs a known size, not {size!r}", "give the padding as a number")
    return max((-(-size // stride) - 1) * stride + reach - size, 0)
