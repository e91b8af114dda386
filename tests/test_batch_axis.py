"""Files that put time in front, as PyTorch's nn.LSTM does unless it is told otherwise: samples are counted along another axis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import vgcompile
from vgcompile.analysis import Options
from vgcompile.cli import main
from vgcompile.errors import DataError, ModelError
from vgcompile.graph.load import load
from vgcompile.runtime.data import batch

STEPS, FEATURES, UNITS, CLASSES = 12, 8, 64, 5
Dim = int | str


def weights(time_first: bool) -> list[onnx.TensorProto]:
    rng, size = np.random.default_rng(0), UNITS**-0.5
    gates = {"W": (1, 4 * UNITS, FEATURES), "R": (1, 4 * UNITS, UNITS), "B": (1, 8 * UNITS)}
    drawn = {**gates, "V": (CLASSES, UNITS), "c": (CLASSES,)}
    arrays = {name: rng.uniform(-size, size, shape).astype(np.float32) for name, shape in drawn.items()}
    arrays["last"] = np.array(-1 if time_first else STEPS - 1)
    arrays["directions"] = np.array([1])
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def lstm(
    x: tuple[Dim, ...], *, time_first: bool = True, state: tuple[Dim, ...] | None = None, mean: bool = False
) -> onnx.ModelProto:
    """What torch.onnx.export writes of an nn.LSTM, its last step (or the mean over all) and a Linear; with a loss."""
    states = ["h0", "c0"] if state else ["", ""]
    head = "x" if time_first else "turned"
    over_time = helper.make_node("ReduceMean", ["y", "time"], ["s"], keepdims=0)
    at_the_end = helper.make_node("Gather", ["y", "last"], ["s"], axis=0)
    nodes = [
        *([] if time_first else [helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2])]),
        helper.make_node("LSTM", [head, "W", "R", "B", "", *states], ["Y"], hidden_size=UNITS),
        helper.make_node("Squeeze", ["Y", "directions"], ["y"]),
        over_time if mean else at_the_end,
        helper.make_node("Gemm", ["s", "V", "c"], ["logits"], transB=1),
        helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "t"], ["loss"]),
    ]
    samples = x[1 if time_first else 0]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, x),
        helper.make_tensor_value_info("t", TensorProto.INT64, [samples]),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in states if name and state),
    ]
    held = [*weights(time_first), numpy_helper.from_array(np.array([0]), "time")]
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "lstm", inputs, [loss], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("x", "axis"),
    [((STEPS, "N", FEATURES), 1), ((STEPS, 6, FEATURES), 1), ((STEPS, "whatever", FEATURES), 1), (("N", STEPS, FEATURES), 0)],
    ids=str,
)
def test_the_operator_says_which_axis_counts_samples(x: tuple[Dim, ...], axis: int) -> None:
    network = load(lstm(x, time_first=axis == 1))
    assert network.inputs["x"].batch_axis == axis
    assert network.inputs["t"].batch_axis == 0
    told = [note for note in network.notes if "counts the samples" in note]
    assert len(told) == axis
    assert all("axis 1 of 'x'" in note and "LSTM reads it so" in note for note in told)


def test_initial_states_are_read_so_too() -> None:
    network = load(lstm((STEPS, "N", FEATURES), state=(1, "N", UNITS)))
    assert {name: each.batch_axis for name, each in network.inputs.items()} == {"x": 1, "t": 0, "h0": 1, "c0": 1}
    assert batch(network, size=3)["h0"].shape == (1, 3, UNITS)


def test_a_name_says_so_where_no_operator_does() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0)]
    w = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch_size", 4])
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    model = helper.make_model(
        helper.make_graph(nodes, "named", [x], [loss], [w]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    assert load(model).inputs["x"].batch_axis == 1
    assert load(model, batch_axes=0).inputs["x"].batch_axis == 0
    with pytest.raises(ModelError, match=r"--batch-axis y=1: no such input; its inputs are x"):
        load(model, batch_axes={"y": 1})
    with pytest.raises(ModelError, match=r"--batch-axis x=3: the axes of 'x' are 0 to 2"):
        load(model, batch_axes={"x": 3})


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("x", [(STEPS, "N", FEATURES), (STEPS, 64, FEATURES)], ids=str)
def test_both_orders_are_analysed_alike(x: tuple[Dim, ...], mean: bool, tmp_path: Path) -> None:
    """The same model and the same data with samples in front: each number is the same, whichever tier's."""
    rng = np.random.default_rng(1)
    data = {"x": rng.normal(size=(STEPS, 64, FEATURES)).astype(np.float32), "t": rng.integers(0, CLASSES, 64)}
    np.savez(tmp_path / "time_first.npz", **data)
    np.savez(tmp_path / "samples_first.npz", **{**data, "x": data["x"].swapaxes(0, 1)})
    turned = ("N", STEPS, FEATURES)
    ours = vgcompile.analyze(load(lstm(x, mean=mean)), Options(data=str(tmp_path / "time_first.npz")))
    theirs = vgcompile.analyze(load(lstm(turned, time_first=False, mean=mean)), Options(data=str(tmp_path / "samples_first.npz")))
    assert ours.provenance["batch"] == theirs.provenance["batch"] == 64
    assert ours.provenance["batch_axis"] == {"x": 1}
    assert not ours.self_check.violations
    others: dict[str, Any] = {edge.value + str(edge.id).rsplit("#", 1)[-1]: edge.gain for edge in theirs.edges}
    for edge in ours.edges:
        if edge.value == "x":
            continue
        other = others[edge.value + str(edge.id).rsplit("#", 1)[-1]]
        assert edge.gain.measured == pytest.approx(other.measured, abs=1e-5), edge.id
        assert edge.gain.expected.mean == pytest.approx(other.expected.mean, abs=1e-9), edge.id
        assert edge.gain.sound.hi is None or edge.gain.sound.hi >= other.sound.hi - 1e-6, edge.id
        assert x[1] != "N" or edge.gain.sound.hi == pytest.approx(other.sound.hi, abs=1e-6), edge.id
    memory = next(edge for edge in ours.edges if edge.value == "x")
    assert memory.gain.measured is not None and memory.gain.expected.mean is not None
    assert memory.gain.measured == pytest.approx(memory.gain.expected.mean, abs=0.15)


def test_the_command_takes_a_batch_and_tells_the_axis(tmp_path: Path, capsys: Any) -> None:
    onnx.save(lstm((STEPS, "N", FEATURES)), tmp_path / "lstm.onnx")
    assert main(["analyze", str(tmp_path / "lstm.onnx"), "--batch", "7", "--tiers", "measured", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["provenance"]["batch"] == 7
    assert "axis 1 of 'x' counts the samples" in shown.err
    with pytest.raises(DataError, match="fixed at 6 samples; --batch 7 does not fit"):
        vgcompile.analyze(load(lstm((STEPS, 6, FEATURES))), Options(batch=7))
    assert main(["analyze", str(tmp_path / "lstm.onnx"), "--batch-axis", "first"]) == 2
    assert "--batch-axis first: one number for all inputs" in capsys.readouterr().err
