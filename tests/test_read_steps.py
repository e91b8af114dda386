"""Which steps of a sequence are read decides which of them a gradient reaches: one at the end is not a mean over all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vgcompile
from vgcompile.analysis import Analysis, Options
from vgcompile.analysis.result import Edge

TEXT = """name: net
inputs: {{x: {{shape: [batch, {steps}, 12], distribution: normal}}, t: {{shape: [batch], type: int64, classes: 10}}}}
layers:
  - {{kind: block, name: hidden, repeat: {stacked}, layers: [{{kind: {kind}, units: 96{extra}}}]}}
  - {read}
  - {{kind: dense, name: logits, units: 10}}
loss: {{kind: cross_entropy, target: t}}
"""
LAST = "{kind: select, index: -1}"


def analysed(folder: Path, kind: str, read: str, steps: int = 20, stacked: int = 1, extra: str = "") -> Analysis:
    path = folder / "net.yaml"
    path.write_text(TEXT.format(kind=kind, read=read, steps=steps, stacked=stacked, extra=extra))
    options = Options(batch=32, tiers=("expected", "measured"), seeds=4, paths=False)
    return vgcompile.analyze(vgcompile.open_network(path), options)


def logs(edge: Edge) -> tuple[np.ndarray, np.ndarray]:
    """log10 at each step, predicted and measured."""
    predicted = np.array([step.expected.mean if step.expected.mean is not None else -np.inf for step in edge.steps], float)
    return predicted, np.array([step.measured for step in edge.steps], float)


def recurrences(analysis: Analysis) -> list[Edge]:
    return [edge for edge in analysis.edges if edge.steps]


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("stacked", [1, 2])
def test_the_last_step_that_is_selected_is_the_last_state(kind: str, stacked: int, tmp_path: Path) -> None:
    """Both ends of the profile, in every layer of a stack, are predicted to within the finite width."""
    found = analysed(tmp_path, kind, LAST, stacked=stacked)
    assert len(recurrences(found)) == stacked
    for edge in recurrences(found):
        predicted, measured = logs(edge)
        assert predicted[-1] == pytest.approx(measured[-1], abs=0.12)
        assert predicted[0] == pytest.approx(measured[0], abs=0.1 * abs(measured[0]) + 0.2)


@pytest.mark.parametrize("index", [0, 7, -3])
def test_steps_behind_the_one_that_is_read_get_nothing(index: int, tmp_path: Path) -> None:
    found = analysed(tmp_path, "rnn", f"{{kind: select, index: {index}}}")
    (edge,) = recurrences(found)
    predicted, _ = logs(edge)
    place = index % 20
    assert np.isneginf(predicted[place + 1 :]).all()
    measured = edge.steps[place].measured
    assert measured is not None
    assert predicted[place] == pytest.approx(measured, abs=0.1)


def test_a_slice_is_read_so_too(tmp_path: Path) -> None:
    found = analysed(tmp_path, "gru", "{kind: slice, axis: 1, start: 15}\n  - {kind: time_pool}")
    (edge,) = recurrences(found)
    predicted, measured = logs(edge)
    np.testing.assert_allclose(predicted[8:], measured[8:], atol=0.15)


def test_an_elman_net_whose_last_step_is_selected_vanishes_over_its_steps(tmp_path: Path) -> None:
    found = analysed(tmp_path, "rnn", LAST, steps=30)
    alone = vgcompile.analyze(vgcompile.open_network(tmp_path / "net.yaml"), Options(batch=32, tiers=("expected",)))
    assert (found.verdict.kind, alone.verdict.kind) == ("vanishing", "vanishing")
    assert alone.verdict.over == "steps"
