"""The expected tier on whole nets: doubts, steps of a recurrence, and predictions beside a few measured initializations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import vgcompile
from benchmarks.expected.cases import CRITICAL, dense, normalized, recurrent, residual, transformer
from benchmarks.expected.measuring import Sample, opened, sample
from benchmarks.expected.stepping import steps
from vgcompile.analysis.expected import CANCELS, ExpectedTier, expected
from vgcompile.analysis.forward import Forward
from vgcompile.analysis.uses import uses
from vgcompile.graph.network import Network
from vgcompile.signal import Signal

SMALL = "name: n\ninputs:\n  x: {shape: [batch, 4]}\nlayers:\n  - {kind: dense, units: 4, activation: tanh}\n"


def predicted(text: str, batch: int = 8) -> tuple[Network, ExpectedTier]:
    network = opened(text)
    signals = {name: Signal(0.0, 1.0, 0.0, 0.0, 1.0 / 256.0) for name in network.inputs if name != "label"}
    return network, expected(network, batch, signals)


def doubts(text: str) -> set[str]:
    network, tier = predicted(text)
    return {tier.gain[use.node, use.position].reason for use in uses(network) if use.source == "x"}


def test_an_unstable_length_map_is_told() -> None:
    """GELU at sigma_w^2 = 2 is off by a factor of 4.7 over 20 layers of 256: no number to be sure of."""
    (doubt,) = doubts(dense("gelu", 20, "gelu", 2.0))
    assert "the length map is unstable" in doubt


@pytest.mark.parametrize(
    "text",
    [
        dense("sigmoid", 20, "sigmoid", 1.0),
        dense("tanh", 50, "tanh", 1.760955, CRITICAL),
        dense("relu", 50, "relu", 2.0),
        dense("selu", 50, "selu", 1.0),
        residual("residual", 20, "tanh", 1.0),
        transformer("post", "post", 2),
        recurrent("gru", "gru", 50, 1.0),
    ],
    ids=["sigmoid", "tanh", "relu", "selu", "residual", "post", "gru"],
)
def test_a_stable_one_is_not_doubted(text: str) -> None:
    assert doubts(text) == {""}


def test_more_steps_than_a_fifth_of_the_width_are_told() -> None:
    (doubt,) = doubts(recurrent("long", "rnn", 60, 1.0))
    assert doubt == "60 steps of 256 units: beyond a fifth of the width the same weights are met too often"


def test_a_normalization_forgets_a_fluctuation() -> None:
    """What has grown before it is divided out."""
    assert doubts(normalized("normalized", 8, "gelu")) == {""}


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_steps_of_a_recurrence(kind: str) -> None:
    """The gradient by the input of each step, against the gradient file's."""
    found = steps(recurrent(kind, kind, 12, 1.0), batch=8, seeds=4)
    assert found.per_step < 0.05 and found.total == pytest.approx(1.0, abs=0.25)


def test_steps_add_up_to_the_edge() -> None:
    _, tier = predicted(recurrent("rnn", "rnn", 12, 1.0))
    ((use, profile),) = tier.steps.items()
    gain = tier.gain[use]
    assert gain.mean is not None and gain.sd is not None
    total = 0.5 * math.log10(sum(100.0**log for log in profile))
    correction = (gain.sd**2) * math.log(10.0)  # the mean of the log lies below the log of the mean
    assert gain.mean == pytest.approx(total - correction, abs=1e-6)


def worst(found: Sample) -> tuple[float, float]:
    """Median error of a factor, and |log10| of the largest error of a gain."""
    errors = [found.local_error(use) for use in found.activations]
    gains = [(found.tier.gain[use.node, use.position].mean or 0.0) - found.parts[use.id].mean() for use in found.activations]
    return float(np.median(errors)), float(np.abs(gains).max())


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_transformer(norm: str) -> None:
    """Queries, keys, values and both branches of two blocks."""
    median, gain = worst(sample(transformer("transformer", norm, 2), batch=4, seeds=2))
    assert median < 0.02 and gain < 0.06


def test_scores_are_blind_to_a_bias_of_the_keys() -> None:
    """It moves all of a query's scores alike: its gradient is 0, and the reason is given."""
    network, tier = predicted(transformer("transformer", "pre", 1))
    reasons = {use.value.name: tier.gain[use.node, use.position].reason for use in uses(network) if use.role == "parameter"}
    assert {name for name, reason in reasons.items() if reason == CANCELS} == {"block/1/attention/attention/key/bias"}


def test_what_is_not_predicted_says_why(tmp_path: Path) -> None:
    """An adjoint that meets an operator without moments is lost with that operator's reason, all the way to the input."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("CumSum", ["z", "axis"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 8]) for name in "xy")
    axis = numpy_helper.from_array(np.array(1), "axis")
    graph = helper.make_graph(nodes, "sums", [x], [y], [weights, axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "sums.onnx")
    network = vgcompile.open_network(tmp_path / "sums.onnx")
    tier = expected(network, 8, {"x": Signal(0.0, 1.0, 0.0, 0.0)})
    (reason,) = {tier.gain[use.node, use.position].reason for use in uses(network) if use.source == "x"}
    assert "positions are taken to be alike" in reason


def test_an_output_whose_adjoint_is_unknown_says_why(tmp_path: Path) -> None:
    """What other gains are held against is the adjoint of all outputs; here one is made of another, by an operator without
    moments."""
    text = """<ir_version: 10, opset_import: ["" : 21]> m (float[N, 4] x) => (float[N, 4] h, float[N, 4] y, float loss)
        <float[4, 4] w = {1, 0, 0, 1, 0, 2, 3, 0, 1, 1, -1, 1, 1, 2, 3, 4}, int64 axis = {1}>
        { h = MatMul(x, w)  y = CumSum(h, axis)  loss = ReduceMean<keepdims = 0>(y) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "sums.onnx")
    network = vgcompile.open_network(tmp_path / "sums.onnx")
    assert network.outputs == ("h", "y")
    tier = expected(network, 8, {"x": Signal(0.0, 1.0, 0.0, 0.0)})
    assert {"positions are taken to be alike" in gain.reason for gain in tier.gain.values()} == {True}
    assert {gain.mean for gain in (*tier.gain.values(), *tier.total.values())} == {None}


def test_moments_that_cancel_below_zero_are_no_prediction() -> None:
    """As those of the mean over positions of what a batch norm gives out may, at a small batch: nothing is said of it."""
    network, _ = predicted(SMALL)
    value = next(iter(network.model.graph)).outputs[0]
    forward = Forward(network, 5)
    forward._found(value, Signal(0.0, -0.015, -0.031, -0.031))
    assert value not in forward.signals and value not in forward.readings
