"""Layers over sequences: values and gradients against PyTorch in float64, published sizes, what a dropout leaves alone."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from tests.sequence_cases import CASES, Case
from vgcompile.analysis.pipeline import analyze
from vgcompile.build import build
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.passes.gradient import joint
from vgcompile.passes.inference import inference
from vgcompile.spec import loads

Array = np.ndarray[Any, Any]
BATCH = 3


def fed(net: Network, extents: dict[str, int]) -> dict[str, Array]:
    """Inputs and parameters, all drawn; no parameter has a value that would hide it."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for name, stated in net.inputs.items():
        shape = [extents[dim] if isinstance(dim, str) else dim for dim in stated.shape]
        feeds[name] = rng.integers(0, stated.classes, shape) if stated.classes else rng.normal(size=shape).astype(np.float32)
    for name, array in net.parameter_values().items():
        feeds[name] = rng.normal(name.endswith("scale"), 0.3, array.shape).astype(np.float32)
    return feeds


def differentiated(net: Network, feeds: dict[str, Array], adjoint: Array) -> dict[str, Array]:
    """The output, and the gradient of <adjoint, output> by everything real, of one run."""
    (output,) = net.outputs
    wanted = [name for name, array in feeds.items() if array.dtype == np.float32]
    proto = ir.to_proto(joint(net.model.clone(), [output], wanted, [output], outside=True))
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()} | {value.name for value in session.get_overridable_initializers()}
    asked = {name: array for name, array in {**feeds, f"adj.{output}": adjoint}.items() if name in given}
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(names, asked), strict=True))
    return {"": found[output], **{name: found[f"grad.{name}"] for name in wanted}}


def expected(case: Case, net: Network, feeds: dict[str, Array], adjoint: Array) -> dict[str, Array]:
    """The same by torch's autograd in float64."""
    leaves = {name: torch.tensor(array) for name, array in feeds.items()}
    leaves = {name: leaf.double().requires_grad_() if leaf.is_floating_point() else leaf for name, leaf in leaves.items()}
    y = case.oracle(*(leaves[name] for name in net.inputs), {name: leaves[name] for name in net.parameters})
    y.backward(torch.tensor(adjoint).double())
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    return {"": y.detach().numpy(), **gradients}


def compared(case: Case, text: str, extents: dict[str, int]) -> None:
    net = build(loads(text))
    feeds = fed(net, extents)
    leaves = [torch.tensor(feeds[name]) for name in net.inputs]
    with torch.no_grad():
        real = [leaf.double() if leaf.is_floating_point() else leaf for leaf in leaves]
        shape = case.oracle(*real, {name: torch.tensor(feeds[name]).double() for name in net.parameters}).shape
    adjoint = np.random.default_rng(1).normal(size=tuple(shape)).astype(np.float32)
    ours, theirs = differentiated(net, feeds, adjoint), expected(case, net, feeds, adjoint)
    assert set(ours) == set(theirs)
    for name, truth in theirs.items():
        assert ours[name].shape == truth.shape, name
        # A bias of keys moves all scores of a query alike, and its gradient is 0: it is measured beside that of the weight.
        beside = theirs[name.replace("key/bias", "key/weight")]
        assert np.linalg.norm(ours[name] - truth) <= 1e-5 * np.linalg.norm(beside), name


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name: str) -> None:
    compared(CASES[name], CASES[name].text, {"batch": BATCH})


# Where the length is a symbol, tables need a length of their own.
SYMBOLIC = [name for name in CASES if name not in ("positions", "positions, odd width")]


@pytest.mark.parametrize("name", SYMBOLIC)
def test_the_length_may_be_a_symbol(name: str) -> None:
    text = re.sub(r"\[batch, 5\b", "[batch, time", CASES[name].text).replace("time, 5]", "time, time]")
    text = text.replace("[batch, 3, ", "[batch, source, ").replace("4, 5, 5]", "4, time, time]")
    compared(CASES[name], text, {"batch": BATCH, "time": 4, "source": 2})


def numbers(net: Network) -> int:
    return sum(math.prod(dims(net.model.graph.initializers[name])) for name in net.parameters)


