"""Feed-forward layers beside the same in PyTorch: name -> layers, the input's shape, f(x, *parameters in the graph's order)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROW, TOKENS, LINE, PICTURE, SOLID = (6,), (5, 6), (4, 9), (4, 8, 7), (2, 5, 6, 4)
Case = tuple[str, tuple[int, ...], Callable[..., Tensor]]

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
ADAPTIVE_AVERAGE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
SHAPES = {1: LINE, 2: PICTURE, 3: SOLID}


def of_every_rank() -> dict[str, Case]:
    """Each spatial kind over one, two and three axes."""
    cases: dict[str, Case] = {}
    for rank, shape in SHAPES.items():
        channels = shape[0]
        conv, transposed = CONV[rank], TRANSPOSED[rank]
        pair = "[" + ", ".join(["[1, 2]"] * rank) + "]"
        cases |= {
            f"conv{rank}d": (
                f"{{kind: conv{rank}d, filters: 6, kernel: 3, stride: 2, padding: {pair}, groups: 2}}",
                shape,
                lambda x, w, b, conv=conv, rank=rank: conv(F.pad(x, (1, 2) * rank), w, b, 2, groups=2),
            ),
            f"conv{rank}d, same, dilated": (
                f"{{kind: conv{rank}d, filters: 3, kernel: 2, padding: same, dilation: 2, bias: false}}",
                shape,
                lambda x, w, conv=conv: conv(x, w, None, 1, 1, 2),
            ),
            f"depthwise_conv{rank}d": (
                f"{{kind: depthwise_conv{rank}d, kernel: 3, padding: 1, multiplier: 2}}",
                shape,
                lambda x, w, b, conv=conv, c=channels: conv(x, w, b, 1, 1, groups=c),
            ),
            f"separable_conv{rank}d": (
                f"{{kind: separable_conv{rank}d, kernel: 3, filters: 5, stride: 2, activation: relu}}",
                shape,
                lambda x, d, p, b, conv=conv, c=channels: F.relu(conv(conv(x, d, None, 2, groups=c), p, b)),
            ),
            f"conv_transpose{rank}d": (
                f"{{kind: conv_transpose{rank}d, filters: 4, kernel: 3, stride: 2, padding: 1, output_padding: 1, groups: 2}}",
                shape,
                lambda x, w, b, f=transposed: f(x, w, b, 2, 1, 1, 2),
            ),
            f"conv_transpose{rank}d, same": (
                f"{{kind: conv_transpose{rank}d, filters: 2, kernel: 4, stride: 2, padding: same}}",
                shape,
                lambda x, w, b, f=transposed: f(x, w, b, 2, 1),
            ),
            f"max_pool {rank}d": (
                "{kind: max_pool, kernel: 3, stride: 2, padding: 1}",
                shape,
                lambda x, f=MAX[rank]: f(x, 3, 2, 1),
            ),
            f"average_pool {rank}d": (
                "{kind: average_pool, kernel: 2, padding: 1, count_padding: true}",
                shape,
                lambda x, f=AVERAGE[rank]: f(x, 2, 2, 1),
            ),
            f"adaptive_max_pool {rank}d": (
                "{kind: adaptive_max_pool, size: 3}",
                shape,
                lambda x, f=ADAPTIVE_MAX[rank]: f(x, 3),
            ),
            f"adaptive_average_pool {rank}d": (
                "{kind: adaptive_average_pool, size: 3}",
                shape,
                lambda x, f=ADAPTIVE_AVERAGE[rank]: f(x, 3),
            ),
            f"global_max_pool {rank}d": ("{kind: global_max_pool}", shape, lambda x, r=rank: x.amax(_behind(r), keepdim=True)),
            f"global_average_pool {rank}d": (
                "{kind: global_average_pool}",
                shape,
                lambda x, r=rank: x.mean(_behind(r), keepdim=True),
            ),
            f"upsample {rank}d": ("{kind: upsample, scale: 2}", shape, lambda x: F.interpolate(x, scale_factor=2)),
            f"upsample {rank}d, linear": (
                "{kind: upsample, scale: 2, mode: linear}",
                shape,
                lambda x, r=rank: F.interpolate(x, scale_factor=2, mode={1: "linear", 2: "bilinear", 3: "trilinear"}[r]),
            ),
            f"pad {rank}d": (
                f"{{kind: pad, padding: {pair}, value: 0.5}}",
                shape,
                lambda x, r=rank: F.pad(x, (1, 2) * r, value=0.5),
            ),
            f"batch_norm {rank}d": (
                "{kind: batch_norm}",
                shape,
                lambda x, s, b: F.batch_norm(x, None, None, s, b, training=True),
            ),
            f"group_norm {rank}d": ("{kind: group_norm, groups: 2}", shape, lambda x, s, b: F.group_norm(x, 2, s, b)),
            f"instance_norm {rank}d": ("{kind: instance_norm}", shape, lambda x, s, b: F.instance_norm(x, None, None, s, b)),
        }
    return cases


def _behind(rank: int) -> tuple[int, ...]:
    return tuple(range(2, 2 + rank))


def _residual(x: Tensor, w: Tensor, b: Tensor, scale: Any) -> Tensor:
    return x + scale * torch.tanh(x @ w + b)


def _squeeze_excite(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return x * torch.sigmoid(F.conv2d(F.silu(F.conv2d(x.mean((2, 3), keepdim=True), w1, b1)), w2, b2))


def _weight_norm(v: Tensor, g: Tensor, unit_axis: int) -> Tensor:
    return torch._weight_norm(v, g, unit_axis)


OTHERS: dict[str, Case] = {
    "dense, rank 4": ("{kind: dense, units: 3}", SOLID, lambda x, w, b: x @ w + b),
    "dense, weight norm": (
        "{kind: dense, units: 3, weight_norm: true}",
        ROW,
        lambda x, v, g, b: x @ _weight_norm(v, g, 1) + b,
    ),
    "conv2d, weight norm": (
        "{kind: conv2d, filters: 3, kernel: 3, weight_norm: true}",
        PICTURE,
        lambda x, v, g, b: F.conv2d(x, _weight_norm(v, g, 0), b),
    ),
    "conv_transpose2d, weight norm": (
        "{kind: conv_transpose2d, filters: 3, kernel: 3, weight_norm: true}",
        PICTURE,
        lambda x, v, g, b: F.conv_transpose2d(x, _weight_norm(v, g, 1), b),
    ),
    "max_pool, dilated": ("{kind: max_pool, kernel: 2, stride: 1, dilation: 2}", PICTURE, lambda x: F.max_pool2d(x, 2, 1, 0, 2)),
    "max_pool, ceil": (
        "{kind: max_pool, kernel: 3, stride: 2, ceil: true}",
        PICTURE,
        lambda x: F.max_pool2d(x, 3, 2, 0, 1, True),
    ),
    "average_pool": (
        "{kind: average_pool, kernel: 3, stride: 2, padding: 1}",
        PICTURE,
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    "adaptive_average_pool, divisible": (
        "{kind: adaptive_average_pool, size: [4, 7]}",
        PICTURE,
        lambda x: F.adaptive_avg_pool2d(x, (4, 7)),
    ),
    "upsample, size": (
        "{kind: upsample, size: [13, 10], mode: linear}",
        PICTURE,
        lambda x: F.interpolate(x, (13, 10), mode="bilinear"),
    ),
    "upsample, size, nearest": ("{kind: upsample, size: [13, 10]}", PICTURE, lambda x: F.interpolate(x, (13, 10))),
    "upsample, cubic": (
        "{kind: upsample, scale: 2, mode: cubic}",
        PICTURE,
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    ),
    "pad, reflect": ("{kind: pad, padding: [[1, 2], 3], mode: reflect}", PICTURE, lambda x: F.pad(x, (3, 3, 1, 2), "reflect")),
    "pad, edge": ("{kind: pad, padding: 2, mode: edge}", PICTURE, lambda x: F.pad(x, (2, 2, 2, 2), "replicate")),
    "pad, wrap": ("{kind: pad, padding: [1, [0, 3]], mode: wrap}", PICTURE, lambda x: F.pad(x, (0, 3, 1, 1), "circular")),
    "flatten": ("{kind: flatten}", PICTURE, lambda x: x.flatten(1)),
    "flatten, some": ("{kind: flatten, start: 2}", PICTURE, lambda x: x.flatten(2)),
    "flatten, inner": ("{kind: flatten, start: 1, end: 2}", PICTURE, lambda x: x.flatten(1, 2)),
    "reshape": ("{kind: reshape, shape: [7, -1, 4]}", PICTURE, lambda x: x.reshape(len(x), 7, -1, 4)),
    "transpose": ("{kind: transpose, perm: [0, 2, 3, 1]}", PICTURE, lambda x: x.permute(0, 2, 3, 1)),
    "split": ("{kind: split, sizes: [1, 3], take: 1}", PICTURE, lambda x: x.split([1, 3], 1)[1]),
    "split, parts": ("{kind: split, parts: 4, axis: 2, take: 2}", PICTURE, lambda x: x.chunk(4, 2)[2]),
    "slice": ("{kind: slice, axis: -1, start: -6, end: -1, step: 2}", PICTURE, lambda x: x[..., -6:-1:2]),
    "select": ("{kind: select, index: -1}", TOKENS, lambda x: x[:, -1]),
    "multiply": ("{kind: tanh}\n{kind: multiply, from: [x, tanh]}", TOKENS, lambda x: x * torch.tanh(x)),
    "multiply, broadcast": (
        "{kind: global_max_pool, name: top}\n{kind: multiply, from: [x, top], broadcast: true}",
        PICTURE,
        lambda x: x * x.amax((2, 3), keepdim=True),
    ),
    "add, broadcast": (
        "{kind: global_average_pool, name: mean}\n{kind: add, from: [mean, x], broadcast: true, activation: relu}",
        PICTURE,
        lambda x: F.relu(x + x.mean((2, 3), keepdim=True)),
    ),
    "scale": ("{kind: scale, by: -0.5}", TOKENS, lambda x: -0.5 * x),
    "scale, learned": ("{kind: scale, by: {learned: 1e-6, axis: 1}}", PICTURE, lambda x, s: s * x),
    "residual, 1/sqrt(L)": (
        "{kind: residual, scale: 0.25, layers: [{kind: dense, units: 6, activation: tanh}]}",
        ROW,
        lambda x, w, b: _residual(x, w, b, 0.25),
    ),
    "residual, ReZero": (
        "{kind: residual, scale: {learned: 0.0}, layers: [{kind: dense, units: 6, activation: tanh}]}",
        ROW,
        _residual,
    ),
    "squeeze_excite": ("{kind: squeeze_excite, units: 2, activation: silu}", PICTURE, _squeeze_excite),
    "stop_gradient": (
        "{kind: stop_gradient, name: still}\n{kind: multiply, from: [x, still]}",
        ROW,
        lambda x: x * x.detach(),
    ),
    "layer_norm": ("{kind: layer_norm, axis: 1}", TOKENS, lambda x, s, b: F.layer_norm(x, s.shape, s, b)),
    "rms_norm": ("{kind: rms_norm}", TOKENS, lambda x, s: F.rms_norm(x, s.shape, s, 1e-5)),
    "group_norm, row": ("{kind: group_norm, groups: 2}", ROW, lambda x, s, b: F.group_norm(x, 2, s, b)),
    "dropout": ("{kind: dropout, rate: 0.0, drops: channels}", PICTURE, lambda x: x),
}

FUNCTIONS: dict[str, Case] = {
    name: (layers, TOKENS, function)
    for name, (layers, function) in {
        "identity": ("{kind: identity}", lambda x: x),
        "hard_swish": ("{kind: hard_swish}", F.hardswish),
        "prelu": ("{kind: prelu}", lambda x, a: torch.where(x > 0, x, a * x)),
        "prelu, channels": ("{kind: prelu, slope: {learned: 0.1, axis: 1}}", lambda x, a: F.prelu(x, a.flatten())),
        "prelu, in a layer": (
            "{kind: dense, units: 3, activation: prelu}",
            lambda x, w, b, a: torch.where(x @ w + b > 0, x @ w + b, a * (x @ w + b)),
        ),
        "thresholded_relu": ("{kind: thresholded_relu, alpha: 0.3}", lambda x: F.threshold(x, 0.3, 0.0)),
        "celu": ("{kind: celu, alpha: 0.7}", lambda x: F.celu(x, 0.7)),
        "swish": ("{kind: swish, alpha: 1.7}", lambda x: x * torch.sigmoid(1.7 * x)),
        "hard_tanh": ("{kind: hard_tanh}", F.hardtanh),
        "clip": ("{kind: clip, min: 0, max: 6}", F.relu6),
        "shrink": ("{kind: shrink, bias: 0.5}", F.softshrink),
        "shrink, hard": ("{kind: shrink}", F.hardshrink),
        "softmax": ("{kind: softmax}", lambda x: x.softmax(-1)),
        "softmax, axis": ("{kind: softmax, axis: 1}", lambda x: x.softmax(1)),
        "log_softmax": ("{kind: log_softmax}", lambda x: x.log_softmax(-1)),
        "softmax, in a layer": ("{kind: dense, units: 3, activation: softmax}", lambda x, w, b: (x @ w + b).softmax(-1)),
        "glu": ("{kind: glu}", F.glu),
        "reglu": ("{kind: reglu}", lambda x: F.relu(x[..., :3]) * x[..., 3:]),
        "geglu": ("{kind: geglu}", lambda x: F.gelu(x[..., :3]) * x[..., 3:]),
        "swiglu": (
            "{kind: dense, units: 8, activation: swiglu}",
            lambda x, w, b: F.silu((x @ w + b)[..., :4]) * (x @ w + b)[..., 4:],
        ),
        "expression": ('{kind: expression, formula: "x * tanh(softplus(x))"}', F.mish),
        "expression, where": (
            '{kind: expression, formula: "where(-1 < x <= 0.5 and not x == 0, x ** 2 / 2, abs(x) - 0.5)"}',
            lambda x: torch.where((x > -1) & (x <= 0.5), x**2 / 2, x.abs() - 0.5),
        ),
        "expression, learned": (
            '{kind: expression, parameters: {beta: {learned: 1.0, axis: -1}, c: 2}, formula: "c * x * sigmoid(-beta * x) + pi"}',
            lambda x, beta: 2 * x * torch.sigmoid(-beta * x) + torch.pi,
        ),
        "expression, two inputs": (
            '{kind: tanh, name: b}\n{kind: expression, from: [x, b], formula: "max(x, b, 0) * clip(b, -0.5, 2 ** -1)"}',
            lambda x: torch.maximum(x, torch.tanh(x)).clamp_min(0) * torch.tanh(x).clamp(-0.5, 0.5),
        ),
        "expression, in a layer": (
            '{kind: dense, units: 3, activation: {kind: expression, formula: "sin(3 * x)"}}',
            lambda x, w, b: torch.sin(3 * (x @ w + b)),
        ),
    }.items()
}

CASES = {**of_every_rank(), **OTHERS, **FUNCTIONS}

# For the laws that hold for every kind (test_layers.py): the kinds of this table, each with its first case, and the noisy ones.
NOISE: dict[str, tuple[str, tuple[int, ...]]] = {
    "alpha_dropout": ("{kind: alpha_dropout, rate: 0.3}", TOKENS),
    "gaussian_dropout": ("{kind: gaussian_dropout, rate: 0.3}", TOKENS),
    "gaussian_noise": ("{kind: gaussian_noise, sd: 0.3}", TOKENS),
}
SAMPLES = {name.split(",")[0].split(" ")[0]: case[:2] for name, case in reversed(CASES.items())} | NOISE
