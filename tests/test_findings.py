"""Findings: what they rest on adds up and agrees with closed forms, with NumPy's own rounding, with other tools' thresholds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import vgcompile
from benchmarks.verdicts import models, truth
from benchmarks.verdicts.peers import NETS, verdict
from tests.test_cli import DEEP, Run, run  # noqa: F401  a fixture
from tests.test_complaints import SARIF
from vgcompile.analysis import Analysis, Options, analyze
from vgcompile.analysis.document import dumps, json_schema, to_json
from vgcompile.analysis.findings.attention import residual
from vgcompile.analysis.floats import FLOATS, share_flushed, share_lost
from vgcompile.analysis.presets import PRESETS
from vgcompile.build import build
from vgcompile.errors import UserError
from vgcompile.graph.load import load
from vgcompile.interval import interval
from vgcompile.ops import NUMPY, OPS
from vgcompile.ops.op import Case
from vgcompile.ops.reading import slope_range
from vgcompile.render.report import render
from vgcompile.rules.gradients import KINDS, RULES
from vgcompile.rules.rule import Rule
from vgcompile.runtime.data import batch
from vgcompile.spec import loads

MODELS = Path(__file__).parents[1] / "models"
DTYPES: Mapping[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


SIX = """
inputs: {x: {shape: [batch, 32]}, t: {shape: [batch], type: int64, classes: 10}}
init: {weight: lecun_normal}
layers:
  - {kind: block, name: hidden, repeat: 6, layers: [{kind: dense, units: 64, activation: %s}]}
  - {kind: dense, name: out, units: 10}
