"""Every layer kind: it builds under a symbolic batch, the checker takes it, and it computes what PyTorch computes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests import spatial_cases
from vgcompile.build import build
from vgcompile.errors import SpecError
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact
from vgcompile.initial import Initial
from vgcompile.layers import LAYERS
from vgcompile.passes.lower import lower
from vgcompile.spec import loads

Array = np.ndarray[Any, Any]
ROW, TOKENS, PICTURE = (6,), (5, 6), (4, 8, 8)


def network(
    layers: str, shape: tuple[int, ...] = ROW, *, mode: Any = "training", seed: int | None = None, more: str = ""
) -> Network:
    """A net without a loss; ``layers`` are flow mappings, one a line. An embedding's input are class numbers."""
    listed = "".join(f"  - {line.strip()}\n" for line in layers.strip().splitlines())
    stated = f"shape: [batch, {', '.join(map(str, shape))}]" + (", type: int64, classes: 3" if "embedding," in layers else "")
    return build(loads(f"inputs: {{x: {{{stated}}}}}\n{more}layers:\n{listed}"), mode=mode, seed=seed)


def checked(net: Network) -> onnx.ModelProto:
    """The model, composites opened, as a file that the checker takes."""
    proto = ir.to_proto(lower(net.model.clone()))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(net: Network, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a warning for each overridable parameter
    session = onnxruntime.InferenceSession(checked(net).SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = np.abs(x).astype(np.int64) if net.inputs["x"].classes else x
    return np.asarray(session.run(list(net.outputs), {"x": given})[0])


def data(shape: tuple[int, ...], batch: int = 3) -> Array:
    return np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)


# kind -> layers, input shape
SAMPLES: dict[str, tuple[str, tuple[int, ...]]] = {
    "dense": ("{kind: dense, units: 5, activation: tanh}", ROW),
    "conv2d": ("{kind: conv2d, filters: 6, kernel: [3, 2], stride: 2, padding: same, groups: 2, activation: relu}", PICTURE),
    "max_pool": ("{kind: max_pool, kernel: 3, stride: 2, padding: 1}", PICTURE),
    "average_pool": ("{kind: average_pool, kernel: 3, padding: same}", PICTURE),
    "global_average_pool": ("{kind: global_average_pool}", PICTURE),
    "flatten": ("{kind: flatten}", PICTURE),
    "batch_norm": ("{kind: batch_norm, activation: sigmoid}", PICTURE),
    "layer_norm": ("{kind: layer_norm, axis: 1}", TOKENS),
    "dropout": ("{kind: dropout, rate: 0.5}", ROW),
    "rms_norm": ("{kind: rms_norm}", TOKENS),
    "embedding": ("{kind: embedding, units: 4, size: 9, padding: 1}", ROW),
    "unembedding": ("{kind: embedding, name: tokens, units: 4}\n{kind: unembedding, share: tokens}", ROW),
    "positions": ("{kind: positions, encoding: sinusoidal, length: 7}", TOKENS),
    "class_token": ("{kind: class_token}", TOKENS),
    "select": ("{kind: select, position: last}", TOKENS),
    "time_pool": ("{kind: time_pool, take: max}", TOKENS),
    "rnn": ("{kind: rnn, units: 3, layers: 2, dropout: 0.5, activation: relu}", TOKENS),
    "gru": ("{kind: gru, units: 3, output: last}", TOKENS),
    "lstm": ("{kind: lstm, units: 3, bidirectional: true}", TOKENS),
    "attention": ("{kind: attention, heads: 3, causal: true, dropout: 0.5, rotary: true, qk_norm: true}", TOKENS),
    "feed_forward": ("{kind: feed_forward, activation: swiglu, dropout: 0.5}", TOKENS),
    "transformer_encoder": ("{kind: transformer_encoder, heads: 2, repeat: 2, dropout: 0.5}", TOKENS),
    "transformer_decoder": ("{kind: transformer_decoder, heads: 2, norm: post, memory: x}", TOKENS),
    "add": ("{kind: tanh}\n{kind: add, from: [x, tanh, x], activation: relu}", ROW),
    "concat": ("{kind: tanh}\n{kind: concat, from: [x, tanh], axis: -1}", TOKENS),
    "block": ("{kind: block, repeat: 2, layers: [{kind: dense, units: 6}, {kind: relu}]}", ROW),
    "residual": (
        "{kind: residual, layers: [{kind: dense, units: 3}], shortcut: [{kind: dense, units: 3}], activation: relu}",
        ROW,
    ),
    **{
        kind: (f"{{kind: {kind}}}", TOKENS) for kind in LAYERS if "Activation" in {base.__name__ for base in LAYERS[kind].__mro__}
    },
    **spatial_cases.SAMPLES,
}


def test_every_kind_has_a_sample() -> None:
    assert set(SAMPLES) == set(LAYERS)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("mode", ["training", "inference"])
def test_a_kind_builds_and_keeps_its_batch_symbolic(kind: str, mode: str) -> None:
    layers, shape = SAMPLES[kind]
    net = network(layers, shape, mode=mode)
    (output,) = net.model.graph.outputs
    assert dims(output)[0] == "batch"
    assert all(isinstance(size, int) for size in dims(output)[1:])
    for batch in (1, 4):
        y = run(net, data(shape, batch))
        assert y.shape == (batch, *dims(output)[1:])
        assert np.isfinite(y).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_every_node_carries_its_layer_and_line(kind: str) -> None:
    for node in network(*SAMPLES[kind]).model.graph:
        layer, source = fact(node, "layer"), fact(node, "source")
        assert layer is not None
        assert node.name is not None
        assert node.name.startswith(f"/{layer}/")
        assert source is not None
        assert source.startswith("<text>:")


def parameters(net: Network) -> list[torch.Tensor]:
    return [torch.tensor(array) for array in net.parameter_values().values()]


# layers, input shape, the same in PyTorch: f(x, *parameters in the graph's order)
FUNCTIONS: dict[str, tuple[str, tuple[int, ...], Callable[..., torch.Tensor]]] = {
    "dense": ("{kind: dense, units: 5}", ROW, lambda x, w, b: x @ w + b),
    "dense, no bias": ("{kind: dense, units: 5, bias: false}", ROW, lambda x, w: x @ w),
    "dense, tokens": ("{kind: dense, units: 4}", TOKENS, lambda x, w, b: x @ w + b),
    "conv2d": ("{kind: conv2d, filters: 6, kernel: 3}", PICTURE, F.conv2d),
    "conv2d, all fields": (
        "{kind: conv2d, filters: 6, kernel: [3, 2], stride: [2, 1], padding: [1, 2], dilation: 2, groups: 2}",
        PICTURE,
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), 2, 2),
    ),
    "conv2d, same": (
        "{kind: conv2d, filters: 2, kernel: 4, padding: same}",
        PICTURE,
        lambda x, w, b: F.conv2d(F.pad(x, (1, 2, 1, 2)), w, b),
    ),
    "max_pool": ("{kind: max_pool, kernel: 2}", PICTURE, lambda x: F.max_pool2d(x, 2)),
    "max_pool, padded": ("{kind: max_pool, kernel: 3, stride: 2, padding: 1}", PICTURE, lambda x: F.max_pool2d(x, 3, 2, 1)),
    "average_pool": (
        "{kind: average_pool, kernel: 3, stride: 2, padding: 1}",
        PICTURE,
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    "global_average_pool": ("{kind: global_average_pool}", PICTURE, lambda x: x.mean((2, 3), keepdim=True)),
    "flatten": ("{kind: flatten}", PICTURE, lambda x: x.flatten(1)),
    "batch_norm": (
        "{kind: batch_norm, epsilon: 0.1, init: {scale: {kind: normal, sd: 1.0}, bias: {kind: normal, sd: 1.0}}}",
        PICTURE,
        lambda x, s, b: F.batch_norm(x, None, None, s, b, training=True, eps=0.1),
    ),
    "layer_norm": (
        "{kind: layer_norm, axis: 1, init: {scale: {kind: normal, sd: 1.0}}}",
        TOKENS,
        lambda x, s, b: F.layer_norm(x, s.shape, s, b),
    ),
    "residual": (
        "{kind: residual, activation: relu, layers: [{kind: dense, units: 6, activation: sigmoid}]}",
        ROW,
        lambda x, w, b: torch.relu(torch.sigmoid(x @ w + b) + x),
    ),
    "sigmoid": ("{kind: sigmoid}", ROW, torch.sigmoid),
    "tanh": ("{kind: tanh}", ROW, torch.tanh),
    "relu": ("{kind: relu}", ROW, F.relu),
    "leaky_relu": ("{kind: leaky_relu, alpha: 0.2}", ROW, lambda x: F.leaky_relu(x, 0.2)),
    "elu": ("{kind: elu, alpha: 0.7}", ROW, lambda x: F.elu(x, 0.7)),
    "selu": ("{kind: selu}", ROW, F.selu),
    "gelu": ("{kind: gelu}", ROW, F.gelu),
    "gelu, tanh": ("{kind: gelu, approximate: tanh}", ROW, lambda x: F.gelu(x, approximate="tanh")),
    "silu": ("{kind: silu}", ROW, F.silu),
    "softplus": ("{kind: softplus}", ROW, F.softplus),
    "softsign": ("{kind: softsign}", ROW, F.softsign),
    "hard_sigmoid": ("{kind: hard_sigmoid}", ROW, F.hardsigmoid),
    "mish": ("{kind: mish}", ROW, F.mish),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_is_pytorchs(name: str) -> None:
    layers, shape, function = FUNCTIONS[name]
    net, x = network(layers, shape), data(shape)
    np.testing.assert_allclose(run(net, x), function(torch.tensor(x), *parameters(net)).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (9, 2, 3), (8, 1, 2), (5, 5, 4)])
