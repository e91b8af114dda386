"""Sums over windows and their adjoint, for the pools whose windows are sums: of averages and of powers.

WindowSpread(g, x) -> dx                   "tiles" (windows side by side), "spread" (any)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vgcompile.ops.op import INTERNAL, Attributes, Body, Case, Dim, Op, Sample
from vgcompile.ops.pooling import windows_of
from vgcompile.ops.shape import extents, reshaped, shaped
from vgcompile.ops.window import Placed, Window, cropped, ends, window


def spread(op: Any, g: Any, ready: Placed, divisor: int, ceil: bool) -> Any:
    """g over ``divisor``, handed to every tap of its window: the adjoint of the pooled tensor."""
    shape = {"kernel_shape": list(ready.at.kernel), **ready.at.attributes}
    return ready.cut(op.WindowSpread(g, ready.x, divisor=divisor, ceil_mode=int(ceil), **shape))


def hangs(attributes: Attributes, ceil_mode: int) -> bool:
    """Whether a window may hang over the padded end: with ``ceil_mode``, unless ``auto_pad`` fits the padding to the windows."""
    return bool(ceil_mode) and not (attributes.get("auto_pad") or "NOTSET").startswith("SAME")


def window_means(op: Any, x: Any, y: Any, at: Window, ceil: bool) -> Any:
    """The sum over each window of x, zeros around it, divided by the number of taps; as many windows as y has."""
    shape = {"kernel_shape": list(at.kernel), "strides": list(at.strides), "dilations": list(at.dilations)}
    if not ceil and all(p < k for p, k in zip(at.pads, at.kernel * 2, strict=True)):
        pads = {"pads": at.pads, "count_include_pad": 1} if any(at.pads) else {}
        return op.AveragePool(x, **shape, **pads)
    after = [max(a, s) if ceil else a for a, s in zip(at.after, at.span, strict=True)]
    wide = op.Pad(x, [*at.before, *after], None, list(range(2, 2 + len(at.kernel))))
    means = op.AveragePool(wide, **shape)
    return cropped(op, means, y) if ceil else means


def shares(op: Any, g: Any, x: Any, ready: Placed, ceil: bool, padding_counts: bool) -> tuple[Any, int]:
    """g and a divisor that together make g over the number of elements in each window.

    Where that number differs and is known at run time only, it is counted by pooling ones.
    """
    at, into, out = ready.at, extents(x)[2:], extents(g)[2:]
    if not ceil and (padding_counts or (ready.x is x and not any(at.pads))):
        return g, at.taps
    if ready.x is x and not any(isinstance(dim, str) for dim in (*into, *out)):
        return g * (1.0 / windows_of(at, into, out, padding_counts)).astype(x.dtype.numpy()), 1
    size = op.Shape(x, start=2)
    if padding_counts:
        size = size + np.add(at.before, at.after)
        at = replace(at, before=(0,) * len(at.kernel), after=(0,) * len(at.kernel))
    ones = op.Expand(1.0, op.Concat(np.ones(2, np.int64), size, axis=0))
    return g / window_means(op, ready.padded(ones), g, at, ceil), at.taps


# ---- bodies: inputs g [N, C, out...], x [N, C, in...]


def _is_tiling(case: Case) -> bool:
    """Windows lie side by side and cover everything."""
    dims = (case.shapes[1] or ())[2:]
    at = window(dims, case.attributes["kernel_shape"], case.attributes)
    whole = all(isinstance(dim, int) and dim % k == 0 for dim, k in zip(dims, at.kernel, strict=True))
    return whole and at.strides == at.kernel and not any(at.pads) and set(at.dilations) == {1}


def _tiles(op: Any, g: Any, x: Any, *, kernel_shape: Sequence[int], divisor: int, **_: Any) -> Any:
    lead, spatial = extents(g)[:2], [int(dim) for dim in extents(g)[2:]]
    front = [-1 if isinstance(dim, str) else dim for dim in lead] if sum(isinstance(d, str) for d in lead) < 2 else [0, 0]
    share = g * (1.0 / divisor) if divisor > 1 else g
    cells = op.Reshape(share, [*front, *(n for dim in spatial for n in (dim, 1))])
    return reshaped(op, op.Expand(cells, [1, 1, *(n for k in kernel_shape for n in (1, k))]), x)


def _spread(op: Any, g: Any, x: Any, *, kernel_shape: Sequence[int], divisor: int, ceil_mode: int, **attributes: Any) -> Any:
    """A transposed convolution, channel by channel; where their number is not known, every channel as a sample of its own."""
    dims, channels = extents(x)[2:], extents(x)[1]
    at = window(dims, kernel_shape, attributes)
    cut, rest, beyond = _hanging(at, dims, extents(g)[2:]) if ceil_mode else ends(at, dims)
    shape = {**at.attributes, "pads": [*at.before, *cut], "output_padding": rest if any(rest) else None}
    kernel = np.full((1, 1, *at.kernel), 1.0 / divisor, x.dtype.numpy())
    if isinstance(channels, int):
        dx = op.ConvTranspose(g, np.repeat(kernel, channels, axis=0), group=channels, **shape)
        return cropped(op, dx, x) if beyond else shaped(dx, x)
    dx = op.ConvTranspose(op.Reshape(g, _samples_of_one_channel(op, g)), kernel, **shape)
    return reshaped(op, cropped(op, dx, x) if beyond else dx, x)


def _samples_of_one_channel(op: Any, g: Any) -> Any:
    spatial = extents(g)[2:]
    if any(isinstance(dim, str) for dim in spatial):
        return op.Concat(np.array([-1, 1]), op.Shape(g, start=2), axis=0)
    return [-1, 1, *spatial]


def _hanging(at: Window, into: Sequence[Dim], out: Sequence[Dim]) -> tuple[list[int], list[int], bool]:
    """What ``ends`` says, for windows that hang over the end."""
    known = all(isinstance(dim, int) for dim in (*into, *out))
    if not known:
        return [0] * len(into), [s - 1 for s in at.strides], True
    tail = [
        (int(m) - 1) * s + span + 1 - before - int(n)
        for n, m, s, span, before in zip(into, out, at.strides, at.span, at.before, strict=True)
    ]
    return [max(t, 0) for t in tail], [max(-t, 0) for t in tail], False


def _vjp(
    op: Any, h: Any, y: Any, g: Any, x: Any, *, kernel_shape: Sequence[int], divisor: int, ceil_mode: int, **attributes: Any
) -> tuple[Any, ...]:
    at = window(extents(x)[2:], kernel_shape, attributes)
    means = window_means(op, h, g, at, bool(ceil_mode))
    return shaped(means if divisor == at.taps else means * (at.taps / divisor), g), None


def _sample(g: tuple[Dim, ...], x: tuple[Dim, ...], divisor: int, ceil_mode: int = 0, **given: list[int]) -> Sample:
    ones = [1] * len(given["kernel_shape"])
    window = {"dilations": ones, "pads": [0] * (2 * len(ones)), **given}
    return Sample((g, x), {"divisor": divisor, "ceil_mode": ceil_mode, **window})


WindowSpread = Op(
    "WindowSpread",
    "Each adjoint over a divisor, handed to every tap of its window: g [N, C, out...], x only for its shape.",
    unpredicted="it stands in gradients alone, which are predicted from the forward operators",
    domain=INTERNAL,
    vjp=_vjp,
    bodies=(
        Body("tiles", _tiles, _is_tiling),
        Body("spread", _spread, cost=lambda case: float(case.count(case.shapes[1]))),
    ),
    infer=lambda g, x, **_: x,
    samples=(
        _sample(("N", 2, 2), ("N", 2, 4), 2, kernel_shape=[2], strides=[2]),
        _sample(("N", 2, 3), ("N", 2, 5), 1, kernel_shape=[3], strides=[2], pads=[1, 1]),
        _sample(("N", 2, 4), ("N", 2, 7), 3, ceil_mode=1, kernel_shape=[3], strides=[2], pads=[0, 1]),
        _sample(("N", "C", 2, 2), ("N", "C", 5, 4), 4, kernel_shape=[2, 2], strides=[2, 2]),
        _sample(("N", 2, 3, 1), ("N", 2, 4, 6), 6, kernel_shape=[2, 3], strides=[1, 4], dilations=[1, 2]),
    ),
)

ROWS = (WindowSpread,)