loss: {kind: cross_entropy, target: t, weight: 3e-4}
"""


def analysed(text: str, **options: Any) -> Analysis:
    return analyze(build(loads(text, "model.yaml")), Options(**options))


def defaults(operator: str) -> dict[str, Any]:
    stated = onnx.defs.get_schema(operator).attributes.values()
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute.default_value) for attribute in stated if not attribute.required
    }


def by_rule(rule: Rule) -> Analysis:
    return analysed(rule.failing, **rule.analysed)


# evidence


@pytest.mark.parametrize(
    ("model", "tier"),
    [*(("deep_sigmoid", tier) for tier in ("sound", "expected", "measured")), ("deep_batchnorm_relu", "expected")],
)
def test_the_attribution_of_a_path_adds_up(model: str, tier: str) -> None:
    """By cause and by edge alike; where the path leads through the last hidden layer, to what the verdict rests on."""
    analysis = analyze(vgcompile.open_network(MODELS / f"{model}.yaml"), Options(tiers=(tier,)))
    relative = {layer.name: layer.relative for layer in analysis.layers}
    found = [finding for finding in analysis.findings if finding.evidence is not None]
    assert found
    for finding in found:
        evidence = finding.evidence
        assert sum(evidence.causes.values()) == pytest.approx(evidence.log, abs=1e-9)
        assert sum(blame.log for blame in evidence.edges) + evidence.rest == pytest.approx(evidence.log, abs=1e-9)
        assert evidence.since == "last hidden layer"
        number = relative[finding.layer]
        truth_ = {"sound": number.sound.hi, "expected": number.expected.mean, "measured": number.measured}[evidence.tier]
        if evidence.tier == "sound":  # two sweeps, from y and from the last hidden layer, each with an ellipsoid of its own
            assert evidence.log <= truth_ + 1e-6
        else:
            assert evidence.log == pytest.approx(truth_, abs=1e-6)


def test_causes_are_those_of_theory() -> None:
    """Of a sigmoid layer with sigma_w^2 = 1/3 the weights take sqrt(1/3), the slopes the rest of 0.1414."""
    analysis = analyze(vgcompile.open_network(MODELS / "deep_sigmoid.yaml"), Options(tiers=("expected",)))
    evidence = next(finding.evidence for finding in analysis.findings if finding.layer == "hidden/1/dense")
    assert evidence.causes["weights"] / 19 == pytest.approx(0.5 * math.log10(1 / 3), rel=0.01)
    assert evidence.causes["slopes"] / 19 == pytest.approx(math.log10(0.2449), rel=0.01)
    assert evidence.causes["normalization"] == evidence.causes["fan-out"] == evidence.causes["other"] == 0.0


def test_a_join_is_put_down_to_the_fan_out() -> None:
    """sqrt(2) a layer: each of twenty sums hands its gradient both ways, and the weights alone keep its length."""
    text = """
    inputs: {x: {shape: [batch, 8]}, t: {shape: [batch, 8]}}
    init: {weight: orthogonal}
    layers:
      - {kind: dense, units: 8}
      - {kind: block, name: hidden, repeat: 22, layers: [{kind: residual, layers: [{kind: dense, units: 8}]}]}
      - {kind: dense, name: out, units: 8}
    loss: {kind: mse, target: t}
    """
    found = [finding for finding in analysed(text, tiers=("expected",)).findings if finding.layer == "dense"]
    assert [finding.rule.name for finding in found] == ["predicted-exploding"]
    assert max(found[0].evidence.causes, key=found[0].evidence.causes.get) == "fan-out"


def test_a_small_factor_before_a_branch_is_told_from_weights() -> None:
    """LayerScale: the factor takes it all, and an optimizer may divide it out: a warning, whatever its size."""
    text = """
    inputs: {x: {shape: [batch, 8]}, t: {shape: [batch, 8]}}
    init: {weight: orthogonal}
    layers:
      - {kind: dense, units: 8}
      - {kind: residual, name: hidden, scale: {learned: 1.0e-8}, layers: [{kind: dense, units: 8}]}
      - {kind: dense, units: 8}
      - {kind: dense, name: out, units: 8}
    loss: {kind: mse, target: t}
    """
    (found,) = [finding for finding in analysed(text, tiers=("expected",)).findings if finding.layer.startswith("hidden")]
    assert (found.rule.name, found.severity) == ("predicted-vanishing", "warning")
    assert found.evidence.causes["scales"] == pytest.approx(-8.0, abs=1e-6)
    assert found.evidence.causes["weights"] == pytest.approx(0.0, abs=0.05)
    assert "a branch scale that begins larger" in found.hint


# floating-point types


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("sd", [0.0, 0.3])
def test_the_share_that_rounds_to_zero_is_that_of_a_cast(name: str, sd: float) -> None:
    rng, kind = np.random.default_rng(0), FLOATS[name]
    for above in (-1.0, 0.0, 0.5, 2.0):
        size = kind.least + above
        g = rng.standard_normal(40_000) * 10.0 ** (size + sd * rng.standard_normal(40_000))
        assert share_flushed(size, sd, kind) == pytest.approx(np.mean(g.astype(DTYPES[name]) == 0), abs=0.01)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_the_share_is_near_that_of_the_gradient_itself(activation: str) -> None:
    """Of the elements that are not zero anyway, as half of a rectifier's; that they are Gaussian is right to within 0.15."""
    network = build(loads(SIX % activation, "model.yaml"))
    layers = analyze(network, Options(batch=64, tiers=("expected", "measured"))).layers[:-1]
    session = vgcompile.Session(vgcompile.grad(network, wrt=[layer.value for layer in layers]), provider="cpu")
    known = {**batch(network, size=64, seed=network.seed), **network.parameter_values()}
    found = session.run(None, {name: array for name, array in known.items() if name in session.required})
    for layer in layers:
        g = found[f"grad.{layer.value}"]
        true = float(np.mean(g[g != 0].astype(np.float16) == 0))
        assert layer.underflow["float16"] == pytest.approx({"expected": true, "measured": true}, abs=0.15)


@pytest.mark.parametrize("name", FLOATS)
def test_lost_updates_are_those_that_change_no_weight(name: str) -> None:
    """Half a unit in the last place is from 2^-(p+1) to 2^-p of a weight: the share lies between those of two update sizes."""
    rng, kind = np.random.default_rng(0), FLOATS[name]
    weights = rng.standard_normal(40_000).astype(DTYPES[name])
    for update in (-kind.precision * math.log10(2.0) + shift for shift in (-1.0, 0.0, 1.0)):
        step = (10.0**update * rng.standard_normal(40_000)).astype(DTYPES[name])
        lost = np.mean(weights - step == weights)
        assert share_lost(update + math.log10(2.0), kind) - 0.01 <= lost <= share_lost(update, kind) + 0.01