def test_same_padding_keeps_size_over_stride_rounded_up(size: int, kernel: int, stride: int) -> None:
    net = network(f"{{kind: conv2d, filters: 1, kernel: {kernel}, stride: {stride}, padding: same}}", (1, size, size))
    assert dims(net.model.graph.outputs[0])[2:] == (math.ceil(size / stride),) * 2


def test_batch_norm_keeps_running_statistics_apart() -> None:
    training, inference = (network("{kind: batch_norm, name: bn}", PICTURE, mode=mode) for mode in ("training", "inference"))
    assert training.parameters == ("bn/scale", "bn/bias")
    assert [value.name for value in training.model.graph.inputs] == ["x", "bn/scale", "bn/bias"]
    assert {"bn/running_mean", "bn/running_var"} <= set(training.model.graph.initializers)
    x = data(PICTURE)
    np.testing.assert_allclose(run(inference, x), x / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_dropout_drops_in_training_alone() -> None:
    x = np.ones((3, 1000), np.float32)
    dropped = run(network("{kind: dropout, rate: 0.75}", (1000,)), x)
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert abs(dropped.mean() - 1.0) < 5 * math.sqrt(3 / x.size)
    np.testing.assert_array_equal(run(network("{kind: dropout, rate: 0.75}", (1000,), mode="inference"), x), x)


# initial values -> (variance, drawn as) of a weight [6, 30], fan_in 6, fan_out 30
INITIALS = {
    "lecun_normal": (1 / 6, "normal"),
    "lecun_uniform": (1 / 6, "uniform"),
    "glorot_normal": (2 / 36, "normal"),
    "glorot_uniform": (2 / 36, "uniform"),
    "he_normal": (2 / 6, "normal"),
    "he_uniform": (2 / 6, "uniform"),
    "pytorch_default": (1 / 18, "uniform"),
    "{kind: he_normal, gain: 3.0}": (9 * 2 / 6, "normal"),
    "{kind: variance_scaling}": (1 / 6, "normal"),
    "{kind: variance_scaling, scale: 3.0, mode: fan_out, distribution: uniform}": (3 / 30, "uniform"),
    "{kind: variance_scaling, mode: fan_avg}": (1 / 18, "normal"),
    "{kind: normal, sd: 0.3, mean: 0.5}": (0.09, "normal"),
    "{kind: uniform, half_width: 0.3}": (0.03, "uniform"),
    "{kind: uniform, range: [1, 2]}": (1 / 12, "uniform"),
    "orthogonal": (1 / 30, "orthogonal"),
    "{kind: orthogonal, gain: 2.0}": (4 / 30, "orthogonal"),
    "zeros": (0.0, "constant"),
    "ones": (0.0, "constant"),
    "{kind: constant, value: 0.1}": (0.0, "constant"),
}


@pytest.mark.parametrize("stated", INITIALS)
def test_initial_values_have_their_variance(stated: str) -> None:
    variance, drawn = INITIALS[stated]
    weight = network(f"{{kind: dense, units: 30, init: {{weight: {stated}}}}}").model.graph.initializers["dense/weight"]
    initial = Initial.from_json(fact(weight, "initial") or "")
    assert initial.kind == drawn
    assert initial.shape == (6, 30)
    assert initial.sd**2 == pytest.approx(variance)
    many = np.stack([initial.draw("w", seed) for seed in range(200)]).astype(np.float64)
    assert many.mean() == pytest.approx(initial.mean, abs=5 * initial.sd / math.sqrt(many.size) + 1e-7)
    assert many.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / many.size), abs=1e-12)


