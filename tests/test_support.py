"""Bounds for all weights that an initializer may draw: no draw is beyond them, and what has no bounds is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import vgcompile
from tests.test_batch_axis import FEATURES, STEPS, lstm
from vgcompile.analysis import Options
from vgcompile.analysis.bounds.region import region
from vgcompile.analysis.bounds.support import support, supports
from vgcompile.analysis.sound import sound
from vgcompile.build import build
from vgcompile.cli import main
from vgcompile.errors import UserError
from vgcompile.graph.load import load
from vgcompile.graph.network import Network
from vgcompile.initial import Initial
from vgcompile.norms import singular_extremes
from vgcompile.spec import loads

INITIALS = {
    "uniform": Initial("uniform", (7, 12), 0.25, 0.5),
    "truncated normal": Initial("truncated_normal", (7, 12), -0.5, 0.25),
    "orthogonal": Initial("orthogonal", (7, 12), 0.0, 0.4),
    "orthogonal, kernel": Initial("orthogonal", (12, 3, 2, 2), 0.0, 0.1),
    "orthogonal, gates": Initial("orthogonal", (24, 8), 0.0, 0.3, parts=3),
}


@pytest.mark.parametrize("initial", INITIALS.values(), ids=list(INITIALS))
def test_every_draw_is_inside_its_support(initial: Initial) -> None:
    known = support(initial)
    for seed in range(40):
        drawn = initial.draw("w", seed).astype(np.float64)
        assert known.box.contains(drawn)
        if known.singular is not None:
            values = np.linalg.svd(drawn.reshape(len(drawn), -1), compute_uv=False)
            assert known.singular[0] <= values.min() + 1e-12
            assert values.max() <= known.singular[1] + 1e-12
    if initial.kind == "uniform":
        assert known.box.hi == pytest.approx(initial.mean + math.sqrt(3.0) * initial.sd, rel=1e-6)
    if initial.kind == "orthogonal" and initial.parts == 1:
        assert known.singular == pytest.approx((initial.sd * math.sqrt(12.0),) * 2, rel=1e-5)


def text(init: str, layers: str, shape: str = "16") -> str:
    return f"""name: net
inputs: {{x: {{shape: [batch, {shape}], range: [-1, 1]}}, t: {{shape: [batch], type: int64, classes: 4}}}}
init: {{weight: {init}, bias: {{kind: uniform, range: [-0.2, 0.1]}}}}
layers:
{layers}
  - {{kind: dense, name: out, units: 4}}
loss: {{kind: cross_entropy, target: t}}
"""


DENSE = "  - {kind: block, name: h, repeat: 3, layers: [{kind: dense, units: 16, activation: tanh}]}"
GAMMA = "init: {scale: {kind: uniform, range: [0.5, 1.5]}, bias: {kind: uniform, range: [-1, 1]}}"
CONV = "  - {kind: conv2d, filters: 5, kernel: 3, padding: same, activation: tanh}"
STRIDED = "  - {kind: conv2d, filters: 3, kernel: 2, stride: 2, activation: relu}"
WIDER = "  - {kind: conv_transpose2d, filters: 3, kernel: 2, stride: 2, activation: tanh}"
FLAT = "  - {kind: flatten}"
NARROWING = "  - {kind: dense, units: 24, activation: sigmoid}\n  - {kind: dense, units: 6, activation: gelu}"
RESIDUAL = "  - {kind: residual, name: h, repeat: 3, layers: [{kind: dense, units: 16, activation: relu}]}"
NORMED = f"""  - {{kind: dense, units: 16}}
  - {{kind: layer_norm, {GAMMA}, activation: tanh}}
  - {{kind: dense, units: 8}}
  - {{kind: rms_norm, init: {{scale: {{kind: uniform, range: [0.5, 1.5]}}}}}}"""
TABLE = "  - {kind: embedding, units: 6, init: {weight: {kind: uniform, range: [-1, 2]}}}"
LOOKED_UP = text("he_uniform", f"{TABLE}\n{FLAT}").replace("range: [-1, 1]}", "type: int64, classes: 5}")
NETS = {
    "dense": text("he_uniform", DENSE),
    "dense, orthogonal": text("{kind: orthogonal, gain: 1.3}", DENSE),
    "narrowing": text("glorot_uniform", NARROWING),
    "truncated": text("{kind: truncated_normal, sd: 0.2}", DENSE),
    "residual": text("{kind: uniform, range: [-0.05, 0.05]}", RESIDUAL),
    "convolution": text("he_uniform", f"{CONV}\n{STRIDED}\n{FLAT}", "2, 6, 6"),
    "convolution, orthogonal": text("{kind: orthogonal}", f"{CONV}\n{FLAT}", "2, 6, 6"),
    "transposed convolution": text("he_uniform", f"{WIDER}\n{FLAT}", "2, 4, 4"),
    "norm": text("he_uniform", NORMED),
    "embedding": LOOKED_UP,
    "rnn": text("he_uniform", "  - {kind: rnn, units: 6, output: last}", "4, 3"),
    "gru": text("{kind: uniform, range: [-0.3, 0.3]}", "  - {kind: gru, units: 6, output: last}", "4, 3"),
    "lstm": text("he_uniform", "  - {kind: lstm, units: 6, output: last}", "4, 3"),
}


def gains(network: Network) -> dict[str, float]:
    """log10 of each edge's measured gain."""
    found = vgcompile.analyze(network, Options(tiers=("measured",), batch=16, paths=False))
    return {edge.id: edge.gain.measured for edge in found.edges if edge.gain.measured is not None}


