"""The nets that predictions are held against, as YAML text; width 256 and more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parents[2] / "models"
CRITICAL = "{kind: normal, sd: 0.22360679774997896}"  # a bias variance of 0.05


@dataclass(frozen=True)
class Net:
    """``stable`` False: the length map amplifies, and the prediction has to say so rather than to be right."""

    name: str
    text: str
    batch: int = 32
    stable: bool = True
    recurrent: bool = False


def _document(name: str, shape: str, init: str, layers: str) -> str:
    return f"""name: {name}
inputs:
  x: {{shape: [batch, {shape}], distribution: normal}}
  label: {{shape: [batch], type: int64, classes: 10}}
init: {init}
layers:
{layers}
  - {{kind: dense, name: logits, units: 10}}
loss: {{kind: cross_entropy, target: label}}
"""


def _weights(scale: float, bias: str = "zeros") -> str:
    return f"{{weight: {{kind: variance_scaling, scale: {scale}, mode: fan_in, distribution: normal}}, bias: {bias}}}"


def dense(name: str, depth: int, activation: str, scale: float, bias: str = "zeros", width: int = 256) -> str:
    """A chain of dense layers, sigma_w^2 = ``scale``."""
    body = f"{{kind: dense, units: {width}, activation: {activation}}}"
    layers = f"  - {{kind: block, name: hidden, repeat: {depth}, layers: [{body}]}}"
    return _document(name, str(width), _weights(scale, bias), layers)


def convolutional(name: str, depth: int, activation: str, scale: float) -> str:
    """A chain of convolutions of 256 channels, padded with zeros."""
    body = f"{{kind: conv1d, filters: 256, kernel: 3, padding: same, activation: {activation}}}"
    layers = f"""  - {{kind: block, name: hidden, repeat: {depth}, layers: [{body}]}}
  - {{kind: flatten, name: flat}}"""
    return _document(name, "256, 12", _weights(scale), layers)


def residual(name: str, depth: int, activation: str, scale: float) -> str:
    """A stem and so many residual blocks of one dense layer each."""
    body = f"{{kind: dense, units: 256, activation: {activation}}}"
    layers = f"""  - {{kind: dense, name: stem, units: 256, activation: {activation}}}
  - {{kind: residual, name: hidden, repeat: {depth}, layers: [{body}]}}"""
    return _document(name, "256", _weights(scale), layers)


def normalized(name: str, depth: int, activation: str) -> str:
    """Batch normalization before each activation, at He's initial values."""
    body = f"{{kind: dense, units: 512, bias: false}}, {{kind: batch_norm, activation: {activation}}}"
    layers = f"  - {{kind: block, name: hidden, repeat: {depth}, layers: [{body}]}}"
    return _document(name, "512", _weights(2.0), layers)


def transformer(name: str, norm: str, depth: int) -> str:
    """An encoder over 32 random tokens, of which the mean is classified."""
    body = f"heads: 4, feed_forward: 1024, activation: gelu, norm: {norm}"
    layers = f"""  - {{kind: transformer_encoder, name: block, repeat: {depth}, {body}}}
  - {{kind: time_pool, name: pool}}"""
    return _document(name, "32, 256", "{weight: pytorch_default, bias: pytorch_default}", layers)


def language_model(depth: int, width: int, heads: int, time: int, words: int) -> str:
    """models/gpt2_small.yaml at another size: a causal mask and dropout on the weights of attention, an embedding shared."""
    sizes = f"params: {{depth: {depth}, width: {width}, heads: {heads}, time: {time}, words: {words}}}"
    return re.sub(r"^params: .*$", sizes, (MODELS / "gpt2_small.yaml").read_text(), flags=re.MULTILINE)


def recurrent(name: str, kind: str, steps: int, scale: float) -> str:
    """A recurrence whose last state is classified."""
    layers = f"  - {{kind: {kind}, name: memory, units: 256, output: last}}"
    return _document(name, f"{steps}, 64", _weights(scale), layers)


NETS: tuple[Net, ...] = (
    Net("sigmoid", dense("sigmoid", 20, "sigmoid", 1.0)),
    Net("tanh_ordered", dense("tanh_ordered", 20, "tanh", 1.0)),
    Net("tanh_critical", dense("tanh_critical", 50, "tanh", 1.760955, CRITICAL)),
    Net("tanh_chaotic", dense("tanh_chaotic", 20, "tanh", 4.0)),
    Net("relu", dense("relu", 50, "relu", 2.0)),
    Net("gelu", dense("gelu", 20, "gelu", 1.5, CRITICAL)),
    Net("silu", dense("silu", 20, "silu", 1.5, CRITICAL)),
    Net("selu", dense("selu", 50, "selu", 1.0)),
    Net("convolution_relu", convolutional("convolution_relu", 20, "relu", 2.0), batch=8),
    Net("convolution_tanh", convolutional("convolution_tanh", 20, "tanh", 1.5), batch=8),
    Net("residual_tanh", residual("residual_tanh", 50, "tanh", 1.0)),
    Net("batchnorm_relu", normalized("batchnorm_relu", 20, "relu"), batch=64),
    Net("transformer_pre", transformer("transformer_pre", "pre", 5), batch=8),
    Net("transformer_post", transformer("transformer_post", "post", 5), batch=8),
    Net("gpt2_tiny", language_model(2, 64, 4, 32, 500), batch=4),
    Net("gpt2", language_model(12, 256, 8, 64, 500), batch=4),
    Net("rnn", recurrent("rnn", "rnn", 50, 1.0), batch=16, recurrent=True),
    Net("lstm", recurrent("lstm", "lstm", 50, 1.0), batch=16, recurrent=True),
    Net("gru", recurrent("gru", "gru", 50, 1.0), batch=16, recurrent=True),
    Net("gelu_unstable", dense("gelu_unstable", 20, "gelu", 2.0), stable=False),
    Net("rnn_long", recurrent("rnn_long", "rnn", 150, 1.0), batch=16, stable=False, recurrent=True),
)

# The spread is a matter of width and depth; sixteen layers of 128 show it. Small logits keep what the loss sends independent of
# the weights, as the theory takes it to be.
_SMALL = "units: 10, init: {weight: {kind: normal, sd: 0.001}}}"
SPREAD: Mapping[str, str] = {
    name: dense(name, 16, activation, scale, width=128).replace("units: 10}", _SMALL)
    for name, activation, scale in (("relu", "relu", 2.0), ("tanh", "tanh", 1.5), ("linear", "identity", 1.0))
}
