"""Random models of every family, as YAML: small, so that a batch of attacks is cheap and regions can be wide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ACTIVATIONS = (
    *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign", "hard_sigmoid", "mish"),
    *("hard_swish", "celu"),
)
SMOOTH = ("sigmoid", "tanh", "gelu", "silu", "softplus", "softsign", "mish")
WEIGHTS = ("glorot_uniform", "he_normal", "lecun_normal", "orthogonal", "pytorch_default", "{kind: normal, sd: 0.7}")
Layers = tuple[str, list[str]]  # the input's extents, and one line for each layer


def random_model(seed: int) -> tuple[str, str]:
    """The name of a family, and the text of a model of it."""
    rng = np.random.default_rng(seed)
    family = sorted(FAMILIES)[seed % len(FAMILIES)]
    extents, lines = FAMILIES[family](rng)
    bias = rng.choice(["zeros", "{kind: normal, sd: 0.3}"])
    body = "\n".join(f"  - {line}" for line in lines)
    return family, (
        f"name: {family}\ninputs:\n  x: {{shape: [batch, {extents}], range: [-1, 1]}}\n"
        f"init: {{weight: {rng.choice(WEIGHTS)}, bias: {bias}}}\nlayers:\n{body}\nseed: {seed}\n"
    )


def _dense(rng: np.random.Generator) -> Layers:
    width = int(rng.integers(2, 9))
    return str(int(rng.integers(1, 7))), [_unit(rng, width) for _ in range(int(rng.integers(2, 5)))]


def _unit(rng: np.random.Generator, width: int) -> str:
    return f"{{kind: dense, units: {width}, activation: {rng.choice(ACTIVATIONS)}}}"


def _residual(rng: np.random.Generator) -> Layers:
    width = int(rng.integers(2, 9))
    blocks = [f"{{kind: residual, layers: [{_unit(rng, width)}, {{kind: dense, units: {width}}}]}}" for _ in range(3)]
    return str(width), [*blocks, f"{{kind: dense, units: {int(rng.integers(1, 5))}}}"]


def _normalized(rng: np.random.Generator) -> Layers:
    width = int(rng.integers(3, 9))
    lines = [_unit(rng, width)]
    for _ in range(2):
        norm = rng.choice(["{kind: layer_norm}", "{kind: rms_norm}", "{kind: layer_norm, epsilon: 0.1}"])
        lines += [str(norm), _unit(rng, width)]
    return str(width), lines


def _batch_normalized(rng: np.random.Generator) -> Layers:
    width = int(rng.integers(3, 7))
    return str(width), [
        _unit(rng, width),
        "{kind: batch_norm, epsilon: 0.1}",
        _unit(rng, width),
        f"{{kind: dense, units: {width}}}",
    ]


def _convolutional(rng: np.random.Generator) -> Layers:
    lines, size = [], 8
    for _ in range(int(rng.integers(1, 3))):
        kernel, stride = rng.choice([1, 3]), rng.choice([1, 2])
        lines.append(
            f"{{kind: conv2d, filters: {rng.integers(1, 4)}, kernel: {kernel}, stride: {stride}, padding: same, "
            f"activation: {rng.choice(ACTIVATIONS)}}}"
        )
        pools = [[], ["{kind: max_pool, kernel: 2}"], ["{kind: average_pool, kernel: 2}"]][int(rng.integers(3))]
        size = -(-size // int(stride))
        pools = pools if size > 1 else []
        size = size // 2 if pools else size
        lines += pools
    end = ["{kind: flatten}"] if rng.integers(2) else ["{kind: global_average_pool}", "{kind: flatten}"]
    return "2, 8, 8", [*lines, *end, "{kind: dense, units: 3}"]


def _sequence(rng: np.random.Generator) -> Layers:
    kind, units = rng.choice(["rnn", "gru", "lstm"]), int(rng.integers(2, 5))
    return f"{rng.integers(2, 5)}, 3", [f"{{kind: {kind}, units: {units}, output: last}}", "{kind: dense, units: 2}"]


def _recurrent(rng: np.random.Generator) -> Layers:
    """Stacks of both directions, of which all steps are read."""
    kind = rng.choice(["rnn", "rnn", "gru", "lstm"])
    further = {"rnn": ", activation: relu" * int(rng.integers(2)), "gru": ", reset_after: false" * int(rng.integers(2))}
    both = str(bool(rng.integers(2))).lower()
    layer = f"{{kind: {kind}, units: {rng.integers(2, 5)}, layers: {rng.integers(1, 3)}, bidirectional: {both}"
    return f"{rng.integers(3, 9)}, 2", [f"{layer}{further.get(str(kind), '')}}}", "{kind: flatten}", "{kind: dense, units: 2}"]


def _attending(rng: np.random.Generator) -> Layers:
    return f"{rng.integers(2, 5)}, 4", ["{kind: transformer_encoder, heads: 2}", "{kind: flatten}", "{kind: dense, units: 3}"]


def _gated(rng: np.random.Generator) -> Layers:
    width = int(rng.integers(2, 7))
    kind = rng.choice(["glu", "geglu", "swiglu"])
    return str(width), [
        f"{{kind: dense, units: {2 * width}}}",
        f"{{kind: {kind}}}",
        _unit(rng, width),
        f"{{kind: dense, units: {width}}}",
    ]


def _joined(rng: np.random.Generator) -> Layers:
    width = int(rng.integers(2, 6))
    return str(width), [
        f"{{kind: dense, name: a, units: {width}, activation: {rng.choice(ACTIVATIONS)}}}",
        f"{{kind: dense, name: b, units: {width}, activation: {rng.choice(ACTIVATIONS)}}}",
        "{kind: concat, name: c, from: [a, b]}",
        _unit(rng, width),
        f"{{kind: dense, units: {width}}}",
    ]


FAMILIES: dict[str, Callable[[np.random.Generator], Layers]] = {
    "dense": _dense,
    "residual": _residual,
    "normalized": _normalized,
    "batch_normalized": _batch_normalized,
    "convolutional": _convolutional,
    "sequence": _sequence,
    "recurrent": _recurrent,
    "attending": _attending,
    "gated": _gated,
    "joined": _joined,
}
