"""Random networks of at most a million parameters, by number: families of layers, activations, depths, widths, initial values."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Layers = Callable[[random.Random, int, str], list[str]]
SMOOTH = ("sigmoid", "tanh", "softsign", "gelu", "silu", "softplus")
RECTIFYING = ("relu", "leaky_relu", "elu", "selu")
INITS = ("glorot_normal", "he_normal", "lecun_normal", "pytorch_default", "he_uniform", "glorot_uniform")


@dataclass(frozen=True)
class Model:
    family: str
    activation: str
    text: str

    @property
    def is_homogeneous(self) -> bool:
        """Whether scaling a layer scales what comes behind it: its weights' gradients are then balanced whatever those of
        its values are (Du, Hu and Lee 2018)."""
        return self.activation in ("relu", "leaky_relu") and self.family in ("chain", "convolution")


def _initial(draw: random.Random) -> str:
    kind = draw.choice(["named", "scaled", "orthogonal"])
    if kind == "named":
        return draw.choice(INITS)
    if kind == "scaled":
        return f"{{kind: variance_scaling, scale: {10 ** draw.uniform(-1.0, 1.5):.3f}}}"
    return f"{{kind: orthogonal, gain: {10 ** draw.uniform(-0.4, 0.8):.3f}}}"


def _dense(width: int, activation: str) -> str:
    return f"{{kind: dense, units: {width}, activation: {activation}}}"


def _chain(draw: random.Random, width: int, activation: str) -> list[str]:
    return [_dense(width, activation)]


def _residual(draw: random.Random, width: int, activation: str) -> list[str]:
    scale = draw.choice(["1", "1", "0.5", "0.1"])
    return [f"{{kind: residual, scale: {scale}, layers: [{_dense(width, activation)}]}}"]


def _pre_norm(draw: random.Random, width: int, activation: str) -> list[str]:
    inner = f"{{kind: layer_norm}}, {_dense(width, activation)}, {{kind: dense, units: {width}}}"
    return [f"{{kind: residual, layers: [{inner}]}}"]


def _normalized(norm: str) -> Layers:
    def layers(draw: random.Random, width: int, activation: str) -> list[str]:
        return [f"{{kind: dense, units: {width}, bias: false}}", f"{{kind: {norm}, activation: {activation}}}"]

    return layers


def _normalized_residual(draw: random.Random, width: int, activation: str) -> list[str]:
    inner = f"{{kind: dense, units: {width}, bias: false}}, {{kind: batch_norm, activation: {activation}}}"
    return [f"{{kind: residual, layers: [{inner}]}}"]


def _convolution(draw: random.Random, width: int, activation: str) -> list[str]:
    return [f"{{kind: conv2d, filters: {width}, kernel: 3, padding: same, activation: {activation}}}"]


FAMILIES: Mapping[str, Layers] = {
    "chain": _chain,
    "residual": _residual,
    "pre-norm residual": _pre_norm,
    "batch norm": _normalized("batch_norm"),
    "layer norm": _normalized("layer_norm"),
    "batch norm residual": _normalized_residual,
    "convolution": _convolution,
}


def model(number: int) -> Model:
    """One network; the same number gives the same text."""
    draw = random.Random(number)
    family = draw.choices(list(FAMILIES), [4, 1, 1, 2, 1, 1, 2])[0]
    images = family == "convolution"
    width = draw.choice([8, 12, 16] if images else [32, 64, 96])
    depth = draw.randint(5, 16 if images else 45)
    activation = draw.choice(draw.choice([SMOOTH, RECTIFYING]))
    repeated = FAMILIES[family](draw, width, activation)
    body = ", ".join(repeated)
    stem = repeated[0] if images else _dense(width, "tanh")
    tail = "  - {kind: flatten}\n" if images else ""
    shape = "[batch, 3, 8, 8]" if images else "[batch, 24]"
    text = (
        f"name: net_{number}\ninputs: {{x: {{shape: {shape}}}, t: {{shape: [batch], type: int64, classes: 10}}}}\n"
        f"init: {{weight: {_initial(draw)}, bias: {draw.choice(['zeros', 'zeros', '{kind: normal, sd: 0.1}'])}}}\n"
        f"layers:\n  - {stem}\n  - {{kind: block, name: hidden, repeat: {depth}, layers: [{body}]}}\n{tail}"
        f"  - {{kind: dense, name: logits, units: 10, init: {{weight: glorot_normal}}}}\n"
        f"loss: {{kind: cross_entropy, input: logits, target: t}}\nseed: {number}\n"
    )
    return Model(family, activation, text)