def with_weights(network: Network, rng: np.random.Generator, extreme: bool) -> None:
    """Every drawn parameter anew, uniform over its box or at the corners of it; an orthogonal one turned."""
    known = supports(network)
    for name, where in known.items():
        value = network.model.graph.initializers[name]
        shape = tuple(int(dim) for dim in value.shape or ())
        lo, hi = np.float64(where.box.lo), np.float64(where.box.hi)
        share = rng.integers(0, 2, shape) if extreme else rng.random(shape)
        array = lo + share * (hi - lo)
        if where.singular is not None:
            q, _ = np.linalg.qr(rng.normal(size=(max(shape[0], math.prod(shape[1:])), min(shape[0], math.prod(shape[1:])))))
            array = (q if q.shape[0] == shape[0] else q.T).reshape(shape) * where.singular[1] * (1 - 1e-7)
        if extreme and rng.random() < 0.5 and where.singular is None:
            array = np.full(shape, rng.choice([lo, hi]))  # the norm of the box is that of a corner
        value.const_value = ir.tensor(array.astype(np.float32), name=name)


@pytest.mark.parametrize("name", NETS)
def test_no_weights_of_the_support_are_beyond_the_bounds(name: str) -> None:
    """Draws and corners; what the corner with all weights at one end makes of a dense layer is the bound itself."""
    network = build(loads(NETS[name]))
    where = region(network, "range" if "embedding" not in name else "everywhere").over(supports(network))
    bounds = {f"{node.name}#{position}": ends for (node, position), ends in sound(network, where).gain.items()}
    assert any(math.isfinite(hi) for _, hi in bounds.values())
    rng = np.random.default_rng(0)
    for attempt in range(5):
        with_weights(network, rng, extreme=attempt % 2 == 1)
        for edge, gain in gains(network).items():
            if edge in bounds:
                lo, hi = bounds[edge]
                assert lo - 1e-5 <= gain <= hi + 1e-5, (edge, attempt)


def factors(network: Network) -> dict[str, tuple[float, float]]:
    where = region(network, "range").over(supports(network))
    return {f"{node.name}#{position}": ends for (node, position), ends in sound(network, where).local.items()}


def test_the_norm_of_a_box_is_that_of_its_corner() -> None:
    network = build(loads(text("{kind: uniform, range: [-0.1, 0.1]}", "  - {kind: dense, name: h, units: 9}")))
    local = {
        f"{node.name}#{i}": ends
        for (node, i), ends in sound(network, region(network, "range").over(supports(network))).local.items()
    }
    assert local["/h/Gemm#0"][1] == pytest.approx(math.log10(0.1 * math.sqrt(16 * 9)), abs=1e-6)
    assert local["/h/Gemm#0"][0] == -math.inf
    assert local["/h/Gemm#0"][1] >= math.log10(singular_extremes(np.full((16, 9), 0.1))[1]) - 1e-9


def test_an_orthogonal_matrix_has_its_gain_from_below_as_well() -> None:
    network = build(loads(text("{kind: orthogonal, gain: 1.5}", "  - {kind: dense, name: h, units: 24}")))
    local = {
        f"{node.name}#{i}": ends
        for (node, i), ends in sound(network, region(network, "range").over(supports(network))).local.items()
    }
    assert local["/out/Gemm#0"] == pytest.approx((math.log10(1.5),) * 2, abs=1e-5)
    assert local["/h/Gemm#0"][0] == -math.inf
    assert local["/h/Gemm#0"][1] == pytest.approx(math.log10(1.5), abs=1e-5)


def test_another_seed_is_inside(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(NETS["dense"])
    for seed in ("3", "4"):
        assert main(["analyze", str(path), "--certify", "support", "--seed", seed, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["provenance"]["certify"] == "support"
        assert document["self_check"]["violations"] == []


def test_an_unbounded_support_is_told_with_what_would_do(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(text("he_normal", DENSE))
    assert main(["analyze", str(path), "--certify", "support", "--tiers", "sound"]) == 0
    shown = capsys.readouterr()
    assert "note: h/1/dense/weight and 3 more may be any number" in shown.err
    assert "he_uniform" in shown.err
    assert "unbounded" in shown.out


def test_weights_that_nobody_drew_have_no_support() -> None:
    with pytest.raises(UserError, match="its parameters are arrays, not draws; bounds for all draws need a YAML model"):
        vgcompile.analyze(load(lstm((STEPS, "N", FEATURES))), Options(certify="support", tiers=("sound",), batch=2))
