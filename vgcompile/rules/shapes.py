"""VG3: what does not fit together once shapes are known."""

from __future__ import annotations

from vgcompile.rules.rule import error

UNFIT = error(
    "VG301",
    "unfit-input",
    "The input's shape does not suit the layer: a rank that it does not take, an axis that is not there, a kernel "
    "that is too large.",
    """
    inputs: {pixels: {shape: [batch, 64]}}
    layers:
      - {kind: conv2d, filters: 4, kernel: 3}
    """,
    """
    inputs: {pixels: {shape: [batch, 64]}}
    layers:
      - {kind: reshape, shape: [1, 8, 8]}
      - {kind: conv2d, filters: 4, kernel: 3}
    """,
)

UNEQUAL_SHAPES = error(
    "VG302",
    "unequal-shapes",
    "What is joined must agree in shape: a sum everywhere, a concatenation on every axis but its own. Nothing is broadcast.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: wide, units: 64}
      - {kind: dense, name: narrow, from: x, units: 32}
      - {kind: add, from: [wide, narrow]}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: wide, units: 64}
      - {kind: dense, name: narrow, from: x, units: 64}
      - {kind: add, from: [wide, narrow]}
    """,
)

CLASS_NUMBERS = error(
    "VG303",
    "class-numbers",
    "An input of `type: int64` holds class numbers, of which no sum or product means anything.",
    """
    inputs: {word: {shape: [batch], type: int64, classes: 100}}
    layers:
      - {kind: relu}
    """,
    """
    inputs: {word: {shape: [batch, 100]}}
    layers:
      - {kind: relu}
    """,
)

UNFIT_LOSS = error(
    "VG304",
    "unfit-loss",
    "Output and target of the loss do not suit each other, in shape, type or number of classes.",
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 10}}
    layers:
      - {kind: dense, name: logits, units: 9}
    loss: {kind: cross_entropy, target: label}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 10}}
    layers:
      - {kind: dense, name: logits, units: 10}
    loss: {kind: cross_entropy, target: label}
    """,
)

UNFIT_SHARE = error(
    "VG305",
    "unfit-share",
    "Layers that share parameters need them in one shape.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: first, units: 8, activation: relu}
      - {kind: dense, units: 8, share: first}
    """,
    """
    inputs: {x: {shape: [batch, 8]}}
    layers:
      - {kind: dense, name: first, units: 8, activation: relu}
      - {kind: dense, units: 8, share: first}
    """,
)

IDLE_PATTERN = error(
    "VG306",
    "idle-pattern",
    "A pattern over parameters' names, in init: or in a penalty, takes none of them.",
    """
    inputs: {x: {shape: [batch, 4]}}
    init: {"*.wieght": he_normal}
    layers:
      - {kind: dense, units: 8, activation: relu}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    init: {"*.weight": he_normal}
    layers:
      - {kind: dense, units: 8, activation: relu}
    """,
)

INFINITE_WEIGHTS = error(
    "VG307",
    "infinite-weights",
    "Initial values as drawn are beyond the largest float32, about 3.4e38.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 50, init: {weight: {kind: normal, sd: 3e38}}}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 50, init: {weight: {kind: normal, sd: 0.1}}}
    """,
)

UNFIT_WEIGHTS = error(
    "VG308",
    "unfit-weights",
    "The file that weights: names cannot be read, lacks a tensor for a parameter, or holds one of another shape.",
    """
    inputs: {x: {shape: [batch, 4]}}
    weights: {file: lost.safetensors}
    layers:
      - {kind: dense, units: 8}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 8}
    """,
)

RULES = (UNFIT, UNEQUAL_SHAPES, CLASS_NUMBERS, UNFIT_LOSS, UNFIT_SHARE, IDLE_PATTERN, INFINITE_WEIGHTS, UNFIT_WEIGHTS)
