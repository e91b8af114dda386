"""Recurrent operators beyond the laws of the table: against PyTorch, ONNX's own cases, and what ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.backend.test.case import node
from onnx.backend.test.case.node import gru, lstm, rnn

from tests.oracle_recurrent import ACTIVATIONS
from tests.reference import evaluator
from vgcompile.errors import GradientRefused
from vgcompile.graph.emit import Emitter
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
INPUTS = ("X", "W", "R", "B", "lengths", "h", "c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")


def model(
    name: str,
    shapes: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    dtype: int = TensorProto.DOUBLE,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node; inputs that ``shapes`` does not name are absent."""
    names = [key if key in shapes else "" for key in INPUTS]
    while not names[-1]:
        names.pop()
    types = {key: TensorProto.INT32 if key == "lengths" else dtype for key in shapes}
    made_node = helper.make_node(name, names, outputs, name=name, **attributes)
    values = [helper.make_tensor_value_info(key, types[key], shape) for key, shape in shapes.items()]
    made = [helper.make_tensor_value_info(key, dtype, None) for key in outputs if key]
    graph = helper.make_graph([made_node], name, values, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def gradient(proto: onnx.ModelProto, mark: str = "d") -> onnx.ModelProto:
    """Adjoints d.<input> of the real inputs, given those of the outputs, g.<output>."""
    made = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    graph, emitter = made.graph, Emitter(made.graph, made.opset_imports[""])
    wanted = [x for x in graph.inputs if x.dtype is not None and x.dtype.is_floating_point()]
    seeds = {y: ir.Value(name=f"g.{y.name}", shape=y.shape, type=y.type) for y in graph.outputs}
    graph.inputs.extend(seeds.values())
    totals = differentiate(made, seeds, wanted, emitter).totals
    for x in wanted:
        adjoint = emitter.Identity(totals[x])
        adjoint.name = f"{mark}.{x.name}"
        graph.outputs.append(adjoint)
    return ir.to_proto(optimize(lower(made)))


def run(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> Arrays:
    found = evaluator(proto.SerializeToString()).run(None, dict(feeds))
    return dict(zip((y.name for y in proto.graph.output), found, strict=True))


def run_in_onnx_runtime(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in feeds.items()}
    return dict(zip((y.name for y in proto.graph.output), session.run(None, given), strict=True))


def case(
    name: str,
    *,
    steps: int = 4,
    batch: int = 3,
    inputs: int = 2,
    hidden: int = 3,
    leave_out: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
    outputs: Sequence[str] = OUTPUTS,
    symbols: bool = False,
    dtype: int = TensorProto.DOUBLE,
    **attributes: Any,
) -> tuple[onnx.ModelProto, Arrays]:
    """A node with every input that it may have but those left out, and draws for them."""
    directions, rng = 2 if attributes.get("direction") == "bidirectional" else 1, np.random.default_rng(steps + batch)
    rows = GATES[name] * hidden
    t, n = ("T", "N") if symbols else (steps, batch)
    shapes: dict[str, tuple[int | str, ...]] = {
        "X": (t, n, inputs),
        "W": (directions, rows, inputs),
        "R": (directions, rows, hidden),
        "B": (directions, 2 * rows),
        "lengths": (n,),
        "h": (directions, n, hidden),
        "c": (directions, n, hidden),
        "P": (directions, 3 * hidden),
    }
    absent = {*leave_out, *(() if lengths is not None else ("lengths",)), *(() if name == "LSTM" else ("c", "P"))}
    shapes = {key: shape for key, shape in shapes.items() if key not in absent}
    extents = {"T": steps, "N": batch}
    feeds = {key: rng.normal(size=[extents.get(str(dim), dim) for dim in shape]) for key, shape in shapes.items()}
    if lengths is not None:
        feeds["lengths"] = np.array(lengths, np.int32)
    found = outputs[: 3 if name == "LSTM" else 2]
    return model(name, shapes, found, dtype, hidden_size=hidden, **attributes), feeds


def seeded(proto: onnx.ModelProto, feeds: Arrays) -> Arrays:
    rng = np.random.default_rng(7)
    return {f"g.{key}": rng.normal(size=value.shape) for key, value in run(proto, feeds).items()}


def agrees_with_differences(proto: onnx.ModelProto, feeds: Arrays, mark: str = "d") -> None:
    """<v, J^T g> = d <g, f(x + t v)> / dt in float64."""
    compiled, seeds = gradient(proto, mark), seeded(proto, feeds)
    rng = np.random.default_rng(11)
    along = {key: rng.normal(size=value.shape) for key, value in feeds.items() if value.dtype.kind == "f"}

    def value(t: float) -> float:
        moved = run(proto, {**feeds, **{key: feeds[key] + t * v for key, v in along.items()}})
        return sum(float(np.vdot(seeds[f"g.{key}"], y)) for key, y in moved.items())

    found = run(compiled, {**feeds, **seeds})
    total = sum(float(np.vdot(v, found[f"{mark}.{key}"])) for key, v in along.items())
    scale = sum(float(np.abs(v * found[f"{mark}.{key}"]).sum()) for key, v in along.items())
    assert total == pytest.approx((value(1e-6) - value(-1e-6)) / 2e-6, abs=1e-7 * max(scale, 1.0))


# --------------------------------------------------------------------------------------------------- the oracle, the runtime

DIRECTIONS = ("forward", "reverse", "bidirectional")
FORWARDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"direction": direction}) for name in GATES for direction in DIRECTIONS),
    *((name, {"direction": direction, "lengths": [3, 0, 1]}) for name in GATES for direction in DIRECTIONS),
    *((name, {"clip": 0.5, "lengths": [4, 2, 1], "direction": "bidirectional"}) for name in GATES),
    *(("GRU", {"linear_before_reset": 1, "clip": clip, "leave_out": out}) for clip in (0.5, 9.0) for out in ((), ("B", "h"))),
    *(("LSTM", {"input_forget": 1, "clip": clip, "leave_out": out}) for clip in (0.5, 9.0) for out in ((), ("P",))),
    (
        "LSTM",
        {
            "direction": "bidirectional",
            "activations": ["HardSigmoid", "LeakyRelu", "Tanh", "Sigmoid", "Elu", "ScaledTanh"],
            "activation_alpha": [0.3, 0.4, 0.5, 0.6],
            "activation_beta": [0.1, 0.7],
        },
    ),
    *(
        ("RNN", {"activations": [name], "activation_alpha": [0.7], "activation_beta": [0.2]})
        for name in ACTIVATIONS
        if name not in ("Tanh", "Sigmoid")
    ),
]