@pytest.mark.parametrize("tier", ["expected", "measured"])
def test_a_small_loss_underflows_in_float16_alone(tier: str) -> None:
    """Predicted without a run the loss's scale is a convention, which is said."""
    rule = KINDS["underflow"][0]
    deep = rule.failing.replace("weight: 1e-6", "weight: 1")
    shares = {layer.name: layer.underflow for layer in by_rule(rule).layers}
    assert shares["hidden"]["float16"]["measured"] > 0.5
    assert max(shares["hidden"][name]["measured"] for name in ("float32", "bfloat16")) < 1e-9
    assert not analysed(deep, tiers=(tier,), dtype="float16").findings


# depth


def test_the_founding_net_has_a_budget_of_three_and_a_half_layers() -> None:
    """3 / -log10(0.14145), and a predicted float16 underflow of what is left of 2^-24."""
    network = vgcompile.open_network(MODELS / "deep_sigmoid.yaml")
    for tier in ("expected", "measured"):
        whole, *segments = analyze(network, Options(tiers=(tier,))).budgets
        assert (whole.segment, whole.layers, segments) == ("deep_sigmoid", 20, [])
        assert whole.threshold == pytest.approx(3.0 / -math.log10(0.14145), rel=0.02)
        assert 3 < whole.underflow["float16"] < 5 < 40 < whole.underflow["float32"] < 60


def test_each_segment_has_its_own_budget() -> None:
    text = """
    inputs: {x: {shape: [batch, 32]}, t: {shape: [batch, 2]}}
    layers:
      - {kind: block, name: steep, repeat: 5, layers: [{kind: dense, units: 32, activation: sigmoid}]}
      - {kind: block, name: flat, repeat: 5, layers: [{kind: dense, units: 32, init: {weight: orthogonal}}]}
      - {kind: dense, name: out, units: 2}
    loss: {kind: mse, target: t}
    """
    steep, flat = analysed(text, tiers=("expected",)).budgets[1:]
    assert (steep.segment, steep.layers, flat.segment, flat.layers) == ("steep", 5, "flat", 5)
    assert steep.threshold < 5 < 500 < flat.threshold


# dead, blocked, alike


def test_a_slope_of_steps_is_exact() -> None:
    """It was rounded outward, so that no rectifier was ever proved to be dead."""
    for row in (row for row in OPS.values() if row.steps):
        attributes = {**defaults(row.name), **row.samples[0].attributes}
        for lo, hi in ((-9.0, -5.0), (5.0, 9.0), (-9.0, 9.0)):
            slopes = slope_range(NUMPY, row, 0, Case(attributes, ranges=(interval(lo, hi),)))
            x = np.linspace(lo, hi, 101)
            seen = row.derivatives[0](NUMPY, x, row.numpy(x, **attributes), **attributes)
            assert (float(slopes.lo), float(slopes.hi)) == (np.min(seen), np.max(seen))


def test_dead_units_are_counted() -> None:
    rule = KINDS["dead"][0]
    found = next(finding for finding in by_rule(rule).findings)
    assert found.message.startswith("100 % of the units")
    biases = np.where(np.arange(8) < 5, -99.0, 0.0).astype(np.float32)
    network = build(loads(rule.repaired, "model.yaml"))
    network.model.graph.initializers["hidden/bias"].const_value = ir.tensor(biases, name="hidden/bias")
    assert [finding.message[:4] for finding in analyze(network, Options(tiers=("sound",))).findings] == ["62 %"]


BLOCKED = {
    "Round": "(float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> { a = MatMul(x, w) r = Round(a) y = Add(r, x) }",
    "ArgMax": "(float[N,2] x) => (float[N] y) <float[2,2] w = {1,2,3,4}> { a = MatMul(x, w) "
    "i = ArgMax<axis = 1, keepdims = 0>(a) f = Cast<to = 1>(i) z = Constant<value_ints = [1]>() "
    "s = ReduceSum<keepdims = 0>(x, z) y = Add(f, s) }",
}


@pytest.mark.parametrize("operator", BLOCKED)
def test_what_cuts_a_parameter_off_is_named(operator: str, tmp_path: Path) -> None:
    text = f'<ir_version: 10, opset_import: ["": 21]> g {BLOCKED[operator]}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "g.onnx")
    found = analyze(load(tmp_path / "g.onnx"), Options(tiers=("sound",))).findings
    assert [finding.rule.name for finding in found] == ["blocked"]
    assert found[0].message.startswith(f"w gets no gradient: {operator} (node ")
    assert found[0].mark.line == 0


