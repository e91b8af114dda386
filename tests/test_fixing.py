"""Remedies: each edit on a text, what it must not touch, and that what is called healthy is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vgcompile.analysis import Options, analyze
from vgcompile.cli.app import app
from vgcompile.errors import SpecError
from vgcompile.fixing import edits
from vgcompile.fixing.advice import Advice, advice, edited, in_all_tiers
from vgcompile.fixing.remedies import remedies
from vgcompile.fixing.sheet import Sheet
from vgcompile.fixing.trial import Model, built, solved
from vgcompile.spec.layout import formatted

HEAD = "inputs:\n  x: {shape: [batch, 16], range: [-1, 1]}\n  y: {shape: [batch], type: int64, classes: 4}\n"
LOSS = "loss: {kind: cross_entropy, target: y}\n"

DEEP = f"""# a story, told above
name: deep
params: {{depth: 14}}
{HEAD}init: {{weight: lecun_normal, bias: zeros}}
layers:
  # of all hidden layers
  - kind: block
    name: hidden
    repeat: ${{depth}}
    layers:
      - {{kind: dense, units: 24, activation: sigmoid}}  # the culprit
  - {{kind: dense, name: logits, units: 4}}
{LOSS}"""

WRITTEN_OUT = f"""name: written_out
{HEAD}layers:
  - {{kind: dense, units: 32, activation: tanh}}
  - {{kind: dense, name: a, units: 24, activation: tanh}}
  - {{kind: dense, name: b, units: 24, activation: tanh}}
  - {{kind: dense, units: 24, activation: tanh}}
  - {{kind: dense, name: logits, units: 4, activation: tanh}}
{LOSS}"""

GATED = f"""name: gated
{HEAD}layers:
  - {{kind: dense, name: h, units: 16, activation: tanh}}
  - {{kind: dense, name: gate, from: x, units: 16, activation: sigmoid}}
  - {{kind: multiply, from: [h, gate]}}
  - {{kind: dense, name: logits, units: 4}}
{LOSS}"""


def changed(text: str, edit: edits.Edit) -> str:
    sheet = Sheet(formatted(text))
    assert edit(sheet)
    built(Model("changed.yaml", sheet.text))
    return sheet.text


def test_activations_change_where_they_are_hidden() -> None:
    text = changed(GATED, edits.activations("relu"))
    assert "name: h, units: 16, activation: relu" in text
    assert "activation: sigmoid" in text  # the gate's
    text = changed(WRITTEN_OUT, edits.activations("relu"))
    assert text.count("activation: relu") == 4
    assert "name: logits, units: 4, activation: tanh" in text  # it leaves the net


def test_initial_values_are_stated_once_and_own_ones_follow() -> None:
    own = DEEP.replace("activation: sigmoid}", "activation: sigmoid, init: {weight: ones}}")
    text = changed(own, edits.weights("he_normal"))
    assert "init: {weight: he_normal, bias: zeros}" in text
    assert "init: {weight: he_normal}" in text
    kept = DEEP.replace("activation: sigmoid}", "activation: sigmoid, init: {weight: zeros}}")
    assert "init: {weight: zeros}" in changed(kept, edits.weights("he_normal"))


def test_a_block_becomes_a_residual_whose_first_copy_may_stay() -> None:
    with pytest.raises(SpecError):
        changed(DEEP, edits.residual(behind_first=False))  # 16 features go in, 24 come out
    text = changed(DEEP, edits.residual(behind_first=True, scale=edits.PER_DEPTH))
    assert "kind: block\n    name: hidden_first" in text
    assert 'repeat: "${depth - 1}"' in text.replace("repeat: ${depth - 1}", 'repeat: "${depth - 1}"')
    assert "depth ** -0.5" in text
    network = built(Model("changed.yaml", text))
    assert sum("/sum" in (node.name or "") for node in network.model.graph) >= 13


def test_layers_that_are_written_out_get_a_way_around_each() -> None:
    text = changed(WRITTEN_OUT, edits.residual(behind_first=True))
    assert text.count("kind: residual") == 2
    assert "kind: residual, name: b" in text.replace("\n    ", ", ").replace("- kind", "kind")


def test_a_norm_stands_between_weight_and_function_and_the_name_stays() -> None:
    text = changed(DEEP, edits.normalized("batch_norm"))
    assert "{kind: dense, units: 24, bias: false}  # the culprit" in text
    assert "{kind: batch_norm, activation: sigmoid}" in text
    assert text.count("batch_norm") == 1  # not behind the logits
    named = (
        GATED.replace("activation: sigmoid}", "activation: sigmoid}")
        .replace("from: [h, gate]", "from: [h, x]")
        .replace("  - {kind: dense, name: gate, from: x, units: 16, activation: sigmoid}\n", "")
    )
    text = changed(named, edits.normalized("layer_norm"))
    assert "kind: block" in text or "layer_norm" not in text  # a gate is left alone, another keeps its name


def test_fields_that_read_a_parameter_are_changed_there() -> None:
    text = changed(DEEP, edits.depth(3))
    assert "params: {depth: 3}" in text and "repeat: ${depth}" in text


def test_a_recurrence_may_be_read_at_every_step() -> None:
    head = HEAD.replace("[batch, 16]", "[batch, 12, 16]")
    memory = (
        f"{head}layers:\n  - {{kind: rnn, name: memory, units: 8, output: last}}\n  - {{kind: dense, name: logits, units: 4}}\n"
    )
    assert "{kind: rnn, name: memory, units: 8}\n  - {kind: time_pool}" in changed(memory + LOSS, edits.every_step)
    text = changed(memory.replace("name: logits,", "name: logits, from: memory,") + LOSS, edits.every_step)
    assert "name: memory" in text and "kind: block" in text


@pytest.mark.parametrize("text", [DEEP, WRITTEN_OUT, GATED], ids=["deep", "written_out", "gated"])
def test_every_remedy_keeps_comments_and_layout(text: str) -> None:
    said = re.findall(r"#.*", text)
    for remedy in remedies(Sheet(text)):
        for form in remedy.forms:
            made = edited(text, form)
            if made is not None:
                assert formatted(made) == made, remedy.name
                assert {*re.findall(r"#.*", made)} == {*said}, remedy.name  # of a copy, twice


@pytest.fixture(scope="module")
def found() -> Advice:
    return advice(Model("deep.yaml", DEEP), Options(batch=32))


def test_what_is_called_healthy_is_measured_so(found: Advice) -> None:
    assert found.start.kind == "vanishing"
    assert found.helpful and {trial.name for trial in found.others} >= {"glorot_normal"}
    for trial in found.helpful[:4]:
        measured = analyze(trial.network, Options(batch=32, tiers=("measured",)))
        assert measured.verdict.kind == "healthy", trial.name
    (_, before), *after = in_all_tiers(found, Options(batch=32))
    assert before.verdict.kind == "vanishing"
    assert len(after) == 3 and all(analysis.verdict.kind == "healthy" for _, analysis in after)


def test_a_solved_gain_meets_the_closed_form() -> None:
    """Linear layers multiply the gradient by the gain each: it is 1 there."""
    text = DEEP.replace(", activation: sigmoid", "").replace("weight: lecun_normal", "weight: {kind: lecun_normal, gain: 3.0}")
    found = advice(Model("linear.yaml", text), Options(batch=32))
    trial = next(trial for trial in found.helpful if trial.name.startswith("gain of the initial"))
    gain = float(re.search(r"gain: ([0-9.]+)", trial.text)[1])  # type: ignore[index]
    assert gain == pytest.approx(1.0, rel=0.02)


def test_the_search_finds_a_crossing_and_else_the_nearest() -> None:
    assert solved(0.1, 10.0, lambda x: 5.0 * (x - 2.0)) == pytest.approx(2.0, abs=0.02)
    assert solved(0.1, 10.0, lambda x: 1.0 + x) == pytest.approx(0.1)
    assert solved(0.1, 10.0, lambda x: None) is None


def test_the_command_lists_and_writes(found: Advice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, fixed = tmp_path / "deep.yaml", tmp_path / "fixed.yaml"
    model.write_text(DEEP)
    monkeypatch.setattr("vgcompile.fixing.advice.advice", lambda *given: found)  # asked for above
    runner = CliRunner()
    listed = runner.invoke(app, ["fix", str(model), "--json"])
    assert listed.exit_code == 0, listed.output
    changes = json.loads(listed.stdout)["changes"]
    assert changes[0]["verdict"] == "healthy" and [change["number"] for change in changes] == list(range(1, len(changes) + 1))
    told = runner.invoke(app, ["fix", str(model)]).stdout
    assert "does not help:" in told and "--apply 1" in told
    written = runner.invoke(app, ["fix", str(model), "--apply", "1", "-o", str(fixed)])
    assert written.exit_code == 0, written.output
    text = fixed.read_text()
    assert "# a story, told above" in text and "# the culprit" in text
    assert analyze(built(Model(str(fixed), text)), Options(batch=32)).verdict.kind == "healthy"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.onnx"], "fix edits YAML"),
        (["deep.yaml", "--apply", "1"], "go together"),
        (["deep.yaml", "--apply", "99", "-o", "x.yaml", "--batch", "8"], "changes were tried"),
        (["absent.yaml"], "cannot be read"),
    ],
)
def test_refusals(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep.yaml").write_text(DEEP.replace("depth: 14", "depth: 2"))
    result = CliRunner().invoke(app, ["fix", *arguments])
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output
    assert not (tmp_path / "x.yaml").exists()
