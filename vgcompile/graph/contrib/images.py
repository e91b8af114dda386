"""Convolutions and samples of images, channels first or last."""

from __future__ import annotations

from typing import Any

from vgcompile.graph.contrib.forms import activated, covered, plus, to_channels_first, to_channels_last
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents


def _convolution(
    op: Any, x: Any, w: Any, b: Any = None, z: Any = None, *, activation: str = "", activation_params: Any = (), **attributes: Any
) -> Any:
    """z is added before the activation."""
    return activated(op, plus(op.Conv(x, w, b, **attributes), z), activation, list(activation_params))


def _channels_last_convolution(op: Any, x: Any, w: Any, b: Any = None, *, kernel_shape: Any = None, **attributes: Any) -> Any:
    """The kernels have their channels last as well: the schema speaks of Conv's layout, the kernel and the tool that writes the
    files do not."""
    covered(
        kernel_shape is None or list(kernel_shape) == list(extents(w)[1:-1]),
        "its kernels are not [M, places ..., C / group]; export it as Conv",
    )
    return to_channels_last(op, op.Conv(to_channels_first(op, x), to_channels_first(op, w), b, **attributes))


def _channels_last_fused(
    op: Any, x: Any, w: Any, b: Any = None, z: Any = None, *, activation: str = "", activation_params: Any = (), **attributes: Any
) -> Any:
    """The kernels are Conv's; z, with its channels last, is added before the activation."""
    y = to_channels_last(op, op.Conv(to_channels_first(op, x), w, b, **attributes))
    return activated(op, plus(y, z), activation, list(activation_params))


def _grid_sample(op: Any, x: Any, grid: Any, *, mode: str = "bilinear", **attributes: Any) -> Any:
    return op.GridSample(x, grid, mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode), **attributes)


FORMULAS: dict[str, Rule] = {
    "FusedConv": _convolution,
    "NhwcConv": _channels_last_convolution,
    "NhwcFusedConv": _channels_last_fused,
    "GridSample": _grid_sample,
}