def test_the_residual_of_positions() -> None:
    """0 of copies, sqrt(1 - 1/n) of orthogonal tokens, and scale makes no difference."""
    rng = np.random.default_rng(0)
    token = rng.standard_normal((3, 1, 8))
    assert residual(np.repeat(token, 5, axis=1)) == pytest.approx(0.0, abs=1e-12)
    assert residual(7.0 * np.eye(8)[None, :4]) == pytest.approx(math.sqrt(1 - 1 / 4))
    assert residual(token) is None
    assert residual(np.full((1, 2, 3), np.nan)) is None


def test_collapse_is_predicted_where_the_moments_are_known() -> None:
    rule = KINDS["collapsed"][0]
    predicted = analysed(rule.failing, tiers=("expected",)).findings
    assert [(finding.rule, finding.grade) for finding in predicted] == [(rule, "predicted")]
    assert predicted[0].ratio == pytest.approx(by_rule(rule).findings[0].ratio, abs=0.3)


def test_what_is_left_of_two_parts() -> None:
    """1 and -0.98 leave 0.02 of sqrt(1 + 0.98^2)."""
    found = by_rule(KINDS["cancelling"][0]).findings[0]
    assert found.ratio == pytest.approx(math.log10(0.02 / math.hypot(1.0, 0.98)), abs=1e-4)


# presets


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_the_default_preset_is_right_on_four_nets(net: Any) -> None:
    assert verdict(net, "default").split()[0] == net.right


