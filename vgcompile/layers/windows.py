"""Sliding windows over the two spatial axes of [batch, channels, height, width]: what convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator

from vgcompile.layers.layer import Shape, Unfit, show
from vgcompile.layers.part import Natural, Positive


def _both(given: object) -> object:
    return (given, given) if isinstance(given, int) else given


Pair = Annotated[tuple[Positive, Positive], BeforeValidator(_both, json_schema_input_type=Positive | tuple[Positive, Positive])]
Padding = (
    Literal["same", "valid"]
    | Annotated[tuple[Natural, Natural], BeforeValidator(_both, json_schema_input_type=Natural | tuple[Natural, Natural])]
)


def require_image(kind: str, shape: Shape) -> None:
    if len(shape) != 4:
        raise Unfit(f"{kind} needs an input [batch, channels, height, width], found {show(shape)}")


def pads(
    padding: Literal["same", "valid"] | tuple[int, int], spatial: Shape, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """ONNX's explicit pads [top, left, bottom, right].

    ``same`` keeps ceil(size / stride) positions and puts an odd cell at the end, as TensorFlow does. Raises Unfit where that hangs on
    a symbolic size.
    """
    if padding == "valid":
        return [0, 0, 0, 0]
    if not isinstance(padding, str):
        return [*padding, *padding]
    totals = [_same(*axis) for axis in zip(spatial, kernel, stride, dilation, strict=True)]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _same(size: int | str, kernel: int, stride: int, dilation: int) -> int:
    window = dilation * (kernel - 1) + 1
    if stride == 1:
        return window - 1
    if isinstance(size, str):
        raise Unfit(f"padding 'same' with stride {stride} needs a known size, found {size!r}", "give the padding as a number")
    return max((-(-size // stride) - 1) * stride + window - size, 0)