def test_fans_of_a_convolution_count_its_taps() -> None:
    net = network("{kind: conv2d, filters: 6, kernel: [3, 2], groups: 2, init: {weight: glorot_normal}}", PICTURE)
    initial = Initial.from_json(fact(net.model.graph.initializers["conv2d/weight"], "initial") or "")
    # the figures of torch.nn.init for a weight [6, 2, 3, 2]
    fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(6, 2, 3, 2))
    assert initial.sd**2 == pytest.approx(2 / (fan_in + fan_out))


def test_pytorchs_default_is_pytorchs() -> None:
    """torch.nn.Linear draws weight and bias uniformly on +-1/sqrt(fan_in)."""
    net = network("{kind: dense, units: 2000}")
    for name, theirs in zip(net.parameters, (torch.nn.Linear(6, 2000).weight, torch.nn.Linear(6, 2000).bias), strict=True):
        ours = net.parameter_values()[name]
        assert abs(np.abs(ours).max() - 1 / math.sqrt(6)) < 1e-2
        assert abs(theirs.abs().max().item() - np.abs(ours).max()) < 1e-2


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 10))
def test_orthogonal_rows_or_columns(rows: int, columns: int, gain: float) -> None:
    matrix = Initial("orthogonal", (rows, columns), sd=gain / math.sqrt(max(rows, columns))).draw("w", 0).astype(np.float64)
    short = matrix if rows <= columns else matrix.T
    np.testing.assert_allclose(short @ short.T, gain**2 * np.eye(len(short)), atol=1e-5 * gain**2)


