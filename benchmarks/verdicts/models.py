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


# What follows reads [batch, steps, features]: depth is in the steps, or in the blocks.
SEQUENCE_FEATURES = 12


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


def _recurrent(kind: str) -> Layers:
    def layers(draw: random.Random, width: int, activation: str) -> list[str]:
        function = f", activation: {draw.choice(['tanh', 'tanh', 'relu'])}" if kind == "rnn" else ""
        return [f"{{kind: {kind}, units: {width}{function}}}"]

    return layers


def _transformer(norm: str) -> Layers:
    def layers(draw: random.Random, width: int, activation: str) -> list[str]:
        return [f"{{kind: transformer_encoder, heads: 4, norm: {norm}, activation: {draw.choice(['relu', 'gelu'])}}}"]

    return layers


FAMILIES: Mapping[str, Layers] = {
    "chain": _chain,
    "residual": _residual,
    "pre-norm residual": _pre_norm,
    "batch norm": _normalized("batch_norm"),
    "layer norm": _normalized("layer_norm"),
    "batch norm residual": _normalized_residual,
    "convolution": _convolution,
    "rnn": _recurrent("rnn"),
    "gru": _recurrent("gru"),
    "lstm": _recurrent("lstm"),
    "pre-norm transformer": _transformer("pre"),
    "post-norm transformer": _transformer("post"),
}
WEIGHTS = (4, 1, 1, 2, 1, 1, 2, 2, 1, 1, 1, 1)
RECURRENT, TRANSFORMERS = ("rnn", "gru", "lstm"), ("pre-norm transformer", "post-norm transformer")


@dataclass(frozen=True)
class Plan:
    """What stands around the repeated layers: the input's shape without the batch, ``stem`` before them, ``tail`` behind."""

    shape: str
    depth: int
    stem: str = ""
    tail: str = ""


def _plan(draw: random.Random, family: str, width: int, first: str) -> Plan:
    if family == "convolution":
        return Plan("3, 8, 8", draw.randint(5, 16), first, "{kind: flatten}")
    if family in RECURRENT:
        steps, stacked = draw.randint(5, 40), draw.choice([1, 1, 2, 3])
        read = draw.choice(["{kind: select, index: -1}", "{kind: time_pool}"])
        return Plan(f"{steps}, {SEQUENCE_FEATURES}", stacked, tail=read)
    if family in TRANSFORMERS:
        return Plan(f"8, {SEQUENCE_FEATURES}", draw.randint(2, 8), f"{{kind: dense, units: {width}}}", "{kind: time_pool}")
    return Plan("24", draw.randint(5, 45), _dense(width, "tanh"))


def family_of(draw: random.Random) -> str:
    """The first thing that is drawn of a model."""
    return draw.choices(list(FAMILIES), WEIGHTS)[0]


def model(number: int) -> Model:
    """One network; the same number gives the same text."""
    draw = random.Random(number)
    family = family_of(draw)
    width = draw.choice([8, 12, 16] if family == "convolution" else [32, 64, 96] if family not in TRANSFORMERS else [32, 48, 64])
    activation = draw.choice(draw.choice([SMOOTH, RECTIFYING]))
    repeated = FAMILIES[family](draw, width, activation)
    plan = _plan(draw, family, width, repeated[0])
    around = [f"  - {layer}\n" if layer else "" for layer in (plan.stem, plan.tail)]
    text = (
        f"name: net_{number}\ninputs: {{x: {{shape: [batch, {plan.shape}]}}, t: {{shape: [batch], type: int64, classes: 10}}}}\n"
        f"init: {{weight: {_initial(draw)}, bias: {draw.choice(['zeros', 'zeros', '{kind: normal, sd: 0.1}'])}}}\n"
        f"layers:\n{around[0]}"
        f"  - {{kind: block, name: hidden, repeat: {plan.depth}, layers: [{', '.join(repeated)}]}}\n{around[1]}"
        f"  - {{kind: dense, name: logits, units: 10, init: {{weight: glorot_normal}}}}\n"
        f"loss: {{kind: cross_entropy, input: logits, target: t}}\nseed: {number}\n"
    )
    return Model(family, activation, text)