@pytest.mark.parametrize(("name", "options"), FORWARDS, ids=str)
def test_oracle_does_what_onnx_runtime_does(name: str, options: dict[str, Any]) -> None:
    proto, feeds = case(name, dtype=TensorProto.FLOAT, **options)
    expected = run(proto, feeds)
    for key, found in run_in_onnx_runtime(proto, feeds).items():
        np.testing.assert_allclose(found, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)


# ------------------------------------------------------------------------------------------------------------------ gradients

ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}  # where PyTorch keeps the standard's gates


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, [4, 2, 1]], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", GATES)
def test_gradient_is_pytorchs(name: str, lengths: Sequence[int] | None, direction: str) -> None:
    """In float64, initial states and packed sequences included."""
    reset: dict[str, Any] = {"linear_before_reset": 1} if name == "GRU" else {}
    proto, feeds = case(name, leave_out=("P",), lengths=lengths, direction=direction, symbols=True, **reset)
    seeds = seeded(proto, feeds)
    found = run(gradient(proto), {**feeds, **seeds})
    x = {key: torch.tensor(value, requires_grad=True) for key, value in feeds.items() if value.dtype.kind == "f"}
    layer = getattr(torch.nn, name)(2, 3, bidirectional=direction == "bidirectional", dtype=torch.float64)
    weights = {}
    for d in range(x["W"].shape[0]):
        b = x["B"][d].reshape(2, -1)
        for key, value in (("weight_ih", x["W"][d]), ("weight_hh", x["R"][d]), ("bias_ih", b[0]), ("bias_hh", b[1])):
            gates = value.chunk(GATES[name])
            weights[f"{key}_l0" + "_reverse" * d] = torch.cat([gates[gate] for gate in ORDER[name]])
    given: Any = x["X"] if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x["X"], torch.tensor(lengths))
    y, states = torch.func.functional_call(layer, weights, (given, (x["h"], x["c"]) if name == "LSTM" else x["h"]))
    if lengths is not None:
        y = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=4)[0]
    directions = x["W"].shape[0]
    outputs = [y.reshape(4, 3, directions, 3).transpose(1, 2), *(states if name == "LSTM" else [states])]
    sum((torch.tensor(g) * out).sum() for g, out in zip(seeds.values(), outputs, strict=True)).backward()
    for key, value in x.items():
        np.testing.assert_allclose(found[f"d.{key}"], value.grad, rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", GATES)
def test_time_batch_and_lengths_may_be_known_at_run_time_only(name: str, direction: str) -> None:
    """One graph, at every length of time (1 too) and in ONNX Runtime; padding may hold anything."""
    options: dict[str, Any] = {"clip": 0.9} if name != "RNN" else {}
    for steps, lengths in ((1, [1]), (3, [2, 3]), (4, [3, 0, 1])):
        proto, feeds = case(name, steps=steps, batch=len(lengths), lengths=lengths, direction=direction, symbols=True, **options)
        agrees_with_differences(proto, feeds)
        seeds = seeded(proto, feeds)
        expected = run(gradient(proto), {**feeds, **seeds})
        for n, length in enumerate(lengths):
            feeds["X"][length:, n] = np.nan
            seeds["g.Y"][length:, :, n] = np.nan
        single, _ = case(name, lengths=lengths, direction=direction, symbols=True, dtype=TensorProto.FLOAT, **options)
        found = run_in_onnx_runtime(gradient(single), {**feeds, **seeds})
        for key in (key for key in found if key.startswith("d.")):
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("used", [("Y",), ("Y_h",), ("Y_c",), ("Y", "Y_c"), ("Y_h", "Y_c")], ids=" ".join)
def test_adjoints_of_some_outputs(used: Sequence[str]) -> None:
    """Those that nobody uses count as zero; Y is read where the node does not give it out."""
    proto, feeds = case("LSTM", direction="reverse")
    part, _ = case("LSTM", direction="reverse", outputs=[key if key in used else "" for key in OUTPUTS])
    seeds = {key: g if key[2:] in used else np.zeros_like(g) for key, g in seeded(proto, feeds).items()}
    expected = run(gradient(proto), {**feeds, **seeds})
    found = run(gradient(part), {**feeds, **{key: g for key, g in seeds.items() if key[2:] in used}})
    for key in (key for key in expected if key.startswith("d.")):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-12, atol=1e-14, err_msg=key)