def test_other_presets_look_at_weights() -> None:
    """A rectifying net whose activations' gradients explode has balanced gradients of its weights, so that first against last
    does not see it; a threshold on the gradient as it is depends on the loss's scale."""
    exploding = NETS[2]
    said = {preset: verdict(exploding, preset).split()[0] for preset in PRESETS if preset != "default"}
    assert said == {"sagemaker": "exploding", "autotrainer": "healthy", "thedeepchecker": "exploding", "torchlens": "exploding"}
    text = KINDS["underflow"][0].failing.replace("1e-6", "1e-9")
    verdicts = {preset: analysed(text, preset=preset, tiers=("measured",)).verdict.kind for preset in ("default", "torchlens")}
    assert verdicts == {"default": "healthy", "torchlens": "vanishing"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "sagemakr"}, "--preset 'sagemakr': did you mean 'sagemaker'?"),
        ({"preset": "torchlens", "tiers": ("expected",)}, "--preset is about gradients as they are"),
        ({"learning_rate": 0.1, "tiers": ("expected",)}, "--learning-rate is about gradients as they are"),
        ({"learning_rate": -1.0}, "--learning-rate -1: a step takes a number above 0"),
        ({"dtype": "float8"}, "--dtype 'float8': it takes float32, float16, bfloat16"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        analysed(KINDS["blocked"][0].repaired, **options)
    assert str(caught.value).startswith(message)


# the command line


def test_findings_fit_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    for rule in RULES:
        document = to_json(by_rule(rule))
        validator.validate(document)
        assert {finding["code"] for finding in document["findings"]} == {rule.code}


@pytest.mark.parametrize("word", ["any", "VG801", "vg801", "certified-vanishing", "vanishing"])
def test_fail_on_takes_kinds_codes_and_names(run: Run, word: str) -> None:  # noqa: F811
    done = run("analyze", "deep.yaml", "--tiers", "sound", "--fail-on", word)
    assert done.code == 1
    assert "hidden/1/dense" in done.err
    assert run("analyze", "deep.yaml", "--tiers", "sound", "--fail-on", "VG804,blocked").code == 0


def test_a_baseline_lets_pass_what_is_known(run: Run, tmp_path: Path) -> None:  # noqa: F811
    command = ("analyze", "deep.yaml", "--tiers", "sound")
    assert run(*command, "--write-baseline", "known.json").code == 0
    known = json.loads((tmp_path / "known.json").read_text())
    assert known["findings"] == [f"VG801:hidden/{number}/dense" for number in (1, 2, 3)]
    (tmp_path / "deep.yaml").write_text("# lines move\n" + DEEP)
    passed = run(*command, "--baseline", "known.json", "--fail-on", "any")
    assert (passed.code, "3 findings are known" in passed.out) == (0, True)
    assert json.loads(run(*command, "--baseline", "known.json", "--format", "sarif").out)["runs"][0]["results"] == []
    (tmp_path / "known.json").write_text(json.dumps({"schema": 1, "findings": [known["findings"][0], "VG801:gone"]}))
    failed = run(*command, "--baseline", "known.json", "--fail-on", "any")
    assert failed.code == 1
    assert "deep.yaml: vanishing: hidden/2/dense, hidden/3/dense\n" in failed.err
    assert "note: 1 of 2 findings of known.json are mended" in failed.err
    for text in ("[]", "{"):
        (tmp_path / "known.json").write_text(text)
        assert run(*command, "--baseline", "known.json").code == 2
    assert run(*command, "--baseline", "absent.json").err.startswith("absent.json: no baseline to read")


def test_a_comment_takes_a_finding_back(run: Run, tmp_path: Path) -> None:  # noqa: F811
    layer = "- {kind: dense, units: 8, activation: sigmoid}"
    (tmp_path / "deep.yaml").write_text(DEEP.replace(layer, layer + "  # vgcompile: ignore VG801: it is meant to"))
    assert run("analyze", "deep.yaml", "--tiers", "sound", "--fail-on", "any").code == 0
    assert run("check", "deep.yaml", "--strict").code == 0  # nor does a check say that nothing is there to ignore


def test_the_summary_and_the_report_say_the_same(run: Run) -> None:  # noqa: F811
    """The worst of the copies in full, with its reasons; the depth budget; the rule's meaning in the report alone."""
    said = run("analyze", "deep.yaml", "--tiers", "expected").out
    assert "depth budget of deep (expected): " in said
    assert "VG802 predicted-vanishing: hidden/1/dense and 3 more (deep.yaml:10): 10^-" in said
    assert " since the last hidden layer (expected): weights -" in said
    assert "    help: an activation with a slope near 1" in said
    rule = KINDS["dead"][0]
    network = build(loads(rule.failing, "model.yaml"))
    analysis = analyze(network, Options(**rule.analysed))
    page = render(network, analysis, dumps(analysis))
    for words in ("VG808 dead</strong> (certified, error)", analysis.findings[0].message, analysis.findings[0].hint, "#line-4"):
        assert words in page


@pytest.mark.parametrize("form", ["sarif", "github"])
def test_findings_for_programs(run: Run, tmp_path: Path, form: str) -> None:  # noqa: F811
    """One result for the copies of a block, at their line, with a fingerprint that stays."""
    done = run("analyze", "deep.yaml", "--tiers", "sound", "--format", form)
    assert done.code == 0
    if form == "sarif":
        log = json.loads(done.out)
        jsonschema.Draft4Validator(SARIF).validate(log)
        (result,) = log["runs"][0]["results"]
        assert (result["ruleId"], result["level"]) == ("VG801", "warning")
        assert result["partialFingerprints"] == {"layer/v1": "VG801:hidden/1/dense"}
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == 10
    else:
        assert done.out.startswith(
            "::warning file=deep.yaml,line=10,col=9,title=VG801 certified-vanishing::hidden/1/dense: at most"
        )
        assert len(done.out.splitlines()) == 1
    (tmp_path / "bad.yaml").write_text("layers: [{kind: rleu}]\n")
    bad = run("analyze", "bad.yaml", "--format", form)
    assert (bad.code, "VG103" in bad.out) == (2, True)


# against the truth


def test_truth_is_undecided_near_a_threshold() -> None:
    near = truth.Outcome(0, models.model(0), (-9.0, 0.0), True, (-3.2, 0.1), -8.0)
    assert (near.said("vanishing"), near.true("vanishing", "gradients"), near.true("vanishing", "movement")) == (True, None, True)
    table = truth.table([near], "movement").splitlines()
    assert table[2] == "| vanishing | 1 | 0 | 1 | 0 | 0 | 1.000 | 1.000 |"


def test_random_models_are_models_and_a_net_is_trained() -> None:
    texts = {number: models.model(number) for number in range(40)}
    assert texts == {number: models.model(number) for number in texts}
    assert {drawn.family for drawn in texts.values()} == set(models.FAMILIES)
    for drawn in list(texts.values())[:6]:
        assert sum(build(loads(drawn.text, "net.yaml")).sizes().values()) <= 1_000_000
    shallow = min(texts, key=lambda number: (texts[number].family != "chain", len(loads(texts[number].text, "net.yaml").layers)))
    (outcome,) = truth.outcomes([shallow])
    assert outcome.predicted[0] == pytest.approx(outcome.measured[0], abs=1.0)
    assert math.isfinite(outcome.moved)