def model(layers: str, inputs: str = "x: {shape: [batch, 5, 8]}", more: str = "") -> Network:
    listed = "".join(f"  - {line.strip()}\n" for line in layers.strip().splitlines())
    return build(loads(f"inputs: {{{inputs}}}\n{more}layers:\n{listed}"))


# what is written, what is read, how many numbers are learned, and who says so
PUBLISHED = {
    "GPT-2 small": (
        """{kind: embedding, name: tokens, units: 768, init: {weight: zeros}}
        {kind: positions, length: 1024, init: {weight: zeros}}
        {kind: transformer_decoder, name: block, heads: 12, repeat: 12, activation: {kind: gelu, approximate: tanh}}
        {kind: layer_norm}
        {kind: unembedding, share: tokens}""",
        "text: {shape: [batch, 64], type: int64, classes: 50257}",
        124_439_808,  # transformers, GPT2LMHeadModel("gpt2")
    ),
    "ViT-S/16": (
        """{kind: dense, name: patches, units: 384}
        {kind: class_token}
        {kind: positions}
        {kind: transformer_encoder, name: block, heads: 6, repeat: 12, epsilon: 1e-6}
        {kind: layer_norm, epsilon: 1e-6}
        {kind: select, index: 0}
        {kind: dense, name: scores, units: 1000}""",
        "pixels: {shape: [batch, 196, 768]}",
        22_050_664,  # timm, vit_small_patch16_224
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_size(name: str) -> None:
    layers, inputs, size = PUBLISHED[name]
    assert numbers(model(layers, inputs, "init: {weight: zeros, bias: zeros}\n")) == size


MODULES = {
    "{kind: lstm, units: 12, layers: 2, bidirectional: true}": nn.LSTM(8, 12, 2, bidirectional=True),
    "{kind: gru, units: 12, layers: 3}": nn.GRU(8, 12, 3),
    "{kind: rnn, units: 12, bias: false}": nn.RNN(8, 12, bias=False),
    "{kind: attention, heads: 4}": nn.MultiheadAttention(8, 4),
    "{kind: transformer_encoder, heads: 4, feed_forward: 20}": nn.TransformerEncoderLayer(8, 4, 20),
    "{kind: transformer_decoder, heads: 4, feed_forward: 20, memory: x}": nn.TransformerDecoderLayer(8, 4, 20),
}


@pytest.mark.parametrize(("layer", "module"), MODULES.items(), ids=lambda given: given if isinstance(given, str) else "")
def test_sizes_are_those_of_torchs_modules(layer: str, module: nn.Module) -> None:
    assert numbers(model(layer)) == sum(parameter.numel() for parameter in module.parameters())


DROPPING = [
    "{kind: lstm, units: 6, layers: 2, dropout: 0.5, name: layer}",
    "{kind: attention, heads: 2, causal: true, dropout: 0.5, name: layer}",
    "{kind: attention, heads: 4, kv_heads: 2, rotary: true, dropout: 0.5, from: [x, x], name: layer}",
    "{kind: attention, heads: 2, causal: true, dropout: 0.5, from: [x, x, seen], name: layer}",
    "{kind: attention, heads: 4, kv_heads: 1, dropout: 0.5, from: [x, x, added], name: layer}",
    "{kind: feed_forward, dropout: 0.5, name: layer}",
    "{kind: transformer_encoder, heads: 2, dropout: 0.5, name: layer}",
    "{kind: transformer_decoder, heads: 2, norm: post, attention_dropout: 0.5, memory: x, name: layer}",
]


@pytest.mark.parametrize("layer", DROPPING)
def test_at_inference_nothing_is_dropped(layer: str) -> None:
    masks = {"seen": "{shape: [batch, 5], type: int64, classes: 2}", "added": "{shape: [batch, 4, 5, 5]}"}
    inputs = ", ".join(["x: {shape: [batch, 5, 8]}", *(f"{name}: {mask}" for name, mask in masks.items() if name in layer)])
    dropping, still = (model(text, inputs) for text in (layer, re.sub(r"(attention_)?dropout: 0.5, ", "", layer)))
    feeds = fed(still, {"batch": BATCH})
    predicted, truth = (evaluated(inference(net), feeds) for net in (dropping, still))
    trained = differentiated(dropping, feeds, np.ones_like(truth))[""]
    np.testing.assert_allclose(predicted, truth, rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(trained - truth) > 0.05 * np.linalg.norm(truth)


def evaluated(graph: ir.Model, feeds: dict[str, Array]) -> Array:
    """The output of an inference graph, whose parameters are set beforehand."""
    for name, value in graph.graph.initializers.items():
        if name in feeds:
            value.const_value = ir.tensor(feeds[name], name=name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})[0])


NORMED = ["block/attention/norm", "block/attention/attention", "block/attention/dropout", "block/attention/sum"]
OPENED = {
    "transformer_encoder, dropout: 0.1": [
        *NORMED,
        *(name.replace("attention", "feed_forward") for name in NORMED),
    ],
    "transformer_encoder, norm: post": [
        *("block/attention/attention", "block/attention/sum", "block/attention_norm"),
        *("block/feed_forward/feed_forward", "block/feed_forward/sum", "block/feed_forward_norm"),
    ],
    "transformer_decoder, memory: x": [
        f"block/{part}/{layer}"
        for part in ("attention", "cross_attention", "feed_forward")
        for layer in ("norm", part.removeprefix("cross_"), "sum")
    ],
}


@pytest.mark.parametrize("fields", OPENED)
def test_a_block_opens_into_layers_with_names(fields: str) -> None:
    spec = loads(f"inputs: {{x: {{shape: [batch, 5, 8]}}}}\nlayers:\n  - {{name: block, heads: 2, kind: {fields}}}\n")
    assert [layer.name for layer in spec.layers] == OPENED[fields]
    assert {layer.mark.line for layer in spec.layers} == {3}


def test_a_memory_is_looked_up_outside_of_its_block() -> None:
    """Whatever the block calls its own layers."""
    spec = loads(
        "inputs: {x: {shape: [batch, 5, 8]}, memory: {shape: [batch, 3, 8]}}\nlayers:\n"
        "  - {kind: tanh, name: attention, from: memory}\n"
        "  - {kind: transformer_decoder, name: a, heads: 2, from: x, memory: attention, repeat: 2}\n"
        "  - {kind: transformer_decoder, name: b, heads: 2, memory: memory}\n"
    )
    sources = {layer.name: layer.sources for layer in spec.layers}
    assert sources["a/2/cross_attention/attention"] == ("a/2/cross_attention/norm", "attention")
    assert sources["a/2/attention/norm"] == ("a/1/feed_forward/sum",)
    assert sources["b/cross_attention/attention"] == ("b/cross_attention/norm", "memory")


TARGET = "label: {shape: [batch], type: int64, classes: 3}"
JUDGED = "{kind: dense, name: scores, units: 3}"


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_a_last_state_is_not_dead(kind: str) -> None:
    """The states of all times, which nobody reads, are the operator's first output."""
    spec = (
        f"inputs: {{x: {{shape: [batch, 5, 8]}}, {TARGET}}}\nlayers:\n"
        f"  - {{kind: {kind}, units: 6, output: last}}\n  - {JUDGED}\nloss: {{kind: cross_entropy, target: label}}\n"
    )
    first, _ = analyze(build(loads(spec))).layers
    assert first.verdict.kind == "healthy"


@pytest.mark.parametrize("position", ["0", "-1", "2"])
def test_a_selected_positions_gradient_is_predicted(position: str) -> None:
    """It is all that arrives at the sequence."""
    spec = (
        f"inputs: {{x: {{shape: [batch, 5, 8]}}, {TARGET}}}\nlayers:\n  - {{kind: dense, units: 8}}\n"
        f"  - {{kind: select, index: {position}}}\n  - {JUDGED}\nloss: {{kind: cross_entropy, target: label}}\n"
    )
    (gain,) = (edge.gain for edge in analyze(build(loads(spec))).edges if edge.id == "/select/Gather#0")
    assert gain.expected.mean is not None
    assert gain.measured == pytest.approx(gain.expected.mean, abs=0.1)
