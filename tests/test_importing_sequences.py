"""Recurrent layers, attention and transformers as ONNX files come back as the layers they were, whoever wrote the file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from tests.test_importing import parsed, saved
from vgcompile.build import build
from vgcompile.errors import ModelError
from vgcompile.importing import Imported, imported
from vgcompile.importing.comparison import weighted
from vgcompile.passes.check import check
from vgcompile.passes.inference import inference
from vgcompile.runtime.session import Session
from vgcompile.spec import loads
from vgcompile.spec.layout import formatted

SERIES = "inputs: {x: {shape: [batch, 6, 5]}}"
WIDE = "inputs: {x: {shape: [batch, 6, 8]}}"
TWO = "inputs: {x: {shape: [batch, 6, 8]}, memory: {shape: [batch, 4, 12]}}"
WORDS = "inputs: {x: {shape: [batch, 6], type: int64, classes: 11}}"
EMBEDDED = f"{WORDS}\nlayers:\n  - {{kind: embedding, units: 8}}"
ANY = "inputs: {x: {shape: [batch, time, 8]}}"
MASKED = "inputs: {x: {shape: [batch, 6, 8]}, seen: {shape: [batch, 6], type: int64, classes: 2}}"

# What stands here comes back as it is, but for the names of layers that have their kind's.
OURS = {
    "rnn": f"{SERIES}\nlayers:\n  - {{kind: rnn, units: 4, activation: relu, bias: false}}",
    "rnn_two_ways": f"{SERIES}\nlayers:\n  - {{kind: rnn, units: 4, bidirectional: true}}",
    "gru": f"{SERIES}\nlayers:\n  - {{kind: gru, units: 4, reset_after: false, output: last}}",
    "gru_stack": f"{SERIES}\nlayers:\n  - {{kind: gru, units: 4, bidirectional: true, output: last, layers: 3, dropout: 0.25}}",
    "lstm": f"{SERIES}\nlayers:\n  - {{kind: lstm, units: 4}}",
    "lstm_stack": f"{SERIES}\nlayers:\n  - {{kind: lstm, units: 4, bidirectional: true, layers: 2, dropout: 0.5}}",
    "different": f"{SERIES}\nlayers:\n  - {{kind: lstm, units: 4}}\n  - {{kind: gru, units: 3, output: last}}",
    "attention": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 2}}",
    "causal": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 2, causal: true, bias: false, output_bias: true, dropout: 0.25}}",
    "sizes": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 3, head_size: 4, units: 5, scale: 0.3}}",
    "grouped": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 4, kv_heads: 2}}",
    "one_of_keys": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 4, kv_heads: 1, causal: true, rotary: true, qk_norm: true}}",
    "rotary": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 2, rotary: {{base: 500.0}}}}",
    "rotary_part": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 1, rotary: {{fraction: 0.5, interleaved: true}}}}",
    "qk_norm": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 2, qk_norm: true}}",
    "cross": f"{TWO}\nlayers:\n  - {{kind: attention, from: [x, memory], heads: 4}}",
    "masked": f"{MASKED}\nlayers:\n  - {{kind: attention, from: [x, x, seen], heads: 2, causal: true}}",
    "positions": f"{EMBEDDED}\n  - {{kind: positions}}",
    "waves": f"{EMBEDDED}\n  - {{kind: positions, encoding: sinusoidal, base: 300.0}}",
    "longer": f"{EMBEDDED}\n  - {{kind: positions, length: 9}}",
    "tied": f"{EMBEDDED}\n  - {{kind: layer_norm}}\n  - {{kind: unembedding, share: embedding}}",
    "class_token": f"{EMBEDDED}\n  - {{kind: class_token}}\n  - {{kind: select, index: 0}}",
    "pre_norm": f"{WIDE}\nlayers:\n  - {{kind: transformer_encoder, heads: 2, repeat: 2}}",
    "post_norm": f"{WIDE}\nlayers:\n  - {{kind: transformer_encoder, heads: 2, feed_forward: 12, activation: relu, norm: post}}",
    "llama": (
        f"{WIDE}\nlayers:\n  - {{kind: transformer_decoder, heads: 4, kv_heads: 2, rotary: true, activation: swiglu, "
        "norm_kind: rms_norm, bias: false, repeat: 3}"
    ),
    "gpt": f"{EMBEDDED}\n  - {{kind: transformer_decoder, heads: 2, dropout: 0.1, attention_dropout: 0.2, repeat: 2}}",
    "any_length": f"{ANY}\nlayers:\n  - {{kind: attention, heads: 2, causal: true, rotary: true}}",
}


def require_values(made: Imported, expected: list[np.ndarray], *inputs: np.ndarray) -> None:
    network = weighted(made.text, made.weights)
    session = Session(check(inference(network)), "cpu")
    found = session.run(None, dict(zip(network.inputs, inputs, strict=True)))
    for array, name in zip(expected, network.outputs, strict=True):
        assert np.linalg.norm(found[name] - array) <= 1e-5 * np.linalg.norm(array)
    assert formatted(made.text) == made.text


@pytest.mark.parametrize("name", OURS)
def test_our_own_layers_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    original = build(loads(f"name: {name}\n{OURS[name]}"))
    made = imported(saved(original, tmp_path))
    again = build(loads(made.text))
    wanted = build(loads(f"name: {name}\n{OURS[name]}"))
    assert {key: value.shape for key, value in again.parameter_values().items()} == {
        key: value.shape for key, value in wanted.parameter_values().items()
    }
    written, stated = (yaml.safe_load(text)["layers"] for text in (made.text, OURS[name]))
    assert [{key: value for key, value in layer.items() if key != "name"} for layer in written] == stated


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], gives: str, **options: object) -> None:
        super().__init__()
        self.memory, self.gives = kind(5, 4, batch_first=True, **options), gives
        self.logits = nn.Linear(8 if self.memory.bidirectional else 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, last = self.memory(x)
        last = last[0] if isinstance(last, tuple) else last
        if self.gives == "ends":
            return self.logits(torch.cat([last[-2], last[-1]], 1))
        return self.logits({"states": states, "end": states[:, -1], "last": last[-1]}[self.gives])


class Encoder(nn.Module):
    def __init__(self, *, norm_first: bool, causal: bool = False) -> None:
        super().__init__()
        self.words, self.causal = nn.Embedding(11, 8), causal
        self.places = nn.Parameter(torch.randn(6, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.logits = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(6) if self.causal else None
        return self.logits(self.blocks(self.words(x) + self.places, mask=mask).mean(1))


class Gpt(nn.Module):
    """GPT-2 as its authors wrote it: one projection for all three, heads cut out of it, the embedding's table for the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(9, 8)
        self.h = nn.ModuleList(nn.ModuleDict(self._block()) for _ in range(2))
        self.ln_f = nn.LayerNorm(8)

    @staticmethod
    def _block() -> dict[str, nn.Module]:
        parts = {"ln_1": nn.LayerNorm(8), "c_attn": nn.Linear(8, 24), "c_proj": nn.Linear(8, 8), "ln_2": nn.LayerNorm(8)}
        return {**parts, "c_fc": nn.Linear(8, 32), "out": nn.Linear(32, 8)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time = x.shape
        y = self.wte(x) + self.wpe(torch.arange(time))
        for block in self.h:
            q, k, v = (part.view(batch, time, 2, 4).transpose(1, 2) for part in block["c_attn"](block["ln_1"](y)).split(8, -1))
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(4.0)
            scores = scores.masked_fill(torch.ones(time, time).tril() == 0, float("-inf"))
            y = y + block["c_proj"]((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, 8))
            y = y + block["out"](nn.functional.gelu(block["c_fc"](block["ln_2"](y)), approximate="tanh"))
        return self.ln_f(y) @ self.wte.weight.T


def _series(generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=(3, 6, 5)).astype(np.float32)


def _words(generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, 11, size=(3, 6))


LSTM_LAYER = "{kind: lstm, name: memory, units: 4, layers: 2, output: last}"
BLOCKS = "{kind: transformer_encoder, name: layers, heads: 2, feed_forward: 16, repeat: 2}"
CAUSAL_BLOCKS = "{kind: transformer_decoder, name: layers, heads: 2, feed_forward: 16, norm: post, repeat: 2}"
TORCH = {
    "lstm": (lambda: Recurrent(nn.LSTM, "last", num_layers=2), _series, LSTM_LAYER),
    "lstm_end": (lambda: Recurrent(nn.LSTM, "end"), _series, "{kind: select, index: -1}"),
    "lstm_ends": (lambda: Recurrent(nn.LSTM, "ends", bidirectional=True), _series, "bidirectional: true, output: last}"),
    "gru": (lambda: Recurrent(nn.GRU, "states", num_layers=2, bidirectional=True), _series, "bidirectional: true, layers: 2}"),
    "rnn": (lambda: Recurrent(nn.RNN, "last", nonlinearity="relu"), _series, "activation: relu, output: last}"),
    "encoder": (lambda: Encoder(norm_first=True), _words, BLOCKS),
    "causal": (lambda: Encoder(norm_first=False, causal=True), _words, CAUSAL_BLOCKS),
    "gpt": (Gpt, _words, "heads: 2, activation: {kind: gelu, approximate: tanh}, repeat: 2}"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCH)
def test_exports_of_pytorch(name: str, tmp_path: Path) -> None:
    make, draw, expected = TORCH[name]
    torch.manual_seed(0)
    module, path, x = make().eval(), tmp_path / f"{name}.onnx", draw(np.random.default_rng(0))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # copies of a layer start alike, and exporters merge what is alike
        y = module(torch.from_numpy(x)).numpy()
    torch.onnx.export(module, (torch.from_numpy(x),), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    made = imported(path)
    require_values(made, [y], x)
    assert expected in made.text
    learned = build(loads(made.text)).parameter_values().values()
    assert sum(value.size for value in learned) == sum(parameter.numel() for parameter in module.parameters())


LSTM = """m (float[N, 3, 2] x, float[1, N, 4] h) => (float[3, 1, N, 4] y)
<float[1, 16, 2] w, float[1, 16, 4] r> { t = Transpose<perm = [1, 0, 2]>(x) %s }"""
REFUSED = {
    "backward alone": ('y, last = LSTM<hidden_size = 4, direction = "reverse">(t, w, r)', "it reads backward in time alone"),
    "a state": ("y, last = LSTM<hidden_size = 4>(t, w, r, , , h)", "it starts from a state that data have a part in"),
    "clipped": ("y, last = LSTM<hidden_size = 4, clip = 1.0>(t, w, r)", "it clips what enters its gates"),
    "time first": ("y, last = LSTM<hidden_size = 4>(t, w, r)", "its states are read in a form that is neither"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_recurrent_layer_cannot_say_is_refused(name: str, tmp_path: Path) -> None:
    nodes, reason = REFUSED[name]
    text = (
        LSTM.replace("w,", f"w = {{{', '.join(['0.1'] * 32)}}},").replace("r> {", f"r = {{{', '.join(['0.1'] * 64)}}}> {{")
        % nodes
    )
    with pytest.raises(ModelError, match="what has no layer cannot be imported") as refused:
        imported(parsed(text, tmp_path))
    first, *others = str(refused.value).splitlines()[1:]
    assert first.strip().startswith("LSTM (node ") and reason in first and not others


LOSSES = {
    "mse": "d = Sub(z, t)  s = Mul(d, d)  loss = ReduceMean<keepdims = 0>(s)",
    "mae": "d = Sub(t, z)  s = Abs(d)  loss = ReduceMean<keepdims = 0>(s)",
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_is_known_by_its_values(kind: str, tmp_path: Path) -> None:
    made = imported(
        parsed(
            f"""m (float[N, 2] x, float[N, 3] t) => (float loss) <float[2, 3] "fc.weight" = {{1, 2, 3, 4, 5, 6}}>
            {{ z = MatMul(x, "fc.weight")  {LOSSES[kind]} }}""",
            tmp_path,
        )
    )
    assert (
        made.text.endswith(f"loss: {{kind: {kind}, input: fc, target: t, reduction: mean}}\n")
        and "states no loss" not in made.text
    )


ADDED = {
    "cross_entropy": ("target: {shape: [N], type: int64, classes: 3}", "loss: {kind: cross_entropy, input: fc, target: target}"),
    "mse": ("target: {shape: [N, 3]}", "loss: {kind: mse, input: fc, target: target}"),
}


@pytest.mark.parametrize("kind", ADDED)
def test_a_file_without_a_loss_gets_one(kind: str, tmp_path: Path) -> None:
    path = parsed(
        'm (float[N, 2] x) => (float[N, 3] z) <float[2, 3] "fc.weight" = {1, 2, 3, 4, 5, 6}> { z = MatMul(x, "fc.weight") }',
        tmp_path,
    )
    text = imported(path, loss=kind).text
    assert all(line in text for line in ADDED[kind])
    assert build(loads(text)).loss == "loss"
    assert "# It states no loss" in imported(path).text
    with pytest.raises(ModelError, match="did you mean 'mse'"):
        imported(path, loss="msee")