@pytest.mark.parametrize("function", ACTIVATIONS)
@pytest.mark.parametrize("name", GATES)
def test_every_activation_in_every_place(name: str, function: str) -> None:
    count = {"RNN": 1, "GRU": 2, "LSTM": 3}[name]
    for place in range(count):
        names = ["Sigmoid", "Tanh", "Tanh"][:count]
        names[place] = function
        proto, feeds = case(name, activations=names, activation_alpha=[0.7], activation_beta=[0.3], lengths=[4, 3, 2])
        agrees_with_differences(proto, {key: value if key == "lengths" else 0.7 * value for key, value in feeds.items()})


# The modules of these three alone: collecting every operator's cases takes half a minute.
NODES = [test for test in (gru, lstm, rnn) and node._NodeTestCases if test.model.graph.node[0].op_type in GATES]


@pytest.mark.parametrize("test", NODES, ids=lambda test: test.name)
def test_cases_of_onnx(test: Any) -> None:
    """Differentiated as they are; layout 1 is opened for ONNX Runtime, which does not have it."""
    single, double = test.model, onnx.ModelProto()
    double.CopyFrom(single)
    for value in (*double.graph.input, *double.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    rng, feeds = np.random.default_rng(3), {}
    for value in single.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        real = value.type.tensor_type.elem_type == TensorProto.FLOAT
        feeds[value.name] = rng.normal(size=shape) if real else np.ones(shape, np.int32)
    agrees_with_differences(double, feeds)
    feeds |= seeded(double, feeds)
    expected = run(gradient(double), feeds)
    for key, found in run_in_onnx_runtime(gradient(single), feeds).items():
        np.testing.assert_allclose(found, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_what_is_cut_gets_nothing() -> None:
    """clip cuts the gates' pre-activations, the limit itself excepted; not the cell that the last activation reads."""
    proto, feeds = case("RNN", steps=1, batch=1, inputs=1, hidden=1, leave_out=("B", "h"), clip=0.5, activations=["Relu"])
    feeds = {"X": np.ones((1, 1, 1)), "W": np.ones((1, 1, 1)), "R": np.ones((1, 1, 1))}
    seeds = {"g.Y": np.ones((1, 1, 1, 1)), "g.Y_h": np.zeros((1, 1, 1))}
    for x, expected in ((0.4, 1.0), (0.5, 1.0), (0.6, 0.0)):
        assert run(gradient(proto), {**feeds, "X": np.full((1, 1, 1), x), **seeds})["d.X"].item() == expected
    proto, feeds = case("LSTM", steps=1, clip=0.5)
    agrees_with_differences(proto, {**feeds, "c": feeds["c"] * 4.0})


def test_a_sample_without_steps_passes_nothing_on() -> None:
    """Its last states are zeros in ONNX Runtime, whatever the initial ones."""
    proto, feeds = case("LSTM", lengths=[2, 0, 4])
    found = run(gradient(proto), {**feeds, **seeded(proto, feeds)})
    assert not found["d.h"][:, 1].any()
    assert not found["d.c"][:, 1].any()
    assert found["d.h"][:, 0].all()


@pytest.mark.parametrize(
    ("name", "attributes", "reason"),
    [
        ("RNN", {"activations": ["Affine"]}, "activation_alpha and activation_beta"),
        ("RNN", {"activations": ["ThresholdedRelu"]}, "runtimes differ"),
        ("GRU", {"activations": ["Sigmoid"]}, "names 1 activations and has 2"),
        ("LSTM", {"activations": ["Sigmoid", "Gelu", "Tanh"]}, "'Gelu' is none of"),
    ],
)
def test_refusals(name: str, attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(GradientRefused, match=reason):
        gradient(case(name, **attributes)[0])


def test_weights_of_unknown_extents_are_refused() -> None:
    shapes: dict[str, Sequence[int | str]] = {"X": ("T", "N", 2), "W": (1, "rows", 2), "R": (1, "rows", 3)}
    with pytest.raises(GradientRefused, match="extents of its weights"):
        gradient(model("GRU", shapes, ("Y",), hidden_size=3))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RNN", {}),
        ("GRU", {"direction": "reverse", "lengths": [4, 0, 2]}),
        ("GRU", {"linear_before_reset": 1, "symbols": True}),
        ("LSTM", {"input_forget": 1, "symbols": True}),
        ("LSTM", {"direction": "bidirectional", "lengths": [4, 0, 2]}),
    ],
    ids=str,
)
def test_gradient_can_be_differentiated_again(name: str, options: dict[str, Any]) -> None:
    proto, feeds = case(name, **options)
    first = gradient(proto)
    adjoints = [value for value in first.graph.output if value.name.startswith("d.")]
    del first.graph.output[:]
    first.graph.output.extend(adjoints)
    agrees_with_differences(first, feeds | seeded(proto, feeds), mark="dd")


@pytest.mark.parametrize(
    ("name", "attributes", "most"), [("RNN", {}, 24), ("GRU", {}, 61), ("GRU", {"linear_before_reset": 1}, 56), ("LSTM", {}, 56)]
)
def test_few_nodes(name: str, attributes: dict[str, Any], most: int) -> None:
    """Of a whole gradient, bodies included, whatever the number of steps (a GRU of 6, unrolled, has 214)."""
    for steps in (1, 50):
        proto, _ = case(name, steps=steps, leave_out=("h", "c", "P"), outputs=("Y",), **attributes)
        compiled = ir.from_proto(gradient(proto))
        assert sum(1 for _ in compiled.graph.all_nodes()) - 1 - len(compiled.graph.outputs) <= most
