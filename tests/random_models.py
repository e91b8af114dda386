"""Random YAML models, as a hypothesis strategy: small nets of every layer kind, wired with and without skips."""

from __future__ import annotations

from hypothesis import strategies as st

ACTIVATIONS = (
    *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign", "hard_sigmoid", "mish"),
)
INITS = (
    *(
        "glorot_uniform",
        "glorot_normal",
        "he_uniform",
        "he_normal",
        "lecun_uniform",
        "lecun_normal",
        "orthogonal",
        "pytorch_default",
    ),
    "{kind: normal, sd: 0.7}",
)


@st.composite
def dense_layers(draw: st.DrawFn) -> list[str]:
    width = draw(st.integers(2, 7))
    lines = [f"{{kind: dense, units: {width}}}"]
    for _ in range(draw(st.integers(1, 4))):
        lines.append(draw(st.one_of(dense_layer(width), residual(width), normalization(), activation(), dropout())))
    return lines


def dense_layer(width: int) -> st.SearchStrategy[str]:
    return st.builds("{{kind: dense, units: {}, activation: {}}}".format, st.just(width), st.sampled_from(ACTIVATIONS))


def residual(width: int) -> st.SearchStrategy[str]:
    return st.builds("{{kind: residual, layers: [{}]}}".format, dense_layer(width))


def normalization() -> st.SearchStrategy[str]:
    return st.sampled_from(["{kind: batch_norm}", "{kind: layer_norm}"])


def activation() -> st.SearchStrategy[str]:
    return st.builds("{{kind: {}}}".format, st.sampled_from(ACTIVATIONS))


def dropout() -> st.SearchStrategy[str]:
    return st.just("{kind: dropout, rate: 0.3}")


@st.composite
def convolution_layers(draw: st.DrawFn) -> list[str]:
    lines = []
    for _ in range(draw(st.integers(1, 2))):
        channels, kernel = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3]))
        phi = draw(st.sampled_from(ACTIVATIONS))
        lines.append(f"{{kind: conv2d, filters: {channels}, kernel: {kernel}, padding: same, activation: {phi}}}")
        lines += draw(
            st.sampled_from([[], ["{kind: batch_norm}"], ["{kind: max_pool, kernel: 2}"], ["{kind: average_pool, kernel: 2}"]])
        )
    return [*lines, draw(st.sampled_from(["{kind: flatten}", "{kind: global_average_pool}\n  - {kind: flatten}"]))]


@st.composite
def models(draw: st.DrawFn) -> str:
    """The text of a random model."""
    images = draw(st.booleans())
    shape = "[batch, 2, 8, 8]" if images else f"[batch, {draw(st.integers(1, 6))}]"
    layers = draw(convolution_layers() if images else dense_layers())
    mse = draw(st.booleans())
    target = "{shape: [batch, 3]}" if mse else "{shape: [batch], type: int64, classes: 3}"
    body = "\n".join(f"  - {line}" for line in layers)
    return (
        "name: random\n"
        f"inputs:\n  x: {{shape: {shape}, range: [-1, 2]}}\n  t: {target}\n"
        f"init: {{weight: {draw(st.sampled_from(INITS))}, bias: {draw(st.sampled_from(['zeros', '{kind: normal, sd: 0.3}']))}}}\n"
        f"layers:\n{body}\n  - {{kind: dense, name: out, units: 3}}\n"
        f"loss: {{kind: {'mse' if mse else 'cross_entropy'}, input: out, target: t}}\n"
        f"seed: {draw(st.integers(0, 99))}\n"
    )
