"""The three tiers: against each other on random models, against published rates, and in what they say of the known stories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import vgcompile
from tests.random_models import models
from vgcompile import spec
from vgcompile.analysis import Analysis, Options, document
from vgcompile.build import build
from vgcompile.graph.network import Network

MODELS = Path(__file__).parent.parent / "models"


def network(text: str) -> Network:
    return build(spec.loads(text))


def chain(units: int, layers: str, repeat: int, init: str, inputs: str = "shape: [batch, 64], range: [0, 1]") -> str:
    return (
        f"name: chain\ninputs:\n  x: {{{inputs}}}\n  t: {{shape: [batch], type: int64, classes: 10}}\n"
        f"init: {{weight: {init}, bias: zeros}}\n"
        f"layers:\n  - {{kind: block, name: hidden, repeat: {repeat}, layers: [{layers.replace('UNITS', str(units))}]}}\n"
        "  - {kind: dense, name: out, units: 10}\n"
        "loss: {kind: cross_entropy, input: out, target: t}\n"
    )


def rates(analysis: Analysis) -> tuple[float, float]:
    """Predicted and measured factor per hidden layer, as geometric means from the third hidden layer to the third but last."""
    hidden = [layer.gain for layer in analysis.layers if layer.kind == "dense"][2:-3]
    steps = len(hidden) - 1
    predicted = (hidden[0].expected.mean - hidden[-1].expected.mean) / steps
    measured = (hidden[0].measured - hidden[-1].measured) / steps
    return 10**predicted, 10**measured


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=models())
def test_no_violation_on_random_models(text: str) -> None:
    """S.lo <= M <= S.hi on every edge, for models of every layer kind."""
    analysis = vgcompile.analyze(network(text), Options(tiers=("sound", "measured"), batch=5))
    assert analysis.provenance["data_inside_region"]
    assert analysis.self_check.violations == ()
    assert any(edge.gain.measured is not None for edge in analysis.edges)


@pytest.mark.parametrize(("model", "published"), [("deep_sigmoid", 0.14145), ("deep_sigmoid_lecun", 0.23605)])
def test_sigmoid_rate(model: str, published: float) -> None:
    """sigma_w sqrt(E[phi'^2]): predicted within 1 % of measured over 32 seeds, and both near the formula at sigma_b = 0."""
    analysis = vgcompile.analyze(
        vgcompile.open_network(MODELS / f"{model}.yaml"), Options(tiers=("expected", "measured"), seed=0, seeds=32)
    )
    predicted, measured = rates(analysis)
    assert predicted == pytest.approx(measured, rel=0.01)
    assert predicted == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("model", ["deep_sigmoid", "deep_sigmoid_lecun"])
def test_sigmoid_is_certified_vanishing(model: str) -> None:
    analysis = vgcompile.analyze(vgcompile.open_network(MODELS / f"{model}.yaml"))
    assert (analysis.verdict.kind, analysis.verdict.grade) == ("vanishing", "certified")
    assert analysis.worst == analysis.layers[0].name


def test_batch_normalization_explodes_without_skips() -> None:
    """Yang et al. 2019: sqrt(pi / (pi - 1)) = 1.2112 a layer in a large batch."""
    text = chain(512, "{kind: dense, units: UNITS, bias: false}, {kind: batch_norm, activation: relu}", 12, "he_normal")
    predicted, measured = rates(vgcompile.analyze(network(text), Options(tiers=("expected", "measured"), batch=256)))
    assert predicted == pytest.approx(1.2112, rel=0.01)
    assert measured == pytest.approx(1.2112, rel=0.01)


def test_linear_batch_normalization_keeps_the_finite_batch() -> None:
    """(B - 2) / (B - 3) a layer, squared (Yang et al. 2019); the width is far above the batch."""
    text = chain(4096, "{kind: dense, units: UNITS, bias: false}, {kind: batch_norm}", 10, "lecun_normal", "shape: [batch, 4096]")
    analysis = vgcompile.analyze(network(text), Options(tiers=("expected",), batch=16))
    hidden = [layer.gain.expected.mean for layer in analysis.layers if layer.kind == "dense"][2:-3]
    assert 10 ** ((hidden[0] - hidden[-1]) / (len(hidden) - 1)) == pytest.approx((14 / 13) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("deep_relu", "healthy"),
        ("deep_tanh", "healthy"),
        ("deep_residual", "healthy"),
        ("deep_batchnorm", "healthy"),
        ("deep_linear_exploding", "exploding"),
        ("deep_batchnorm_relu", "exploding"),
        ("deep_batchnorm_residual", "healthy"),
        ("lenet", "healthy"),
        ("resnet20", "healthy"),
    ],
)
def test_known_stories(model: str, kind: str) -> None:
    """Measured and predicted say the same of every model, and it is what the literature says."""
    opened = vgcompile.open_network(MODELS / f"{model}.yaml")
    both = [vgcompile.analyze(opened, Options(tiers=(tier,))).verdict.kind for tier in ("expected", "measured")]
    assert both == [kind, kind]


def test_finite_width_spread() -> None:
    """The standard deviation over initializations of a sigmoid net's log gain, predicted against that of 64 draws."""
    opened = network(chain(60, "{kind: dense, units: UNITS, activation: sigmoid}", 12, "lecun_normal"))
    prediction = vgcompile.analyze(opened, Options(tiers=("expected",), batch=32)).layers[0].gain.expected
    draws = [
        vgcompile.analyze(opened, Options(tiers=("measured",), batch=32, seed=seed)).layers[0].gain.measured for seed in range(64)
    ]
    assert np.std(draws) == pytest.approx(prediction.sd, rel=0.35)
    assert np.mean(draws) == pytest.approx(prediction.mean, abs=3 * prediction.sd / 8 + 0.005)


def test_silu_written_out_has_silus_moments() -> None:
    """A region of elementwise operators is read as one function: 0.616 a layer, not 0.582."""
    whole = chain(256, "{kind: dense, units: UNITS, activation: silu}", 3, "lecun_normal", "shape: [batch, 64]")
    analysis = vgcompile.analyze(network(whole), Options(tiers=("expected",)))
    edge = next(edge for edge in analysis.edges if edge.target.startswith("/hidden/1/dense/Swish"))
    assert 10**edge.local.expected.mean == pytest.approx(0.379482**0.5, rel=5e-3)


def test_underflow_is_said_only_of_a_flushed_gradient() -> None:
    deep = network(chain(32, "{kind: dense, units: UNITS, activation: sigmoid}", 80, "pytorch_default"))
    layers = vgcompile.analyze(deep, Options(tiers=("expected", "measured"))).layers
    assert layers[0].gain.measured is None
    assert layers[0].gain.why["measured"] == "underflow"
    assert layers[0].verdict.kind == "vanishing"
    measured = [layer.gain.measured for layer in layers if layer.gain.measured is not None]
    assert min(measured) < -40  # squares of such gradients are far below what float32 holds


def test_worst_path_adds_up() -> None:
    analysis = vgcompile.analyze(vgcompile.open_network(MODELS / "deep_residual.yaml"))
    for layer in analysis.layers:
        path = layer.verdict.worst_path
        assert path is not None
        assert sum(step.factor + step.merge for step in path.steps) == pytest.approx(path.gain, abs=1e-9)
        assert path.gain == layer.gain.measured


def test_what_no_output_reads_is_no_violation() -> None:
    """Where the adjoint comes from elsewhere the loss takes no part: nothing is certified of it, and nothing need be measured."""
    opened = vgcompile.open_network(MODELS / "deep_tanh.yaml")
    analysis = vgcompile.analyze(replace(opened, loss=None))
    assert analysis.self_check.violations == ()
    into_loss = next(edge for edge in analysis.edges if edge.value == "logits")
    assert into_loss.gain.why == {"sound.lo": "zero", "sound.hi": "zero", "expected": "undefined", "measured": "zero"}


def test_networkx_view_keeps_parallel_edges() -> None:
    """A value that one node reads twice has two edges, each with its own tiers."""
    text = chain(4, "{kind: dense, units: UNITS, activation: tanh}", 1, "lecun_normal").replace(
        "  - {kind: dense, name: out", "  - {kind: add, from: [hidden, hidden]}\n  - {kind: dense, name: out"
    )
    analysis = vgcompile.analyze(network(text), Options(tiers=("expected",)))
    graph = vgcompile.as_networkx(analysis.edges)
    assert graph.number_of_edges() == len(analysis.edges)
    assert graph.number_of_edges("/hidden/1/dense/Tanh", "/add/Add") == 2
    path = next(layer for layer in analysis.layers if layer.name == "hidden/1/dense").verdict.worst_path
    assert path is not None
    assert sum(step.factor + step.merge for step in path.steps) == pytest.approx(path.gain)


def test_without_a_loss_the_adjoint_is_gaussian() -> None:
    text = chain(8, "{kind: dense, units: UNITS, activation: tanh}", 2, "lecun_normal").split("loss:")[0]
    analysis = vgcompile.analyze(network(text.replace("  t: {shape: [batch], type: int64, classes: 10}\n", "")))
    assert "Gaussian" in str(analysis.provenance["adjoint"])
    assert all(layer.gain.measured is not None for layer in analysis.layers)


@pytest.mark.parametrize("model", ["deep_sigmoid", "deep_residual", "lenet"])
def test_json_fits_its_schema(model: str) -> None:
    analysis = vgcompile.analyze(vgcompile.open_network(MODELS / f"{model}.yaml"))
    found = json.loads(document.dumps(analysis))
    jsonschema.Draft202012Validator(document.json_schema()).validate(found)
    for tiers in (edge[field] for edge in found["edges"] for field in ("local", "gain")):
        numbers = {"sound.lo": tiers["sound"]["lo"], "sound.hi": tiers["sound"]["hi"]}
        numbers |= {"expected": tiers["expected"]["mean"], "measured": tiers["measured"]}
        assert {name for name, number in numbers.items() if number is None} == set(tiers["why"])


def test_the_same_analysis_gives_the_same_bytes() -> None:
    texts = {document.dumps(vgcompile.analyze(vgcompile.open_network(MODELS / "lenet.yaml"))) for _ in range(2)}
    assert len(texts) == 1


HEADS = """
inputs: {x: {shape: [batch, 8]}, t: {shape: [batch, 2]}, c: {shape: [batch, 2], range: [0, 1]}}
layers:
  - {kind: dense, name: stem, units: 6, activation: relu}
  - {kind: dense, name: hidden, units: 6, activation: relu}
  - {kind: dense, name: out, units: 2}
  - {kind: dense, name: side, from: stem, units: 2, activation: sigmoid}
loss:
  - {kind: huber, input: out, target: t}
  - {kind: mae, input: side, target: c, name: side}
penalty: {l2: 1e-4}
"""


def test_a_penalty_is_no_layer_and_a_head_is_not_hidden() -> None:
    """What reads parameters for the loss alone was a dead layer; a head with an activation was the last hidden layer."""
    analysis = vgcompile.analyze(network(HEADS))
    assert [layer.name for layer in analysis.layers] == ["stem", "hidden", "out", "side"]
    assert analysis.verdict.kind == "healthy"
    assert next(layer for layer in analysis.layers if layer.name == "hidden").relative.measured == pytest.approx(0.0)
    assert {activation.operator for activation in analysis.activations} == {"Relu", "Sigmoid"}  # not the loss's |e|


@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_what_no_tier_knows_is_called_neither_healthy_nor_ill(kind: str, tmp_path: Path) -> None:
    """Everywhere, a bound of such a chain has no upper end: nothing is certified of the layers before the last."""
    path = tmp_path / "open.yaml"
    dense = f"{{kind: dense, units: 4, activation: {kind}}}"
    layers = f"  - {{kind: block, repeat: 3, layers: [{dense}]}}\n  - {{kind: attention, heads: 1}}\n"
    path.write_text(
        f"inputs: {{x: {{shape: [batch, 3, 4]}}, t: {{shape: [batch, 3, 4]}}}}\nlayers:\n{layers}loss: {{kind: mse, target: t}}\n"
    )
    analysis = vgcompile.analyze(path, Options(tiers=("sound",), region="everywhere", batch=2))
    unknown = [layer.name for layer in analysis.layers if layer.verdict.kind == "unknown"]
    assert unknown
    assert (analysis.verdict.kind, analysis.verdict.text, analysis.verdict.ill, analysis.worst) == (
        "unknown",
        "unknown",
        False,
        None,
    )
    assert analysis.verdict.why.startswith(
        "no tier gives a number" if len(unknown) == len(analysis.layers) else f"for {len(unknown)} of "
    )
    seen = vgcompile.analyze(path, Options(tiers=("sound", "measured"), region="everywhere", batch=2))
    assert seen.verdict.kind != "unknown" and seen.worst is not None