@given(st.sampled_from(["normal", "uniform", "orthogonal", "constant"]), st.floats(-2, 2), st.floats(0, 2))
def test_an_initial_distribution_survives_its_json(kind: Any, mean: float, sd: float) -> None:
    initial = Initial(kind, (3, 4), mean, sd)
    assert Initial.from_json(initial.to_json()) == initial
    np.testing.assert_array_equal(Initial.from_json(initial.to_json()).draw("w", 7), initial.draw("w", 7))
    assert json.loads(initial.to_json())["kind"] == kind


def test_adding_a_layer_changes_no_other_weight() -> None:
    short = network("{kind: dense, name: a, units: 6}\n{kind: dense, name: b, units: 6}").parameter_values()
    long = network(
        "{kind: dense, name: a, units: 6}\n{kind: dense, name: new, units: 6}\n{kind: dense, name: b, units: 6}"
    ).parameter_values()
    for name, array in short.items():
        np.testing.assert_array_equal(array, long[name])
    assert not np.array_equal(short["a/weight"], short["b/weight"])


def test_a_seed_draws_all_anew_and_again_the_same() -> None:
    layers = "{kind: dense, units: 6}\n{kind: dense, units: 6}"
    first, again, other = (network(layers, seed=seed).parameter_values() for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    redrawn = network(layers, seed=2).parameter_values(seed=1)
    np.testing.assert_array_equal(redrawn["dense/weight"], first["dense/weight"])


def test_a_layers_init_goes_before_the_models() -> None:
    net = network(
        "{kind: dense, name: a, units: 6}\n{kind: dense, name: b, units: 6, init: {weight: ones}}",
        more="init: {weight: zeros, bias: ones}\n",
    )
    assert {name: float(array.ravel()[0]) for name, array in net.parameter_values().items()} == {
        "a/weight": 0.0,
        "a/bias": 1.0,
        "b/weight": 1.0,
        "b/bias": 1.0,
    }


def test_parameters_are_inputs_behind_the_data_with_defaults() -> None:
    net = network("{kind: dense, units: 6}\n{kind: batch_norm}")
    graph = net.model.graph
    assert [value.name for value in graph.inputs] == ["x", *net.parameters]
    for name in net.parameters:
        assert graph.initializers[name] in graph.inputs


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_pytorchs(reduction: str) -> None:
    rng = np.random.default_rng(0)
    x, target, label = rng.normal(size=(4, 6)), rng.normal(size=(4, 6)), rng.integers(0, 6, 4)
    expected = {
        "mse": F.mse_loss(torch.tensor(x), torch.tensor(target), reduction=reduction),
        "cross_entropy": F.cross_entropy(torch.tensor(x), torch.tensor(label), reduction=reduction),
    }
    fields = {"mse": "{shape: [n, 6]}", "cross_entropy": "{shape: [n], type: int64, classes: 6}"}
    feeds = {"mse": target.astype(np.float32), "cross_entropy": label}
    for kind, value in expected.items():
        head = f"inputs: {{x: {{shape: [n, 6]}}, t: {fields[kind]}}}\nlayers: [{{kind: leaky_relu, alpha: 1.0}}]\n"
        net = build(loads(f"{head}loss: {{kind: {kind}, target: t, reduction: {reduction}}}"))
        assert (net.outputs, net.reduction, net.inputs["t"].role) == (("leaky_relu",), reduction, "target")
        options = onnxruntime.SessionOptions()
        session = onnxruntime.InferenceSession(checked(net).SerializeToString(), options, providers=["CPUExecutionProvider"])
        (loss,) = session.run(["loss"], {"x": x.astype(np.float32), "t": feeds[kind]})
        assert loss.shape == ()
        assert float(loss) == pytest.approx(value.item(), rel=1e-5)


def test_a_symbolic_size_that_a_weight_needs_is_refused() -> None:
    with pytest.raises(SpecError, match="must be a known number, not 'length'"):
        build(loads("inputs: {x: {shape: [batch, length]}}\nlayers: [{kind: dense, units: 3}]"))
