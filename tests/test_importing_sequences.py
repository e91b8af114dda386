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
    "one_head_of_keys": f"{WIDE}\nlayers:\n  - {{kind: attention, heads: 4, kv_heads: 1, causal: true, rotary: true, qk_norm: true}}",
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
    "series_of_any_length": "inputs: {x: {shape: [batch, time, 8]}}\nlayers:\n  - {kind: attention, heads: 2, causal: true, rotary: true}",
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
