"""The gradient over the steps of a recurrence: its profile against PyTorch's, and the verdict that rests on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import vgcompile
from vgcompile.analysis import Analysis, Options
from vgcompile.passes.check import check
from vgcompile.passes.gradient import gradient
from vgcompile.render.butterfly import butterfly_dot
from vgcompile.render.pictures import views_of
from vgcompile.render.step_chart import step_chart
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session

TEXT = """inputs: {{x: {{shape: [batch, 30, 4], distribution: normal}}, t: {{shape: [batch, 2], range: [0, 1]}}}}
layers:
  - {{kind: {kind}, name: memory, units: 16, output: {output}}}
  - {{kind: {head}, name: out, units: 2}}
loss: {{kind: mse, target: t}}
"""


def analysed(folder: Path, kind: str, output: str = "last") -> tuple[vgcompile.Network, Analysis]:
    path = folder / "recurrent.yaml"
    text = TEXT.format(kind=kind, output=output, head="dense")
    path.write_text(text if output == "last" else text.replace("  - {kind: dense", "  - {kind: time_pool}\n  - {kind: dense"))
    network = vgcompile.open_network(path)
    return network, vgcompile.analyze(network, Options(batch=8, tiers=("expected", "measured")))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_the_profile_is_the_gradient_by_the_input_step_by_step(kind: str, tmp_path: Path) -> None:
    network, analysis = analysed(tmp_path, kind)
    (edge,) = [edge for edge in analysis.edges if edge.steps]
    feeds = batch(network, size=8, seed=network.seed)
    session = Session(check(gradient(network, ["x"])))
    slopes = session.run(["grad.x"], {name: feeds[name] for name in session.required})["grad.x"]
    norms = np.linalg.norm(slopes.astype(np.float64), axis=(0, 2))
    measured = np.array([step.measured for step in edge.steps], float)
    np.testing.assert_allclose(measured - measured[-1], np.log10(norms / norms[-1]), atol=1e-4)
    whole = edge.gain.measured
    assert whole is not None
    assert np.log10(np.sum(100.0**measured)) / 2 == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_each_step_is_predicted(kind: str, tmp_path: Path) -> None:
    _, analysis = analysed(tmp_path, kind)
    (edge,) = [edge for edge in analysis.edges if edge.steps]
    rates = [
        np.polyfit(range(20), list(values[-20:]), 1)[0]
        for values in ([s.measured for s in edge.steps], [s.expected.mean for s in edge.steps])
    ]
    assert rates[0] == pytest.approx(rates[1], rel=0.25)


def test_the_oldest_story_is_told(tmp_path: Path) -> None:
    _, analysis = analysed(tmp_path, "rnn")
    assert analysis.verdict.kind == "vanishing" and analysis.verdict.over == "steps"
    assert [finding.rule.code for finding in analysis.findings if finding.layer == "memory"] == ["VG814"]


def test_a_loss_that_reads_every_step_does_not_vanish(tmp_path: Path) -> None:
    _, analysis = analysed(tmp_path, "rnn", output="sequence")
    assert analysis.verdict.kind == "healthy"


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_first_step_is_the_first_that_is_read(direction: str, tmp_path: Path) -> None:
    """Of a file that is read from its end, the gradient vanishes toward the end."""
    rng, path = np.random.default_rng(0), tmp_path / "rnn.onnx"
    matrices = [onnx.numpy_helper.from_array(rng.normal(0, 0.12, (1, 16, n)).astype(np.float32), f"m{n}") for n in (4, 16)]
    nodes = [
        helper.make_node("RNN", ["x", "m4", "m16"], ["", "state"], hidden_size=16, direction=direction),
        helper.make_node("ReduceMean", ["state"], ["loss"], keepdims=0),
    ]
    x, loss = (helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [30, "batch", 4]), ("loss", [])))
    onnx.save(helper.make_model(helper.make_graph(nodes, "rnn", [x], [loss], matrices)), path)
    network = vgcompile.open_network(path, loss="loss")
    for tier in ("expected", "measured"):
        verdict = vgcompile.analyze(network, Options(tiers=(tier,))).verdict
        assert (verdict.kind, verdict.over) == ("vanishing", "steps")


def test_the_pictures_show_what_the_verdict_over_steps_rests_on(tmp_path: Path) -> None:
    """The box of a recurrence that forgets is no healthy one, and a chart has a point for every step."""
    network, analysis = analysed(tmp_path, "rnn")
    layer = next(layer for layer in analysis.layers if layer.name == "memory")
    assert analysis.verdict.over == "steps" and layer.through_time is not None and layer.through_time.measured is not None
    dot = butterfly_dot(network, analysis)
    assert f"M {layer.through_time.measured:.1f}" in next(line for line in dot.splitlines() if "first step against last" in line)
    assert "steps" in views_of(analysis) and "activations" not in views_of(analysis)
    text = step_chart(analysis).decode()
    assert f"memory: first step 10^{layer.through_time.measured:.1f}" in text
    assert step_chart(analysis) == step_chart(analysis)


def test_a_network_without_a_recurrence_has_no_chart_of_steps() -> None:
    analysis = vgcompile.analyze("models/lenet5.yaml", Options(batch=2, tiers=("expected",)))
    assert "steps" not in views_of(analysis)
    assert b"No recurrence" in step_chart(analysis)
